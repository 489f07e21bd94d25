"""Mistakes with the programs of the examples and the command line."""

import contextlib
import functools
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from examples.data.__main__ import main as data_main
from examples.fitting import fit
from examples.lifting import demo, evaluate, train
from examples.lifting.methods import FlowLifter
from examples.prohmr import demo as prohmr_demo
from flowprior.__main__ import main as flowprior_main
from tests.tour.library import archive, disk_full_after, lightning_file, written
from tests.tour.mistake import Mistake

TINY = [
    "width=8",
    "num_blocks=1",
    "hidden_features=8",
    "flow_steps=2",
    "flow_blocks=1",
    "batch_size=8",
]


def empty_folder() -> Path:
    folder = Path("folder")
    folder.mkdir(exist_ok=True)
    return folder


def without_gpu(main: Callable[..., int], *argv: str) -> int:
    with mock.patch.object(torch.cuda, "is_available", return_value=False):
        return main([*argv, "--device", "cuda"])


def training(*argv: str) -> int:
    return train.main(["--out", "run", "--device", "cpu", *TINY, "logger=none", *argv])


def training_on_a_full_disk() -> int:
    """The disk fills up after the first checkpoint, which then is what goes on."""
    loss, steps = FlowLifter.loss, []

    def fill(lifter: FlowLifter, views: object) -> torch.Tensor:
        steps.append(views)
        if len(steps) == 4:
            full.enter_context(disk_full_after(5_000))
        return loss(lifter, views)

    argv = ("--steps", "5", "checkpoint_every=1", "regressor_share=0")
    with contextlib.ExitStack() as full, mock.patch.object(FlowLifter, "loss", fill):
        code = training(*argv)
    assert len(steps) == 4
    assert training(*argv) == 0
    return code


def training_interrupted() -> int:
    """Ctrl-C in the third step; the same command then ends the training."""
    loss, steps = FlowLifter.loss, []

    def interrupt(lifter: FlowLifter, views: object) -> torch.Tensor:
        steps.append(views)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(lifter, views)

    argv = ("--steps", "5", "checkpoint_every=1", "regressor_share=0")
    # A shell starts programs in the background with Ctrl-C ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with mock.patch.object(FlowLifter, "loss", interrupt):
            code = training(*argv)
    finally:
        signal.signal(signal.SIGINT, handler)
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        assert training(*argv) == 0
    assert Path("run/model.safetensors").exists()
    return code


def openpose_without_people() -> Path:
    Path("keypoints").mkdir()
    written("keypoints/a_keypoints.json", json.dumps({"version": 1.3, "people": []}))
    return Path("keypoints")


def image_folder() -> Path:
    Path("photos").mkdir()
    return Path("photos")


def photo() -> Path:
    from examples.pictures.canvas import save_image

    path = image_folder() / "a.png"
    save_image(path, np.zeros((64, 64, 3), np.uint8))
    return path


def unfinished() -> Path:
    Path("run").mkdir()
    written("run/config.yaml", "width: 8\n")
    return Path("run")


MISTAKES: dict[str, list[Mistake]] = {
    "Programs": [
        Mistake(
            "`examples.lifting.train` with an empty folder",
            lambda: training("--data", str(image_folder())),
            2,
            ("photos", "AMASS"),
        ),
        Mistake(
            "an `.npz` with other arrays as `--data`",
            lambda: training("--data", str(archive("poses.npz", joints=np.zeros((9, 17, 3))))),
            2,
            ("poses.npz", "joints17", "joints"),
        ),
        Mistake(
            "`examples.data check` of an unknown format",
            lambda: data_main(["check", str(archive("boxes.npz", boxes=np.zeros((9, 4))))]),
            2,
            ("boxes.npz", "boxes"),
        ),
        Mistake(
            "`examples.fitting.fit` of OpenPose files without people",
            lambda: fit.main(["--data", str(openpose_without_people()), "--device", "cpu"]),
            2,
            ("keypoints", "no people to fit"),
        ),
        Mistake(
            "`examples.fitting.fit` with a folder of priors that does not exist",
            lambda: fit.main(["--device", "cpu", "--prior", "outputs/fitting/priors"]),
            2,
            ("no folder of priors", "python -m examples.fitting.train_prior"),
        ),
        Mistake(
            "a misspelt setting: `learning_rat=0.01`",
            lambda: training("learning_rat=0.01"),
            2,
            ("learning_rat ", "did you mean learning_rate?"),
        ),
        Mistake(
            "a setting without `=`", lambda: training("width", "8"), 2, ("key=value", "'width'")
        ),
        Mistake("`--steps 0`", lambda: training("--steps", "0"), 2, ("steps", "above 0", "got 0")),
        Mistake(
            "`--steps -5` for the demo",
            lambda: demo.main(["--steps", "-5"]),
            2,
            ("--steps", "whole number of 1 or more", "-5"),
        ),
        Mistake(
            "`--steps 1e3` for fits",
            lambda: fit.main(["--steps", "1e3"]),
            2,
            ("--steps", "whole number of 1 or more", "1e3"),
        ),
        *(
            Mistake(
                f"`{name} --device cuda` without a GPU",
                functools.partial(without_gpu, main, *argv),
                2,
                ("--device cuda", "no GPU"),
            )
            for name, main, argv in (
                ("examples.lifting.train", train.main, ()),
                ("examples.prohmr.demo", prohmr_demo.main, ("photos", "--checkpoint", "x.ckpt")),
            )
        ),
        Mistake(
            "`examples.prohmr.demo --checkpoint` of another model",
            lambda: prohmr_demo.main(
                [str(photo().parent), "--checkpoint", str(lightning_file()), "--device", "cpu"]
            ),
            2,
            ("last.ckpt", "ProHMR"),
        ),
        Mistake(
            "`examples.lifting.evaluate` of an unfinished training",
            lambda: evaluate.main(["--model", str(unfinished()), "--device", "cpu"]),
            2,
            ("run", "not finished", "lifter.safetensors"),
        ),
        Mistake(
            "`flowprior info` of a picture",
            lambda: flowprior_main(["info", str(photo())]),
            1,
            ("a.png", "nor a ProHMR checkpoint"),
            foreign=r"(?<=\()Error.*(?=\);)",
        ),
        Mistake(
            "`flowprior fit` of a folder without pictures or keypoints",
            lambda: flowprior_main(["fit", str(empty_folder()), "--out", "out"]),
            1,
            ("neither pictures", ".jpg", "JSON files of keypoints"),
        ),
        Mistake(
            "`flowprior view` of a folder without results",
            lambda: flowprior_main(["view", str(empty_folder())]),
            1,
            ("fits.npz", "a folder that flowprior fit has written"),
        ),
        Mistake(
            "another `--out` with other settings",
            lambda: training("--steps", "1") or training("--steps", "2"),
            2,
            ("run", "other settings", "steps 1 -> 2", "another --out"),
        ),
        Mistake(
            "Ctrl-C in training",
            training_interrupted,
            130,
            ("interrupted", "the same command continues"),
        ),
        Mistake(
            "a full disk during training",
            training_on_a_full_disk,
            1,
            ("last.ckpt", "written before is whole", "the same command continues"),
            foreign=r"\[Errno.*(?=run/)",
        ),
    ],
}
