"""Known regressors: where a head can be put, and how each one's answer becomes the centre.

Nothing of theirs is imported: an entry names a layer and reads the output of a model that the user
has loaded with its own code. The page *Confidence for your regressor* cites the file and line of
every fact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from flowprior.prior.heads.answers import theta_from_parts, theta_from_rotvec, to_smpl_24
from flowprior.prior.heads.taps import Tap, tap

__all__ = ["REGRESSORS", "Regressor"]


@dataclass(frozen=True)
class Regressor:
    """A known regressor.

    Attributes:
        name: Its name.
        repository: ``owner/name`` on GitHub.
        commit: The commit at which the facts were checked.
        layer: Name of the layer whose input is the context; ``""`` where none can be tapped.
        width: Width C of that input; None if it depends on the configuration.
        calls: Which calls of the layer belong to one forward pass, as for :func:`tap`.
        body: Body model of the answer.
        space: Space of a prior around the answer, ``"so3"`` or ``"points"``.
        joints: Number of joints of :meth:`centre`.
        representation: What the pose layer computes.
        layout: Order of its 6D vectors, one of :data:`flowprior.rotations.LAYOUTS`; None for
            another representation.
        rest_joints: Joints that the regressor does not answer; :meth:`centre` has them at rest.
        root: Frame of the root.
        answer: Where the answer is in the model's output.
        licence: The licence of code and weights, to be read before use.
        read: Reads the answer from the output; :meth:`centre` calls it.
    """

    name: str
    repository: str
    commit: str
    layer: str
    width: int | None
    body: str
    representation: str
    answer: str
    licence: str
    read: Callable[[Any], Tensor] = field(repr=False)
    calls: str = "last"
    space: str = "so3"
    joints: int = 24
    layout: str | None = None
    rest_joints: tuple[int, ...] = ()
    root: str = "joint 0, in the axes of the (cropped) camera: x right, y down, z forward"

    def tap(self, model: nn.Module) -> Tap:
        """Open a tap at the layer of this regressor.

        Args:
            model: The regressor, loaded with its own code.

        Raises:
            ValueError: If the model has no such layer, or this regressor none that can be tapped.
        """
        if not self.layer:
            raise ValueError(
                f"{self.name} has no layer that can be tapped: {self.representation}. Use parts of "
                "its output as the context"
            )
        return tap(model, self.layer, calls=self.calls)

    def centre(self, output: object) -> Tensor:
        """The answer, as the centre of a prior.

        Args:
            output: What the model returned.

        Returns:
            (N, J, 3, 3) rotation matrices, or (N, J, 3) points in metres if ``space`` is
            ``"points"``: one row for each person, in the order of the tapped features. A list
            output without people is an error, since the layer has not run either.

        Raises:
            ValueError: If the output has another structure.
        """
        try:
            return self.read(output)
        except (LookupError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"this is not the output of {self.name}: expected {self.answer} "
                f"({type(error).__name__}: {error})"
            ) from error


def _in_parts(params: Mapping[str, Tensor]) -> Tensor:
    return theta_from_parts(params["global_orient"], params["body_pose"])


def _mode_of_samples(output: Mapping[str, Any]) -> Tensor:
    return _in_parts(output["pred_smpl_params"])[:, 0]


def _people(output: Sequence[Mapping[str, Tensor]], key: str) -> Tensor:
    return torch.stack([person[key] for person in output])


def _images(output: Sequence[Mapping[str, Tensor]], key: str) -> Tensor:
    return torch.cat([image[key] for image in output])


_MPI = "non-commercial research; SMPL's own terms apply"

_ENTRIES = {
    "hmr2": Regressor(
        name="HMR2 (4D-Humans)",
        repository="shubham-goel/4D-Humans",
        commit="6ec79656a23c33237c724742ca2a0ec00b398b53",
        layer="smpl_head.decpose",
        width=1024,
        body="SMPL",
        representation="6D vectors of 24 joints",
        layout="columns",
        answer='output["pred_smpl_params"], rotation matrices',
        read=lambda output: _in_parts(output["pred_smpl_params"]),
        licence="code MIT; SMPL's own terms apply to the body",
    ),
    "camerahmr": Regressor(
        name="CameraHMR",
        repository="pixelite1201/CameraHMR",
        commit="65d11a0640d23c60f55ec82ae54298e9e7e549e0",
        layer="smpl_head.decpose",
        width=1024,
        body="SMPL",
        representation="6D vectors of 24 joints",
        layout="columns",
        answer="output[0], rotation matrices",
        read=lambda output: _in_parts(output[0]),
        licence="no licence file in the repository; ask its authors",
    ),
    "tokenhmr": Regressor(
        name="TokenHMR",
        repository="saidwivedi/TokenHMR",
        commit="198645f7784a27a4df0eac32478b1e7bc3e13574",
        layer="smpl_head.decpose",
        width=1024,
        body="SMPL",
        representation="tokens of the 21 body joints, decoded to 6D vectors",
        layout="columns",
        answer='output["pred_smpl_params"], rotation matrices',
        read=lambda output: _in_parts(output["pred_smpl_params"]),
        licence=_MPI,
    ),
    "sam_3d_body": Regressor(
        name="SAM 3D Body",
        repository="facebookresearch/sam-3d-body",
        commit="b5c765a0d89d789985e186d396315e7590887b94",
        layer="head_pose.proj",
        width=1024,
        body="MHR",
        representation="MHR's joint angles, which are not rotations of SMPL's joints",
        space="points",
        joints=70,
        root="none: points in the camera's axes, about the origin of MHR",
        answer='output["mhr"]["pred_keypoints_3d"], 70 keypoints in metres',
        read=lambda output: output["mhr"]["pred_keypoints_3d"],
        licence="SAM License (Meta)",
    ),
    "multi_hmr": Regressor(
        name="Multi-HMR",
        repository="naver/multi-hmr",
        commit="651fb411e1cbcc626aaa5f38805ecab9cc891f7a",
        layer="x_attention_head.decpose",
        width=1024,
        body="SMPL-X",
        representation="6D vectors of 53 joints",
        layout="columns",
        rest_joints=(22, 23),
        root="joint 0, in the camera's axes: x right, y down, z forward",
        answer='a list with person["rotvec"], 53 rotation vectors',
        read=lambda output: to_smpl_24(theta_from_rotvec(_people(output, "rotvec"))),
        licence="non-commercial (NAVER); SMPL-X's own terms apply to the body",
    ),
    "prompthmr": Regressor(
        name="PromptHMR",
        repository="yufu-wang/PromptHMR",
        commit="ea85d0abc71d7cb3f92bd63d09b6f96dfca15a8e",
        layer="smpl_decoder.pose_head",
        width=None,
        calls="all",
        body="SMPL-X",
        representation="6D vectors of 22 joints",
        layout="rows",
        rest_joints=(22, 23),
        root="joint 0, in the camera's axes: x right, y down, z forward",
        answer='a list with image["rotmat"], 22 rotation matrices of each person',
        read=lambda output: to_smpl_24(_images(output, "rotmat")),
        licence="non-commercial research (Meshcapade); SMPL-X's own terms apply to the body",
    ),
    "nlf": Regressor(
        name="NLF",
        repository="isarandi/nlf",
        commit="6f7ba6d6807da9f503902f26a22761951d1baa8a",
        layer="",
        width=None,
        body="SMPL or SMPL-X, fitted to its points",
        representation="it localises points and is distributed as TorchScript",
        rest_joints=(22, 23),
        root="joint 0, in the camera's axes: x right, y down, z forward",
        answer='output["pose"], a list with rotation vectors of the people of each image',
        read=lambda output: to_smpl_24(theta_from_rotvec(torch.cat(list(output["pose"])))),
        licence="code MIT; weights for non-commercial research; SMPL's own terms apply to the body",
    ),
    "spin": Regressor(
        name="SPIN",
        repository="nkolot/SPIN",
        commit="2476c436013055be5cb3905e4e4ecfa86966fac3",
        layer="decpose",
        width=1024,
        body="SMPL",
        representation="6D vectors of 24 joints, refined three times",
        layout="interleaved",
        answer="output[0], rotation matrices",
        read=lambda output: _matrices(output[0]),
        licence="code BSD-like; SMPL's own terms apply to the body",
    ),
    "prohmr": Regressor(
        name="ProHMR",
        repository="nkolot/ProHMR",
        commit="3b1a9926f97ba1c77f1cb97151da2a59d2f16d11",
        layer="flow",
        width=2048,
        body="SMPL",
        representation="6D vectors of 24 joints, from its own flow",
        layout="columns",
        answer='output["pred_smpl_params"], rotation matrices of samples, the mode first',
        read=_mode_of_samples,
        licence="code BSD-like; SMPL's own terms apply to the body",
    ),
}


def _matrices(theta: Tensor) -> Tensor:
    return theta_from_parts(theta[:, :1], theta[:, 1:])


REGRESSORS: Mapping[str, Regressor] = MappingProxyType(_ENTRIES)
"""Known regressors by name."""
