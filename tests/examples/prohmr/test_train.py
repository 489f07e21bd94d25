"""Training: output files, exact resuming, several processes, reports."""

import copy
import dataclasses
import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.prohmr import module as module_file
from examples.prohmr import train
from examples.prohmr.config import CONFIGS, Config
from examples.prohmr.losses import LossWeights
from examples.prohmr.model import load_model
from examples.prohmr.precision import ScaledHalf
from examples.training.settings import read_settings
from examples.training.trainer import config_path
from examples.whole_files import write_text
from flowprior import ConditionalPosePrior
from flowprior.files import model_file
from tests.examples.prohmr.test_losses import by_hand
from tests.examples.torchrun import together
from tools.kill_runs import GONE_S, descendants, differences, start

TINY = (
    "size=32",
    "head_features=8",
    "hidden_features=16",
    "flow_steps=2",
    "batch_size=8",
    "learning_rate=1e-3",
    "weight_decay=1e-4",
    "precision=32-true",
    "workers=0",
    "val_images=4",
    "val_samples=2",
    "val_every=100",
    "logger=none",
)


@pytest.fixture
def data(painted):
    return painted


@pytest.fixture
def own_data(data, tmp_path):
    """A copy of the data to spoil."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "images").symlink_to(data / "images")
    for file in data.glob("*.npz"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def run(data, out, *argv):
    return train.main(["--data", str(data), "--out", str(out), "--device", "cpu", *TINY, *argv])


def weights(out):
    return dict(model_file.load(out / "model.safetensors").tensors)


def rewrite(file, **columns):
    content = dict(np.load(file)) | columns
    np.savez(file, **{name: value for name, value in content.items() if value is not None})


def test_files_of_a_run(data, tmp_path, capsys):
    assert run(data, tmp_path / "out", "--steps", "4", "val_every=2") == 0
    names = {str(path.relative_to(tmp_path / "out")) for path in tmp_path.rglob("*")}
    assert names >= {
        "config.yaml",
        "results.json",
        "model.safetensors",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "pictures/step_000002.png",
        "pictures/step_000004.png",
    }
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert results["steps"] == 4
    assert results["metrics"]["val_mode_mpjpe_mm"] > 0
    assert not any(results["faults"].values())
    assert "images a second" in capsys.readouterr().out
    model = load_model(tmp_path / "out/model.safetensors")
    assert not model.training
    halfway = load_model(tmp_path / "out/checkpoints/last.ckpt").state_dict()
    fitted = {"prior.flow.temperature", "prior.flow.base.degrees_of_freedom"}
    assert all(
        torch.equal(value, halfway[name])
        for name, value in model.state_dict().items()
        if name not in fitted
    )
    if results.get("calibration"):
        assert results["calibration"]["temperature"] == pytest.approx(
            float(model.prior.flow.temperature)
        )
    else:
        assert torch.equal(model.prior.flow.temperature, halfway["prior.flow.temperature"])
    assert read_settings(Config, tmp_path / "out/config.yaml").steps == 4
    # Other settings are refused there.
    assert run(data, tmp_path / "out", "--steps", "4", "clip=1") == 2
    assert "clip 5.0 -> 1.0" in capsys.readouterr().err


def adam_by_hand(before, gradient, rate=1e-3, decay=1e-4, eps=1e-8):
    """AdamW's first step: its means, corrected for their start, are gradient and its square."""
    before, gradient = before.double().numpy(), gradient.double().numpy()
    return before - rate * decay * before - rate * gradient / (np.abs(gradient) + eps)


def test_one_step_by_hand(data, tmp_path, monkeypatch):
    """What the first step computes, and what it makes of the weights of both networks."""
    seen = {}
    objective, step = module_file.objective, module_file.ProHMRModule._step
    critic_step = module_file.ProHMRModule._train_discriminator

    def observed_objective(samples, supervision, nll, judged):
        terms = objective(samples, supervision, nll, judged)
        seen["terms"] = dict(terms)
        seen["given"] = tuple(map(detached, (samples, supervision, nll, judged)))
        return terms

    def observed_step(self, optimizer, model, terms):
        seen["before"] = {n: p.detach().clone() for n, p in model.named_parameters()}
        seen["gradient"] = {n: p.grad.clone() for n, p in model.named_parameters()}
        step(self, optimizer, model, terms)
        seen["after"] = {n: p.detach().clone() for n, p in model.named_parameters()}

    def observed_critic(self, optimizer, poses, betas, number):
        critic = self.discriminator
        start = copy.deepcopy(critic).double().requires_grad_(True)
        generator = self._generator(7, number, on_device=False)
        real = self.sources.mocap.draw(16, generator, self.device)
        fake = start(poses.detach().double(), betas.detach().double())
        real = start(*(each.double() for each in real))
        loss = fake.square().sum() / 16 + (real - 1).square().sum() / 16
        (0.0005 * loss).backward()
        found = critic_step(self, optimizer, poses, betas, number)
        assert found.item() == pytest.approx(loss.item(), rel=1e-5)
        for name, parameter in start.named_parameters():
            expected = adam_by_hand(parameter.detach(), parameter.grad, rate=1e-4)
            now = dict(critic.named_parameters())[name].detach().numpy()
            clear = parameter.grad.abs().numpy() > 1e-6  # elsewhere rounding decides the sign
            np.testing.assert_allclose(now[clear], expected[clear], atol=1e-6)
        seen["critic"] = True
        return found

    monkeypatch.setattr(module_file, "objective", observed_objective)
    monkeypatch.setattr(module_file.ProHMRModule, "_step", observed_step)
    monkeypatch.setattr(module_file.ProHMRModule, "_train_discriminator", observed_critic)
    argv = ("--steps", "1", "schedule=constant", "clip=0", "validation={}", "loss={}")
    assert run(data, tmp_path, *argv) == 0

    expected = by_hand(*seen["given"])
    for name, term in seen["terms"].items():
        assert term.item() == pytest.approx(expected[name], rel=1e-5), name
    for name, after in seen["after"].items():
        found = adam_by_hand(seen["before"][name], seen["gradient"][name])
        np.testing.assert_allclose(after.numpy(), found, atol=1e-6, err_msg=name)
    assert seen["critic"]


def detached(value):
    if isinstance(value, torch.Tensor):
        return value.detach()
    names = [field.name for field in dataclasses.fields(value)]
    return dataclasses.replace(value, **{name: detached(getattr(value, name)) for name in names})


def test_the_discriminator_steps_only_every_so_often(data, tmp_path, monkeypatch):
    numbers = []
    critic_step = module_file.ProHMRModule._train_discriminator

    def observed(self, optimizer, poses, betas, number):
        numbers.append(number)
        return critic_step(self, optimizer, poses, betas, number)

    monkeypatch.setattr(module_file.ProHMRModule, "_train_discriminator", observed)
    assert run(data, tmp_path, "--steps", "6", "discriminator_every=3", "validation={}") == 0
    assert numbers == [0, 3]


def test_the_likelihood_trains_the_flow_and_not_the_head_of_the_mode(data, tmp_path, monkeypatch):
    seen = {}
    step = module_file.ProHMRModule._step

    def observed(self, optimizer, model, terms):
        names = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        seen.setdefault("moved", names)
        step(self, optimizer, model, terms)

    monkeypatch.setattr(module_file.ProHMRModule, "_step", observed)
    silent = dict.fromkeys(LossWeights.__dataclass_fields__, 0.0) | {"nll": 1.0}
    argv = ("--steps", "1", f"loss={json.dumps(silent)}", "validation={}")
    assert run(data, tmp_path, *argv) == 0
    assert any(name.startswith("prior.flow.") for name in seen["moved"])
    assert not any(name.startswith("prior.head.") for name in seen["moved"])


def test_nll_is_that_of_the_prior(data, tmp_path, monkeypatch):
    """The term of the step and `prior.nll` without noise: the same density."""
    nll = module_file.ProHMRModule._nll
    found = {}

    def observed(self, prediction, supervision, number):
        prior = self.model.prior
        noise, prior.target_noise = prior.target_noise, 0.0
        value = nll(self, prediction, supervision, number)
        args = (supervision.rotation, prediction.context, supervision.with_pose)
        found[number] = (value.item(), prior.nll(*args).item())
        prior.target_noise = noise
        return value

    monkeypatch.setattr(module_file.ProHMRModule, "_nll", observed)
    assert run(data, tmp_path, "--steps", "2", "validation={}") == 0
    for ours, theirs in found.values():
        assert ours == pytest.approx(theirs, rel=1e-5)


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    ("where", "settings"),
    [
        ("in the validation", ()),
        ("in the validation", ("dropout=0.3",)),  # no anchored flow has dropout
        ("before the results", ("dropout=0.3",)),
        ("before the results", ("preset=prohmr", "dropout=0.3", "context_norm=false")),
    ],
)
def test_stopped_run_resumes_to_the_same_files(own_data, tmp_path, monkeypatch, where, settings):
    names = np.load(own_data / "train.npz")["imgname"].copy()
    names[::3] = "train/nowhere.jpg"  # counted in the results
    rewrite(own_data / "train.npz", imgname=names)

    def sheet(path, model, *_):
        write_text(path, f"{sum(float(p.sum()) for p in model.parameters())}")

    monkeypatch.setattr(module_file, "sheet_of_predictions", sheet)
    (tmp_path / "whole" / "pictures").mkdir(parents=True)
    (tmp_path / "broken" / "pictures").mkdir(parents=True)
    extra = ("--steps", "4", "checkpoint_every=1", "val_every=2", "logger=csv", *settings)
    assert run(own_data, tmp_path / "whole", *extra) == 0
    validation = module_file.ProHMRModule.validation_step

    def stopped(self, *args):
        validation(self, *args)
        raise Stopped

    with monkeypatch.context() as patch:
        if where == "in the validation":
            patch.setattr(module_file.ProHMRModule, "validation_step", stopped)
        else:
            patch.setattr(train, "save", stopped_at_once)
        with pytest.raises(Stopped):
            run(own_data, tmp_path / "broken", *extra)
    (tmp_path / "broken" / "pictures" / ".step.png.01234567.partial").touch()
    assert run(own_data, tmp_path / "broken", *extra) == 0
    assert differences(tmp_path / "whole", tmp_path / "broken") == []
    results = json.loads((tmp_path / "broken" / "results.json").read_text(encoding="utf-8"))
    assert results["metrics"]["val_mode_mpjpe_mm"] > 0
    assert results["faults"]["unreadable images"] > 0


def stopped_at_once(*_):
    raise Stopped


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc here")
def test_killed_its_workers_end(data, tmp_path):
    argv = ["--data", str(data), "--out", str(tmp_path / "out"), "--device", "cpu", *TINY]
    argv += ["--steps", "400", "workers=2", "validation={}", "checkpoint_every=1"]
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    with start("examples.prohmr.train", argv, tmp_path / "log") as process:
        while not last.exists():
            assert process.is_alive(), (tmp_path / "log").read_text(encoding="utf-8")
            time.sleep(0.01)
        assert len(descendants(tmp_path / "log")) >= 3
        process.kill()
        process.join()
        deadline = time.monotonic() + GONE_S
        while descendants(tmp_path / "log"):
            assert time.monotonic() < deadline, "workers of a killed training go on"
            time.sleep(0.1)
    done = torch.load(last, weights_only=True)["global_step"]
    assert 0 < done < 400


def half(monkeypatch, scale, **keywords):
    """Let trainings in half precision start with a scale of the loss."""

    def plugin(device):
        return ScaledHalf(device, torch.amp.GradScaler(device, init_scale=scale, **keywords))

    monkeypatch.setattr(train, "ScaledHalf", plugin)


def scales(monkeypatch):
    """The scale of the loss in every step that is to come."""
    seen = []
    step = module_file.ProHMRModule._step

    def observed(self, *arguments):
        seen.append(self._scaler.get_scale())
        return step(self, *arguments)

    monkeypatch.setattr(module_file.ProHMRModule, "_step", observed)
    return seen


@pytest.mark.slow
def test_half_precision_finds_its_scale_and_goes_on_with_it(data, tmp_path, monkeypatch, capsys):
    half(monkeypatch, 2.0**21, growth_interval=2)
    seen = scales(monkeypatch)
    extra = ("--steps", "12", "checkpoint_every=1", "validation={}", "precision=16-mixed")
    assert run(data, tmp_path / "whole", *extra) == 0
    whole = list(seen)
    falls = sum(after < before for before, after in pairwise(whole))
    assert falls > 1
    assert any(after > before for before, after in pairwise(whole))  # and grows again
    faults = json.loads((tmp_path / "whole/results.json").read_text(encoding="utf-8"))["faults"]
    assert falls <= faults["steps to find the scale of the loss"] <= falls + 1
    assert faults["steps skipped"] == 0
    assert "skipped" not in capsys.readouterr().err

    seen.clear()
    log_step = module_file.ProHMRModule._log_step

    def interrupted(self, *arguments):
        if len(seen) == 9:
            raise KeyboardInterrupt
        log_step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module_file.ProHMRModule, "_log_step", interrupted)
        assert run(data, tmp_path / "broken", *extra) == 130
    done = torch.load(tmp_path / "broken/checkpoints/last.ckpt", weights_only=True)["global_step"]
    del seen[done:]
    assert run(data, tmp_path / "broken", *extra) == 0
    assert seen == whole
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert load_model(tmp_path / "broken/checkpoints/last.ckpt").size == 32


def test_the_scale_of_the_loss_is_not_in_the_step(data, tmp_path, monkeypatch):
    found = {}
    clip = torch.nn.utils.clip_grad_norm_

    def observed(parameters, limit):
        found.setdefault(name, float(clip(parameters, limit)))
        return torch.tensor(found[name])

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", observed)
    for name, scale in (("32-true", 1.0), ("16-mixed", 256.0), ("again", 4096.0)):
        half(monkeypatch, scale)
        precision = "32-true" if name == "32-true" else "16-mixed"
        argv = ("--steps", "1", "validation={}", f"precision={precision}")
        assert run(data, tmp_path / name, *argv) == 0
    assert found["16-mixed"] == pytest.approx(found["again"], rel=1e-2)
    assert found["16-mixed"] == pytest.approx(found["32-true"], rel=0.05)


@pytest.mark.slow
def test_two_processes_with_half_batches_agree_with_one(data, tmp_path):
    extra = ["--steps", "20", "backbone=vit-small", "validation={}"]
    assert run(data, tmp_path / "one", *extra) == 0
    argv = ["--data", str(data), "--out", str(tmp_path / "two"), "--device", "cpu", *TINY, *extra]
    together("examples.prohmr.train", argv, tmp_path)
    expected = weights(tmp_path / "one")
    for name, value in weights(tmp_path / "two").items():
        if name.endswith("k_proj.bias"):  # no effect, so its gradient is rounding alone
            continue
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=0, msg=name)


@pytest.mark.filterwarnings("ignore:the scale and shift of ActNorm")  # one row cannot set it
def test_one_annotated_row_and_missing_images_are_reported(own_data, tmp_path, capsys):
    rows = len(np.load(own_data / "train.npz")["imgname"])
    names = np.load(own_data / "train.npz")["imgname"].copy()
    names[::3] = "train/nowhere.jpg"
    one = np.zeros(rows)
    one[1] = 1
    rewrite(own_data / "train.npz", imgname=names, has_body_pose=one)
    assert run(own_data, tmp_path / "out", "--steps", "4", "preset=prohmr") == 0
    faults = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["faults"]
    assert 0 < faults["unreadable images"] < 4 * 8
    assert faults["steps without NLL"] >= 3
    assert faults["steps skipped"] == 0
    assert all(value.isfinite().all() for value in weights(tmp_path / "out").values())
    assert "unreadable images" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:the scale and shift of ActNorm")  # no row sets it
@pytest.mark.parametrize("preset", ["default", "prohmr"])
def test_annotations_without_smpl_and_no_mocap(own_data, tmp_path, capsys, preset):
    rewrite(own_data / "train.npz", body_pose=None, has_body_pose=None, betas=None, has_betas=None)
    (own_data / "mocap.npz").unlink()
    assert run(own_data, tmp_path / "out", "--steps", "2", f"preset={preset}") == 0
    printed = capsys.readouterr().out
    assert "no motion capture: nothing is adversarial" in printed
    assert "missing: mocap" in printed
    assert all(value.isfinite().all() for value in weights(tmp_path / "out").values())


def test_a_missing_data_set_leaves_the_others(data, tmp_path, capsys):
    argv = ("--steps", "1", "datasets={train: 0.3, COCO-TRAIN-2014: 0.7}", "validation={}")
    assert run(data, tmp_path / "out", *argv) == 0
    printed = capsys.readouterr().out
    assert "train: 100.0 % of what is drawn" in printed
    assert "COCO-TRAIN-2014: missing" in printed
    assert run(data, tmp_path / "none", "--steps", "1", "datasets={nowhere: 1.0}") == 2
    assert "has none of nowhere" in capsys.readouterr().err


def test_a_step_of_nan_is_reported_and_leaves_the_weights(data, tmp_path, capsys, monkeypatch):
    calls = []
    real = module_file.total

    def spoiled(terms, lambdas):
        calls.append(None)
        return real(terms, lambdas) * (torch.nan if len(calls) in (2, 3) else 1)

    monkeypatch.setattr(module_file, "total", spoiled)
    assert run(data, tmp_path / "out", "--steps", "5", "validation={}") == 0
    assert len(calls) == 5
    faults = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["faults"]
    assert faults["steps skipped"] == 2
    assert "step 1: skipped, NaN or infinity" in capsys.readouterr().err
    assert all(value.isfinite().all() for value in weights(tmp_path / "out").values())


def test_failed_training_ends(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module_file, "TOLERATED", 3)
    monkeypatch.setattr(module_file, "total", lambda terms, _: terms["orth"] * torch.nan)
    assert run(data, tmp_path / "out", "--steps", "50", "validation={}") == 1
    assert "3 steps in a row were skipped" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-true"])
def test_the_papers_settings_at_a_small_size(data, tmp_path, precision):
    argv = ["--config", "paper", "--steps", "2", "backbone=resnet-small", "weights=none"]
    argv += ["datasets={train: 1}", "validation={}", "mocap=mocap", "workers=0"]
    assert run(data, tmp_path / "out", *argv, f"precision={precision}") == 0
    tensors = weights(tmp_path / "out")
    assert all(value.dtype == torch.float32 for value in tensors.values() if value.ndim)
    assert all(value.isfinite().all() for value in tensors.values())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["step=5"], "unknown setting step"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["backbone=resnet51"], "no backbone 'resnet51'"),
        (["loss={nil: 1}"], "unknown loss nil"),
        (["batch_size=0"], "batch_size must be at least 1, got 0"),
        (["precision=16"], "precision must be one of"),
        (["body=nowhere.pkl"], "nowhere.pkl"),
        (["weights=nowhere.pth"], "nowhere.pth"),
    ],
)
def test_bad_input_is_one_line_and_code_2(data, tmp_path, capsys, argv, words):
    assert run(data, tmp_path, *argv) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_help_and_the_files_of_settings(capsys):
    with pytest.raises(SystemExit) as done:
        train.main(["--help"])
    assert done.value.code == 0
    assert "torchrun" in capsys.readouterr().out
    paper = read_settings(Config, config_path(CONFIGS, "paper"))
    assert (paper.steps, paper.batch_size, paper.learning_rate) == (500_000, 64, 1e-4)
    assert paper.loss_weights == type(paper.loss_weights)()
    assert paper.make is not None
    assert read_settings(Config, config_path(CONFIGS, "small")).context_norm


def test_the_settings_of_the_paper_are_the_original_s_network():
    paper = ConditionalPosePrior(16, **read_settings(Config, config_path(CONFIGS, "paper")).prior)
    assert paper.head is None
    assert not paper.config["anchored"]
    assert (paper.space.name, paper.config["base"]) == ("rot6d", "normal")
    assert (paper.config["batch_norm"], paper.config["dropout"]) == (True, 0.5)
    small = ConditionalPosePrior(16, **read_settings(Config, config_path(CONFIGS, "small")).prior)
    assert small.has_exact_mode
    assert (small.space.name, small.config["anchored"]) == ("so3", True)
    assert small.head is not None
