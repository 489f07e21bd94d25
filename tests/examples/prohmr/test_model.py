"""The model: sizes of the original, its checkpoints, other backbones."""

import os

import numpy as np
import pytest
import torch

from examples.prohmr.backbones import load_weights, make_backbone, state_from_torchvision
from examples.prohmr.discriminator import Discriminator
from examples.prohmr.model import MODEL_CONFIG, ProHMR, ShapeCameraHead, load_model, load_original
from flowprior.files import model_file
from flowprior.files.model_file import CheckpointError
from flowprior.prohmr import flow_state_to_prohmr

SMALL = {"hidden_features": 32, "num_steps": 2}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def to_torchvision(state):
    """ResNet-50's weights by torchvision's names, made from what those names are."""
    names = {"conv1": "embedder.embedder.convolution", "bn1": "embedder.embedder.normalization"}
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            theirs, ours = f"layer{stage + 1}.{block}", f"encoder.stages.{stage}.layers.{block}"
            for conv in range(3):
                names[f"{theirs}.conv{conv + 1}"] = f"{ours}.layer.{conv}.convolution"
                names[f"{theirs}.bn{conv + 1}"] = f"{ours}.layer.{conv}.normalization"
            if block == 0:
                names[f"{theirs}.downsample.0"] = f"{ours}.shortcut.convolution"
                names[f"{theirs}.downsample.1"] = f"{ours}.shortcut.normalization"
    back = {ours: theirs for theirs, ours in names.items()}
    result = {}
    for name, value in state.items():
        module, _, leaf = name.removeprefix("network.").rpartition(".")
        result[f"{back[module]}.{leaf}"] = value
    return result


@pytest.fixture(scope="module")
def original():
    """A model and a discriminator of the original's sizes, and the checkpoint it would write."""
    torch.manual_seed(1)
    model = ProHMR(prior={"preset": "prohmr", "context_norm": False}).eval()
    discriminator = Discriminator()
    with torch.no_grad():
        for step in model.prior.flow.steps:
            step.actnorm.shift.normal_()
            step.actnorm.initialized.fill_(True)
        model.head.init_betas.normal_()
    state = {f"backbone.{k}": v for k, v in to_torchvision(model.backbone.state_dict()).items()}
    state |= flow_state_to_prohmr(model.prior.flow, "flow.flow.")
    state |= {f"flow.fc_head.{k}": v for k, v in model.head.state_dict().items()}
    state |= {f"discriminator.{k}": v for k, v in discriminator.state_dict().items()}
    state["initialized"] = torch.tensor(True)
    state["smpl.faces_tensor"] = torch.zeros(5, 3, dtype=torch.int64)
    return model, discriminator, {"state_dict": state, "global_step": 500_000}


def test_sizes_are_those_of_the_original(original):
    model, discriminator, checkpoint = original
    assert count(model.backbone) == 23_508_032
    assert count(model.prior) == 25_893_856
    assert count(discriminator) == 1_807_619
    assert len([k for k in checkpoint["state_dict"] if k.startswith("backbone.")]) == 318


def test_a_whole_checkpoint_of_the_original_loads(original, tmp_path):
    model, discriminator, checkpoint = original
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    loaded, judge = load_original(tmp_path / "checkpoint.pt")
    for mine, theirs in ((model, loaded), (discriminator, judge)):
        expected = mine.state_dict()
        found = theirs.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(image).posterior.mode(), model(image).posterior.mode(), rtol=0, atol=0
        )


def test_a_checkpoint_without_a_backbone_is_refused(original, tmp_path):
    state = {k: v for k, v in original[2]["state_dict"].items() if not k.startswith("backbone")}
    torch.save(state, tmp_path / "flow.pt")
    with pytest.raises(CheckpointError, match="no backbone"):
        load_original(tmp_path / "flow.pt")


def test_weights_of_torchvision_go_where_they_belong(original, tmp_path):
    state = to_torchvision(original[0].backbone.state_dict())
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 2048), torch.zeros(1000)
    torch.save(state, tmp_path / "resnet50.pth")
    backbone = make_backbone("resnet50", 224)
    load_weights(backbone, str(tmp_path / "resnet50.pth"))
    expected = original[0].backbone.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in backbone.state_dict().items())
    # The original's checkpoint has the same names behind a prefix, among others.
    torch.save(original[2], tmp_path / "checkpoint.pt")
    other = make_backbone("resnet50", 224)
    load_weights(other, str(tmp_path / "checkpoint.pt"))
    assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path):
    backbone = make_backbone("resnet-small", 64)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth is not of this backbone: missing"):
        load_weights(backbone, str(tmp_path / "other.pth"))
    with pytest.raises(ValueError, match="no weight of a ResNet"):
        state_from_torchvision({"blocks.0.weight": torch.zeros(1)})


OWN = """
import torch

def make(size):
    return torch.nn.Sequential(
        torch.nn.AvgPool2d(size), torch.nn.Flatten(), torch.nn.Linear(3, 7)
    )
"""


@pytest.mark.parametrize(
    ("backbone", "width"), [("resnet-small", 256), ("vit-small", 192), ("own_backbone:make", 7)]
)
def test_any_backbone_by_one_setting(backbone, width, monkeypatch, tmp_path):
    (tmp_path / "own_backbone.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    model = ProHMR(backbone, size=64, head_features=16, prior=SMALL).eval()
    assert model.prior.config["context_features"] == width
    out = model(torch.randn(3, 3, 64, 64))
    model.save(tmp_path / "model.safetensors")
    load_model(tmp_path / "model.safetensors", own_backbone="own_backbone:make")
    if ":" in backbone:
        with pytest.raises(CheckpointError, match="called only if you name it"):
            load_model(tmp_path / "model.safetensors")
    assert out.posterior.sample(4).shape == (3, 4, 24, 6)
    assert (out.betas.shape, out.camera.shape) == ((3, 10), (3, 3))


@pytest.mark.parametrize("name", ["resnet51", "nowhere.at.all:make", "math:nothing"])
def test_an_unknown_backbone_is_named(name):
    with pytest.raises(ValueError, match=name.split(":")[0]):
        make_backbone(name, 64)


def test_saved_and_read_again(tmp_path):
    model = ProHMR("resnet-small", size=64, head_features=16, prior=SMALL).eval()
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(image).posterior.mode(), model(image).posterior.mode())
        assert torch.equal(again(image).camera, model(image).camera)


def test_the_mode_is_the_answer_of_the_prior_s_head_and_no_sample_is_likelier():
    torch.manual_seed(0)
    model = ProHMR("resnet-small", size=64, head_features=16, prior=SMALL).eval()
    with torch.no_grad():
        for parameter in model.prior.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for step in model.prior.flow.steps:
            step.actnorm.initialized.fill_(True)
        prediction = model(torch.randn(3, 3, 64, 64))
        posterior = prediction.posterior
        mode = posterior.mode()
        assert torch.equal(mode, model.prior.head(prediction.context))
        samples = posterior.sample(200, generator=torch.Generator().manual_seed(0))
        assert (posterior.log_prob(samples) <= posterior.log_prob(mode)[:, None]).all()
    columns = mode.unflatten(-1, (2, 3))
    torch.testing.assert_close(columns @ columns.mT, torch.eye(2).expand(3, 24, 2, 2))


def test_a_file_from_before_a_prior_had_a_head(tmp_path):
    options = {"space": "rot6d", "anchored": False, "num_blocks": 1, **SMALL}
    old = ProHMR("resnet-small", size=64, head_features=16, prior=options).eval()
    prior = {name: options[name] for name in ("num_blocks", *SMALL)}
    config = {"class": "ProHMR", **old.config, "prior": prior}
    path = tmp_path / "model.safetensors"
    model_file.save(path, model_file.ModelFile(old.state_dict(), config))
    again = load_model(path)
    assert again.config == old.config
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(image).posterior.mode(), old(image).posterior.mode())
    config["prior"] = {**prior, "space": "so3"}
    model_file.save(path, model_file.ModelFile(old.state_dict(), config))
    with pytest.raises(CheckpointError, match="no longer exists"):
        load_model(path)


def test_under_autocast_only_the_backbone_is_half():
    model = ProHMR("resnet-small", size=64, head_features=16, prior=SMALL).eval()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(torch.randn(2, 3, 64, 64))
        theta = out.posterior.sample(2)
    assert {out.context.dtype, out.betas.dtype, out.camera.dtype, theta.dtype} == {torch.float32}


def test_images_of_another_size_are_refused():
    model = ProHMR("resnet-small", size=64, head_features=16, prior=SMALL)
    with pytest.raises(ValueError, match=r"images \(B, 3, 64, 64\), got \(2, 3, 32, 32\)"):
        model(torch.randn(2, 3, 32, 32))


def test_the_head_starts_at_the_means(tmp_path):
    head = ShapeCameraHead(8, 16)
    np.savez(tmp_path / "mean.npz", shape=np.arange(10.0), cam=[0.8, 0.1, -0.1], pose=np.eye(3))
    head.set_means(tmp_path / "mean.npz")
    with torch.no_grad():
        head.layers[2].bias.zero_()
        betas, camera = head(torch.zeros(2, 8).index_fill_(0, torch.tensor(0), 0.0))
        head.layers[2].weight.zero_()
        betas, camera = head(torch.randn(2, 8))
    torch.testing.assert_close(betas, torch.arange(10.0).expand(2, -1))
    torch.testing.assert_close(camera, torch.tensor([0.8, 0.1, -0.1]).expand(2, -1))
    np.savez(tmp_path / "bad.npz", shape=np.arange(9.0), cam=[0.8, 0.1, -0.1])
    with pytest.raises(ValueError, match="shape of 10 numbers, got 9"):
        head.set_means(tmp_path / "bad.npz")


def test_the_discriminator_equals_its_formula():
    torch.manual_seed(0)
    judge = Discriminator().double()
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.normal_(0, 0.3)
    pose, betas = torch.randn(4, 23, 3, 3).double(), torch.randn(4, 10).double()
    w = {name: value.detach().numpy() for name, value in judge.named_parameters()}
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    x = pose.numpy().reshape(4, 23, 9)
    h = relu(x @ w["D_conv1.weight"][:, :, 0, 0].T + w["D_conv1.bias"])
    h = relu(h @ w["D_conv2.weight"][:, :, 0, 0].T + w["D_conv2.bias"])  # (4, 23, 32)
    parts = [h[:, j] @ w[f"pose_out.{j}.weight"].T + w[f"pose_out.{j}.bias"] for j in range(23)]
    b = betas.numpy()
    for name in ("betas_fc1", "betas_fc2"):
        b = relu(b @ w[f"{name}.weight"].T + w[f"{name}.bias"])
    parts.append(b @ w["betas_out.weight"].T + w["betas_out.bias"])
    a = h.transpose(0, 2, 1).reshape(4, 736)
    for name in ("D_alljoints_fc1", "D_alljoints_fc2"):
        a = relu(a @ w[f"{name}.weight"].T + w[f"{name}.bias"])
    parts.append(a @ w["D_alljoints_out.weight"].T + w["D_alljoints_out.bias"])
    expected = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(judge(pose, betas).detach().numpy(), expected, atol=1e-10)
    with pytest.raises(ValueError, match=r"body_pose \(N, 23, 3, 3\)"):
        judge(pose[:, :22], betas)


@pytest.mark.parametrize(
    "config",
    [
        {"head_features": 10**18},
        {"size": 10**9},
        {"backbone": "resnet50", "prior": {"num_steps": 10**6}},
        {"backbone": ["resnet50"]},
        {"backbone": "vit-giant"},
        {"backbone": "os:system", "size": 10},
        {"backbone": "shutil:rmtree", "size": "/nowhere"},
        {"unknown": 1},
        [1],
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_a_configuration_that_cannot_be_built(tmp_path, suffix, config):
    path = tmp_path / f"model.{suffix}"
    weights = {"head.init_cam": torch.zeros(1, 1, 3)}
    if suffix == "ckpt":
        state = {f"model.{name}": tensor for name, tensor in weights.items()}
        torch.save({MODEL_CONFIG: config, "state_dict": state}, path)
    else:
        given = {"class": "ProHMR", **(config if isinstance(config, dict) else {"prior": config})}
        model_file.save(path, model_file.ModelFile(weights, given))
    with pytest.raises(CheckpointError, match=path.name):
        load_model(path)


@pytest.mark.parametrize("content", [{}, {"state_dict": 3}, {"state_dict": {3: 4, "model.x": 5}}])
def test_a_checkpoint_of_a_training_without_weights(tmp_path, content):
    torch.save({MODEL_CONFIG: {}, **content}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        load_model(tmp_path / "last.ckpt")


def test_pipe_instead_of_a_model(tmp_path):
    os.mkfifo(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="named pipe"):
        load_model(tmp_path / "last.ckpt")


def test_weights_of_a_compiled_backbone(tmp_path):
    backbone = make_backbone("resnet-small", 64)
    state = {f"backbone._orig_mod.{name}": each for name, each in backbone.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    load_weights(make_backbone("resnet-small", 64), str(tmp_path / "a.ckpt"))
    torch.save({"state_dict": 3}, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match=r"b\.ckpt holds no weights"):
        load_weights(backbone, str(tmp_path / "b.ckpt"))
