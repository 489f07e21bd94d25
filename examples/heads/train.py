r"""Train a posterior on cached features of a frozen regressor, and report its calibration.

    python -m examples.heads.train --features outputs/heads/features.safetensors --out DIR

With ``--answer regressor`` the posterior lies around the regressor's answer, which stays the mode
to the last bit. With ``--answer own`` a head answers from the features, and its answer is the mode.

Data sets named train, val and test in the features are the three parts; otherwise whole subjects
are drawn. Weights are chosen and calibrated on the second part, figures are those of the third.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from examples.command_line import DEVICES, device_of, fail, interruptible, natural, positive
from examples.heads.features import read_features
from examples.heads.reports import calibrate, judge, report, save_picture, tables
from examples.heads.training import ANSWERS, Settings, split, train
from examples.whole_files import prepare_folder, write_json, write_text
from flowprior.body import BodyModel

__all__ = ["HEAD", "main"]

HEAD = "head"
"""Folder of the trained prior in ``--out``, for `ConditionalPosePrior.from_pretrained`."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.heads.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Files in --out: {HEAD}/ for from_pretrained, report.json, report.md, "
        "calibration.png.\nExit code: 0 done, 2 bad arguments or data.",
    )
    default = Settings()
    parser.add_argument("--features", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, default=Path("outputs/heads"), metavar="DIR")
    parser.add_argument("--answer", choices=ANSWERS, default=default.answer, help="(%(default)s)")
    parser.add_argument("--body", default="embedded", metavar="FILE", help="(%(default)s)")
    for name in ("steps", "batch_size", "encoder_features", "hidden_features", "num_steps"):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=positive,
            default=getattr(default, name),
            metavar="N",
            help="(%(default)s)",
        )
    parser.add_argument(
        "--rate", type=float, default=default.rate, metavar="X", help="(%(default)s)"
    )
    parser.add_argument(
        "--weight-decay",
        type=float,
        default=default.weight_decay,
        metavar="X",
        help="(%(default)s)",
    )
    parser.add_argument(
        "--turns", type=float, default=default.turns, metavar="X", help="(%(default)s)"
    )
    parser.add_argument("--samples", type=positive, default=200, metavar="N", help="(%(default)s)")
    parser.add_argument("--seed", type=natural, default=default.seed, metavar="N")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    return parser.parse_args(argv)


@interruptible("no model was written")
def main(argv: Sequence[str] | None = None) -> int:
    """Train and report; returns the exit code."""
    args = parse_args(argv)
    names = {each.name for each in dataclasses.fields(Settings)}
    try:
        settings = Settings(**{k: v for k, v in vars(args).items() if k in names})
        if not args.rate > 0 or not min(args.weight_decay, args.turns) >= 0:
            raise ValueError("--rate must be positive, --weight-decay and --turns at least 0")
        if args.samples < 2:
            raise ValueError("--samples must be at least 2")
        device = device_of(args.device)
        features = read_features(args.features)
        parts = split(features, args.seed)
        body = BodyModel(None if args.body == "embedded" else args.body).to(device)
    except (OSError, ValueError) as error:
        return fail(error)
    sizes = ", ".join(str(len(part)) for part in (parts.train, parts.val, parts.test))
    print(f"{features.about.regressor}: {sizes} people to train, validate, test (by {parts.by})")
    start = time.perf_counter()
    prior, history = train(parts, settings, body, device=device)
    seconds = time.perf_counter() - start
    before = judge(
        prior, parts.test, body, answer=args.answer, num_samples=args.samples, seed=args.seed
    )
    facts = calibrate(prior, parts.val, args.answer, body)
    after = judge(
        prior, parts.test, body, answer=args.answer, num_samples=args.samples, seed=args.seed
    )
    found = report(after, parts.test) | {
        "as_trained": report(before, parts.test)["overall"],
        "calibration": facts,
        "regressor": dataclasses.asdict(features.about),
        "people": {"train": len(parts.train), "val": len(parts.val), "test": len(parts.test)},
        "split_by": parts.by,
        "rest_joints": list(prior.rest_joints),
        "settings": dataclasses.asdict(settings),
        "seconds": round(seconds, 1),
        "history": history,
        "torch": torch.__version__,
    }
    prepare_folder(args.out)
    prior.provenance["regressor"] = features.about.regressor
    prior.provenance["layer"] = features.about.layer
    prior.save_pretrained(args.out / HEAD, model_card_kwargs=_card(args.answer, found))
    write_json(args.out / "report.json", found)
    text = tables(found)
    write_text(args.out / "report.md", text)
    save_picture(args.out / "calibration.png", before, after)
    print(text)
    as_trained = found["as_trained"]
    print(
        f"trained in {seconds:.0f} s; NLL {as_trained['nll_nats']:.1f} as trained, "
        f"{found['overall']['nll_nats']:.1f} calibrated (temperature {facts['temperature']:.2f}); "
        f"results are in {args.out}"
    )
    return 0


def _card(answer: str, found: dict[str, object]) -> dict[str, object]:
    around = "the answer of a frozen regressor" if answer == "regressor" else "its own answer"
    overall = found["overall"]
    assert isinstance(overall, dict)
    return {
        "description": f"A posterior around {around}. The context is `context_with_answer(features,"
        " theta_hat)` of `flowprior.prior.heads`, with the features of the layer named in the "
        "provenance of the model file. The licence of the regressor may cover this model.",
        "data": f"Features of {found['regressor']}, split by {found['split_by']}.",
        "metrics": {
            "NLL on held-out people, nats": overall["nll_nats"],
            "error of the mode, mm": overall["mode_mm"],
            "ECE": overall["ece"],
        },
    }


if __name__ == "__main__":
    sys.exit(main())
