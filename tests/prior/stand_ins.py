"""Stand-ins for known regressors: their layer names, widths and outputs, with random weights.

Nothing else of them is imitated. Where the original loops, the stand-in loops as often.
"""

import torch
from torch import Tensor, nn

from flowprior import rotations

PEOPLE = 5


def matrices(x: Tensor, layout: str) -> Tensor:
    """Rotation matrices (N, J, 3, 3) of flat 6D vectors."""
    return rotations.rot6d_to_matrix(x.unflatten(-1, (-1, 6)), layout)


def params(theta: Tensor) -> dict[str, Tensor]:
    return {"global_orient": theta[..., :1, :, :], "body_pose": theta[..., 1:, :, :]}


class Hmr2Head(nn.Module):
    """A head that adds its answer to a mean pose, as HMR2, CameraHMR and SPIN have it."""

    def __init__(self, npose: int = 144) -> None:
        super().__init__()
        self.token = nn.Linear(16, 1024)
        self.decpose = nn.Linear(1024, npose)
        self.register_buffer("mean", torch.randn(npose))

    def forward(self, x: Tensor) -> Tensor:
        return self.decpose(self.token(x)) + self.mean


class Hmr2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.smpl_head = Hmr2Head()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, object]:
        theta = matrices(self.smpl_head(batch["img"]), "columns")
        return {"pred_cam": torch.zeros(len(theta), 3), "pred_smpl_params": params(theta)}


class CameraHmr(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.smpl_head = Hmr2Head()

    def forward(self, batch: dict[str, Tensor]) -> tuple[object, ...]:
        theta = matrices(self.smpl_head(batch["img"]), "columns")
        return params(theta), torch.zeros(len(theta), 3), torch.zeros(len(theta))


class Tokens(nn.Module):
    """TokenHMR's classifier: 21 body joints, and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer_trans = nn.Linear(1024, 126)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mixer_trans(x), x.softmax(dim=-1)


class TokenHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Linear(16, 1024)
        self.decpose_grot = nn.Linear(1024, 6)
        self.decpose = Tokens()
        self.decpose_hands = nn.Linear(1024, 12)

    def forward(self, x: Tensor) -> Tensor:
        token = self.token(x)
        body, _ = self.decpose(token)
        return torch.cat((self.decpose_grot(token), body, self.decpose_hands(token)), dim=-1)


class TokenHmr(Hmr2):
    def __init__(self) -> None:
        super().__init__()
        self.smpl_head = TokenHead()


class MhrHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 519))

    def forward(self, token: Tensor) -> Tensor:
        return self.proj(token)


class Sam3dBody(nn.Module):
    """The pose head runs after every decoder layer; the last answer counts."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1024, 1024) for _ in range(layers))
        self.head_pose = MhrHead()
        self.token = nn.Linear(16, 1024)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, object]:
        tokens = self.token(batch["img"])[:, None].repeat(1, 4, 1)
        for layer in self.layers:
            tokens = layer(tokens)
            answer = self.head_pose(tokens[:, 0])
        return {
            "mhr": {"pred_keypoints_3d": answer[:, :210].unflatten(-1, (70, 3)), "shape": answer},
            "mhr_hand": None,
        }


class MultiHmr(nn.Module):
    """Returns a list of people."""

    def __init__(self) -> None:
        super().__init__()
        self.x_attention_head = Hmr2Head(53 * 6)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        rotvec = rotations.matrix_to_rotvec(matrices(self.x_attention_head(images), "columns"))
        return [{"rotvec": each, "shape": torch.zeros(10)} for each in rotvec]


class PromptDecoder(nn.Module):
    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.token = nn.Linear(16, width)
        self.pose_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 132))

    def forward(self, x: Tensor) -> Tensor:
        return self.pose_head(self.token(x))


class PromptHmr(nn.Module):
    """Loops over images, with any number of people in each."""

    def __init__(self) -> None:
        super().__init__()
        self.smpl_decoder = PromptDecoder()

    def forward(self, batch: list[Tensor]) -> list[dict[str, Tensor]]:
        return [{"rotmat": matrices(self.smpl_decoder(people), "rows")} for people in batch]


class Spin(nn.Module):
    """Three iterations; the input of the last one goes with the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(16 + 144, 1024)
        self.decpose = nn.Linear(1024, 144)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        pose = torch.zeros(len(x), 144)
        for _ in range(3):
            pose = self.decpose(self.fc1(torch.cat((x, pose), dim=-1))) + pose
        return matrices(pose, "interleaved"), torch.zeros(len(x), 10), torch.zeros(len(x), 3)


class ProHmrFlow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2048, 144)

    def forward(self, feats: Tensor, num_samples: int = 1, z: Tensor | None = None) -> Tensor:
        noise = torch.randn(len(feats), num_samples, 144) if z is None else z
        return matrices(self.net(feats)[:, None] + noise, "columns")


class ProHmr(nn.Module):
    """Samples, with the mode first."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(16, 2048)
        self.flow = ProHmrFlow()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, object]:
        feats = self.backbone(batch["img"])
        samples = self.flow(feats, num_samples=2)
        mode = self.flow(feats, z=torch.zeros(len(feats), 1, 144))
        return {"pred_smpl_params": params(torch.cat((mode, samples), dim=1))}


class Nlf(nn.Module):
    """Localises points and fits SMPL to them; one list entry for each image."""

    def forward(self, images: list[Tensor]) -> dict[str, list[Tensor]]:
        return {"pose": [torch.randn(len(image), 72) for image in images]}


STAND_INS = {
    "hmr2": Hmr2,
    "camerahmr": CameraHmr,
    "tokenhmr": TokenHmr,
    "sam_3d_body": Sam3dBody,
    "multi_hmr": MultiHmr,
    "prompthmr": PromptHmr,
    "nlf": Nlf,
    "spin": Spin,
    "prohmr": ProHmr,
}


def stand_in(name: str) -> tuple[nn.Module, object]:
    """A stand-in in evaluation mode, and an input with `PEOPLE` people."""
    torch.manual_seed(0)
    model = STAND_INS[name]().eval()
    x = torch.randn(PEOPLE, 16)
    if name in ("multi_hmr", "spin"):
        return model, x
    if name in ("prompthmr", "nlf"):
        return model, list(x.split([3, 0, 2]))
    return model, {"img": x}
