"""A training that is stopped between two writes and resumed ends with the files of an unbroken one.

These moments split the work of one step; `tests.tools.test_kill_runs` kills at random moments.
"""

import numpy as np
import pytest
import torch

from examples.data.procedural import sample_person, sample_poses
from examples.lifting import train
from examples.lifting.module import LiftingModule
from examples.training import resuming
from examples.training.checkpoints import WholeFiles
from tools.kill_runs import differences

SETTINGS = (
    *("width=8", "num_blocks=1", "hidden_features=8", "flow_steps=1", "flow_blocks=1"),
    *("batch_size=8", "dropout=0.3", "val_views=20", "val_every=2", "checkpoint_every=1"),
    # From the start, so that the second step has a best checkpoint.
    *("regressor_share=0", "logger=none", "--steps", "4", "--device", "cpu"),
)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def poses(tmp_path_factory):
    rng = np.random.default_rng(0)
    joints = np.concatenate([sample_poses(sample_person(rng), 40, rng)[0] for _ in range(3)])
    path = tmp_path_factory.mktemp("poses") / "poses.npz"
    parts = np.repeat(np.arange(3), 40)
    names = np.array(["a", "b", "c"])
    np.savez(path, joints17=joints, split=parts, subject=parts, subject_names=names)
    return path


def run(poses, out, *more):
    return train.main(["--data", str(poses), "--out", str(out), *SETTINGS, *more])


@pytest.fixture(scope="module")
def whole(poses, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(poses, out) == 0
    return out


def stop_validation(patch, step):
    """Stop in the validation after a step."""
    original = LiftingModule.validation_step

    def stopped(self, *args):
        original(self, *args)
        if self.global_step == step:
            raise Stopped

    patch.setattr(LiftingModule, "validation_step", stopped)


def stop_checkpoint(patch, step, name, before):
    """Stop before or after a checkpoint is written."""
    original = WholeFiles.save_checkpoint

    def stopped(self, checkpoint, path, **options):
        now = str(path).endswith(name) and checkpoint["global_step"] == step
        if now and before:
            raise Stopped
        original(self, checkpoint, path, **options)
        if now:
            raise Stopped

    patch.setattr(WholeFiles, "save_checkpoint", stopped)


def stop_finish(patch):
    """Stop after the last step, before the results are written."""

    def stopped(*_):
        raise Stopped

    patch.setattr(train, "save", stopped)


MOMENTS = {
    "the first validation": lambda patch: stop_validation(patch, 2),
    "the last validation": lambda patch: stop_validation(patch, 4),
    "before the first checkpoint": lambda patch: stop_checkpoint(patch, 1, "last.ckpt", True),
    "after a step without validation": lambda patch: stop_checkpoint(patch, 3, "last.ckpt", False),
    "before the best": lambda patch: stop_checkpoint(patch, 2, "best.ckpt", True),
    "between best and last": lambda patch: stop_checkpoint(patch, 2, "best.ckpt", False),
    "after a step with validation": lambda patch: stop_checkpoint(patch, 2, "last.ckpt", False),
    "before the last checkpoint": lambda patch: stop_checkpoint(patch, 4, "last.ckpt", True),
    "after the last checkpoint": lambda patch: stop_checkpoint(patch, 4, "last.ckpt", False),
    "before the results": stop_finish,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_run_stopped_at_any_moment_resumes_to_the_same_files(
    poses, whole, tmp_path, monkeypatch, moment
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch)
        with pytest.raises(Stopped):
            run(poses, out)
    assert run(poses, out) == 0
    assert differences(whole, out) == []


@pytest.mark.parametrize("damage", ["cut short", "empty", "missing"])
def test_a_damaged_last_checkpoint_costs_only_the_steps_since_the_one_before(
    poses, whole, tmp_path, monkeypatch, capsys, damage
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_checkpoint(patch, 3, "last.ckpt", False)
        with pytest.raises(Stopped):
            run(poses, out)
    last = out / "checkpoints" / "last.ckpt"
    if damage == "missing":
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2 * (damage == "cut short")])
    capsys.readouterr()
    assert run(poses, out) == 0
    assert f"{last}" in capsys.readouterr().err
    assert differences(whole, out) == []


def test_a_checkpoint_of_another_width_is_an_error_in_words(poses, whole, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    last = out / "checkpoints" / "last.ckpt"
    last.write_bytes((whole / "checkpoints" / "last.ckpt").read_bytes())
    assert run(poses, out, "width=16") == 2
    assert "width 8 -> 16" in capsys.readouterr().err
    last.write_bytes(b"")
    assert run(poses, out) == 2
    assert "no checkpoint before it" in capsys.readouterr().err


def test_nan_is_never_better(tmp_path):
    class Trainer:
        global_step = max_steps = 4
        loggers = ()
        callback_metrics = None
        saved = 0

        def save_checkpoint(self, path, weights_only):
            self.saved += path.name == "best.ckpt"

    trainer = Trainer()
    callback = resuming.Checkpoints(tmp_path, None, every=1, validate_every=1, monitor="val_x")
    kept = []
    for value in (np.nan, 3.0, np.nan, 3.0, 2.0):
        trainer.callback_metrics = {"val_x": torch.tensor(value), "loss": torch.tensor(0.0)}
        callback.on_validation_end(trainer, None)
        kept.append(trainer.saved)
    assert kept == [1, 2, 2, 2, 3]
    assert callback.state_dict() == {"metrics": {"val_x": 2.0}, "best": 2.0}
