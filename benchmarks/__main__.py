"""Time the flow against PyPI's nflows: same layers, widths and parameter count, in one process.

    python -m benchmarks --threads 1 --rounds 15

Every round runs all variants once in shuffled order; medians and their ratios are reported.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows import Flow
from nflows.nn.nets import ResidualNet
from nflows.transforms import ActNorm, AdditiveCouplingTransform, CompositeTransform, LULinear
from torch import Tensor, nn

from flowprior import ConditionalFlow

FEATURES, CONTEXT, HIDDEN, STEPS, BLOCKS = 144, 2048, 1024, 4, 2
SAMPLING = ((1, 1), (1, 100), (1, 1024), (16, 16), (16, 100))


class Concatenating(nn.Module):
    """The original's conditioner: features and context go into the first layer together."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.net = ResidualNet(
            in_features + CONTEXT, out_features, hidden_features=HIDDEN, num_blocks=BLOCKS
        )

    def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
        """(B, in_features) and (B, C) -> (B, out_features)."""
        out: Tensor = self.net(torch.cat((inputs, context), dim=-1))
        return out


def nflows_flow() -> Any:  # noqa: ANN401 (nflows is untyped)
    """The same stack from nflows' parts."""
    mask = torch.ones(FEATURES)
    mask[::2] = -1
    layers: list[nn.Module] = []
    for _ in range(STEPS):
        layers += [
            ActNorm(FEATURES),
            LULinear(FEATURES),
            AdditiveCouplingTransform(mask.clone(), Concatenating),
        ]
        mask *= -1
    return Flow(CompositeTransform(layers), StandardNormal([FEATURES]))


def cases() -> dict[str, dict[str, Callable[[], object]]]:
    """What is timed: for each case a call of ours and one of the peer's."""
    ours = ConditionalFlow(FEATURES, CONTEXT, preset="prohmr", batch_norm=False, dropout=0.0)
    ours = ours.eval()
    peer = nflows_flow().eval()
    sizes = [sum(p.numel() for p in flow.parameters()) for flow in (ours, peer)]
    if sizes[0] != sizes[1]:
        raise RuntimeError(f"the flows have {sizes} parameters: not the same work")

    x, context = torch.randn(64, FEATURES), torch.randn(64, CONTEXT)

    def log_prob(call: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            call(x, context)

    def step(flow: nn.Module, call: Callable[..., Tensor]) -> None:
        flow.zero_grad()
        call(x, context).mean().backward()

    def sample(call: Callable[[], object]) -> None:
        with torch.no_grad():
            call()

    result: dict[str, dict[str, Callable[[], object]]] = {
        "log_prob B=64": {
            "flowprior": partial(log_prob, ours.log_prob),
            "nflows": partial(log_prob, peer.log_prob),
        },
        "log_prob and gradients B=64": {
            "flowprior": partial(step, ours, ours.log_prob),
            "nflows": partial(step, peer, peer.log_prob),
        },
    }
    for batch, count in SAMPLING:
        result[f"sample B={batch} n={count}"] = {
            "flowprior": partial(sample, partial(ours.sample, context[:batch], count)),
            "nflows": partial(sample, partial(peer.sample, count, context[:batch])),
        }
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print a table and, with ``--json``, the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write medians in seconds")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    shuffler = random.Random(args.seed)

    medians: dict[str, dict[str, float]] = {}
    for case, calls in cases().items():
        times: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(args.rounds + 1):
            for name in shuffler.sample(sorted(calls), len(calls)):
                start = time.perf_counter()
                calls[name]()
                if number:  # the first round warms up
                    times[name].append(time.perf_counter() - start)
        medians[case] = {name: statistics.median(values) for name, values in times.items()}
        ratio = medians[case]["nflows"] / medians[case]["flowprior"]
        print(f"{case:<30} {ratio:5.2f} x nflows", flush=True)
    print(f"torch {torch.__version__}, {args.threads} thread(s), median of {args.rounds} rounds")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"command": sys.argv, "seconds": medians}, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
