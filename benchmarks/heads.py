r"""Cost of a head on a frozen regressor: floating-point operations and time per person.

    python -m benchmarks.heads
    python -m benchmarks.heads --device cuda --json heads.json

Operations are those of matrix products, convolutions and attention, as
``torch.utils.flop_counter`` counts them, two per multiplication and addition. ViT-H reads 256 x 192
pixels, as in HMR2, CameraHMR and TokenHMR. It is counted without weights; with --device cuda it is
also timed. The head is that of `examples.heads`, on 1024 features. Each timed round runs every case
once; the table has medians.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViTConfig, ViTModel

from examples.command_line import DEVICES, device_of, fail, interruptible, positive
from examples.heads.training import Settings
from examples.prohmr.backbones import make_backbone
from flowprior import ConditionalPosePrior
from flowprior.body import BodyModel
from flowprior.prior.heads import context_with_answer
from flowprior.prior.posterior import PosePosterior, PosePrior

__all__ = ["Case", "cases", "count", "main", "new_head", "vit_h"]

FEATURES = 1024
JOINTS = 24
REFERENCE = "ViT-H"
OURS = "ResNet-50"
PIXELS = {REFERENCE: (256, 192), OURS: (224, 224)}


@dataclass(frozen=True)
class Case:
    """A measured case.

    Attributes:
        name: What runs, for one batch of people.
        gflop: Operations per person, in 10^9.
        share: ``gflop`` as a share of ViT-H's.
        batch: People per call.
        ms: Milliseconds per person, the median of all rounds; None if not timed.
    """

    name: str
    gflop: float
    share: float
    batch: int
    ms: float | None


def vit_h(device: torch.device | str) -> nn.Module:
    """A ViT-H/16 for 256 x 192 pixels with random weights; ``"meta"`` needs no memory."""
    config = ViTConfig(  # type: ignore[call-arg]
        hidden_size=1280,
        num_hidden_layers=32,
        num_attention_heads=16,
        intermediate_size=5120,
        image_size=PIXELS[REFERENCE],
        # Counted product by product; other implementations are opaque to the counter on "meta".
        attn_implementation="eager" if str(device) == "meta" else "sdpa",
    )
    with torch.device(device):
        network: nn.Module = ViTModel(config, add_pooling_layer=False)
    return network.eval()


def new_head(features: int = FEATURES) -> PosePrior:
    """The head of `examples.heads` with its default settings, as used for inference."""
    settings = Settings()
    torch.manual_seed(0)
    prior = ConditionalPosePrior(
        features + 6 * JOINTS,
        encoder_features=settings.encoder_features,
        encoder_skip=False,
        head_features=0,
        hidden_features=settings.hidden_features,
        num_steps=settings.num_steps,
        rest_joints=(22, 23),
    )
    return prior.eval().requires_grad_(False).freeze()


def cases(device: torch.device, batch: int) -> dict[str, Callable[[], object]]:
    """What is run, by name, on random inputs.

    Args:
        device: The device.
        batch: People per call.
    """
    head, body = new_head().to(device), BodyModel().to(device)
    features = torch.randn(batch, FEATURES, device=device)
    theta = torch.eye(3, device=device).repeat(batch, JOINTS, 1, 1)

    def posterior() -> PosePosterior:
        return head(context_with_answer(features, theta), centre=theta)

    def read() -> Tensor:
        found = posterior()
        return found.entropy() + found.mode().sum()

    backbone = make_backbone("resnet50", PIXELS[OURS][0]).eval().requires_grad_(False).to(device)
    images = torch.randn(batch, 3, *PIXELS[OURS], device=device)
    found: dict[str, Callable[[], object]] = {
        OURS: lambda: backbone(images),
        "head: mode and entropy": read,
        "head: and 25 samples": lambda: posterior().sample(25),
        "head: and the uncertainty of joints, 200 samples": lambda: posterior().joint_uncertainty(
            body, num_samples=200
        ),
    }
    return found


def count(call: Callable[[], object]) -> int:
    """Operations of a call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return int(counter.get_total_flops())


def count_vit_h() -> int:
    """Operations of ViT-H for one person."""
    network = vit_h("meta")
    return count(lambda: network(torch.empty(1, 3, *PIXELS[REFERENCE], device="meta")))


def timed(
    calls: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each call, interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for number in range(rounds + 2):
            for name, call in calls.items():
                _wait(device)
                start = time.perf_counter()
                call()
                _wait(device)
                if number > 1:  # the first two rounds warm up
                    seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(device: torch.device, batches: Sequence[int], rounds: int) -> list[Case]:
    """All cases, for each number of people per call."""
    reference = count_vit_h()
    results = []
    for batch in batches:
        calls = cases(device, batch)
        flops = {name: count(call) / batch for name, call in calls.items()}
        if device.type == "cuda":
            network = vit_h(device)
            images = torch.randn(batch, 3, *PIXELS[REFERENCE], device=device)
            calls = {REFERENCE: lambda n=network, x=images: n(x), **calls}  # type: ignore[misc]
        seconds = timed(calls, rounds, device)
        flops[REFERENCE] = reference
        for name in (REFERENCE, *(each for each in calls if each != REFERENCE)):
            ms = 1000 * seconds[name] / batch if name in seconds else None
            results.append(Case(name, flops[name] / 1e9, flops[name] / reference, batch, ms))
    return results


def table(results: Sequence[Case]) -> str:
    """The results as Markdown."""
    lines = [
        "| | people per call | GFLOP per person | of ViT-H | ms per person |",
        "|---|---|---|---|---|",
    ]
    for each in results:
        ms = "-" if each.ms is None else f"{each.ms:.3f}"
        lines.append(
            f"| {each.name} | {each.batch} | {each.gflop:.4f} | {100 * each.share:.4f} % | {ms} |"
        )
    return "\n".join(lines)


@interruptible("nothing was written")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.heads",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="(%(default)s)")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="(%(default)s)")
    parser.add_argument("--rounds", type=positive, default=11, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--batches", type=positive, nargs="+", default=[1, 32], metavar="N", help="(1 32)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    args = parser.parse_args(argv)
    try:
        device = device_of(args.device)
    except ValueError as error:
        return fail(error)
    torch.set_num_threads(args.threads)
    results = measure(device, args.batches, args.rounds)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{args.threads} thread"
    print(f"torch {torch.__version__}, {device.type}: {name}\n\n{table(results)}")
    if args.json is not None:
        content = {"device": name, "torch": torch.__version__, "cases": [*map(asdict, results)]}
        args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
