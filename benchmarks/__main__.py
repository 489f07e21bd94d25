"""Time the flow against its peers: same widths, same parameter count, in one process.

    python -m benchmarks --threads 1 --rounds 15 --json speed.json

Every round runs all variants of a case once, in shuffled order, and a matrix product as a
reference. The table shows medians, as the time of the fastest peer divided by ours and as the share
of the measured float32 matrix peak. Peak memory and compilation are measured separately.
"""

import argparse
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.peers import BLOCKS, CONTEXT, FEATURES, HIDDEN, PEERS, STEPS, Peer
from flowprior import ConditionalFlow
from flowprior.flow import FlowOptions, FlowStack, standard_normal_log_prob
from flowprior.prior.conditional import ANCHORED_FLOW

Call = Callable[[], object]

OURS = ("flowprior", "frozen", "frozen bf16", "anchored")
# The anchored flow models 24 rotations by three numbers each where the others take six, and is
# smaller: it shows what the default costs, at other widths and parameters than the peers'.
ANCHORED_FEATURES = FEATURES // 2
MATRIX = 2048
LARGE = 1e12
# Floating-point operations of the matrix products for one sample, maximally fused and without the
# context, and for one context.
SAMPLE_FLOP = STEPS * 2 * (1.5 * FEATURES * HIDDEN + (2 * BLOCKS - 1) * HIDDEN**2 + FEATURES**2)
CONTEXT_FLOP = STEPS * 2 * CONTEXT * HIDDEN
SIZES = {
    "quick": ((1, 1), (1, 16), (1, 100), (1, 1024), (16, 16), (16, 100)),
    "full": (
        *((1, n) for n in (1, 16, 100, 1024, 4096)),
        *((16, n) for n in (1, 16, 100, 1024, 4096)),
        *((64, n) for n in (1, 16, 100, 1024)),
    ),
}


@dataclass
class Case:
    """One thing to time.

    Args:
        name: What it is.
        calls: By variant.
        flop: Least work in floating-point operations of matrix products.
    """

    name: str
    calls: dict[str, Call]
    flop: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    matrix_flops: float = 0.0

    @property
    def fastest_peer(self) -> str:
        """Name of the fastest peer."""
        return min((n for n in self.seconds if n not in OURS), key=self.seconds.__getitem__)

    def ratio(self, variant: str) -> float:
        """Time of the fastest peer divided by that of one of our variants."""
        return self.seconds[self.fastest_peer] / self.seconds[variant]

    def share(self, variant: str) -> float:
        """Share of the measured float32 matrix peak."""
        return self.flop / self.seconds[variant] / self.matrix_flops


class Models:
    """Our models and the peers, with inputs, on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ours = ConditionalFlow(FEATURES, CONTEXT, context_norm=False).eval()
        _make_lively(self.ours)
        wanted = sum(p.numel() for p in self.ours.parameters())
        self.peers: dict[str, Peer] = {}
        for name, kind in PEERS.items():
            peer = kind().eval()
            size = sum(p.numel() for p in peer.parameters())
            if abs(size - wanted) > 0.02 * wanted:
                raise RuntimeError(f"{name} has {size} parameters, ours {wanted}: not the same")
            self.peers[name] = peer.to(device)
        self.ours.to(device)
        self.frozen: dict[str, FlowStack] = {
            "frozen": self.ours.freeze(),
            "frozen bf16": self.ours.freeze(torch.bfloat16),
        }
        options: FlowOptions = {**ANCHORED_FLOW, "anchored": True}
        anchored = ConditionalFlow(ANCHORED_FEATURES, CONTEXT, **options)
        _make_lively(anchored.eval())
        self.anchored: FlowStack = anchored.to(device).freeze()
        self.context = torch.randn(64, CONTEXT, device=device)
        self.x = torch.randn(64, FEATURES, device=device)

    def weights_need_gradients(self, need: bool) -> None:
        """Set ``requires_grad`` of all trainable variants."""
        for model in (self.ours, *self.peers.values()):
            if isinstance(model, nn.Module):
                model.requires_grad_(need)

    def log_prob(self) -> Case:
        """Log-density of 64 poses with one context each."""
        calls: dict[str, Call] = {
            "flowprior": partial(self.ours.log_prob, self.x, self.context),
            "frozen": partial(self.frozen["frozen"].log_prob, self.x, self.context),
            "anchored": partial(
                self.anchored.log_prob, self.x[:, :ANCHORED_FEATURES], self.context
            ),
        }
        for name, peer in self.peers.items():
            calls[name] = partial(peer.log_prob, self.x, self.context)
        return Case("log_prob, B = 64", _without_grad(calls), 64 * (SAMPLE_FLOP + CONTEXT_FLOP))

    def fitting_step(self, batch: int) -> Case:
        """Log-density and its gradient with respect to theta, for a fixed context."""
        context = self.context[:batch]
        x = self.x[:batch].clone().requires_grad_()
        narrow = self.x[:batch, :ANCHORED_FEATURES].clone().requires_grad_()

        def gradient(log_prob: Callable[[Tensor], Tensor], x: Tensor = x) -> Tensor:
            return torch.autograd.grad(log_prob(x).sum(), x)[0]

        calls: dict[str, Call] = {}
        stacks: dict[str, FlowStack] = {"flowprior": self.ours, "frozen": self.frozen["frozen"]}
        for name, stack in stacks.items():
            with torch.no_grad():
                projected = stack.project_context(context)
            calls[name] = partial(gradient, partial(stack.log_prob, context=projected))
        with torch.no_grad():
            projected = self.anchored.project_context(context)
        log_prob = partial(self.anchored.log_prob, context=projected)
        calls["anchored"] = partial(gradient, log_prob, narrow)
        for name, peer in self.peers.items():
            calls[name] = partial(gradient, partial(peer.log_prob, context=context))
        return Case(f"fitting step, B = {batch}", calls, 2 * batch * SAMPLE_FLOP)

    def training_step(self) -> Case:
        """Mode, one sample and NLL for one context, forward and backward, as in ProHMR."""
        context = self.context.clone().requires_grad_()
        x, z = self.x, torch.randn_like(self.x)
        zero = torch.zeros_like(z)

        def ours() -> None:
            projected = self.ours.project_context(context)
            nll = -self.ours.log_prob(x, projected).mean()
            decoded, _ = self.ours.inverse(torch.stack((zero, z), dim=1), projected)
            (nll + decoded.square().mean()).backward()

        def theirs(peer: Peer) -> None:
            nll = -peer.log_prob(x, context).mean()
            mode, sample = peer.decode(zero, context), peer.decode(z, context)
            (nll + (mode.square().mean() + sample.square().mean()) / 2).backward()

        calls: dict[str, Call] = {"flowprior": ours}
        calls |= {name: partial(theirs, peer) for name, peer in self.peers.items()}
        flop = 64 * (9 * SAMPLE_FLOP + 3 * CONTEXT_FLOP)
        return Case("ProHMR training step, B = 64", calls, flop)

    def sampling(self, batch: int, count: int) -> Case:
        """Samples for a batch of contexts, including the projection of the contexts."""
        context = self.context[:batch]
        calls: dict[str, Call] = {"flowprior": partial(self.ours.sample, context, count)}
        for name, stack in (self.frozen | {"anchored": self.anchored}).items():
            calls[name] = partial(stack.sample, context, count)
        for name, peer in self.peers.items():
            calls[name] = partial(peer.sample, context, count)
        flop = batch * (count * SAMPLE_FLOP + CONTEXT_FLOP)
        return Case(f"sample, B = {batch}, n = {count}", _without_grad(calls), flop)

    def more_samples(self, batch: int, count: int) -> Case:
        """Samples from existing posteriors; the peers process the context in each call."""
        context = self.context[:batch]
        case = self.sampling(batch, count)
        stacks: dict[str, FlowStack] = {"flowprior": self.ours, **self.frozen}
        stacks["anchored"] = self.anchored
        with torch.no_grad():
            held: dict[str, Call] = {
                name: partial(stack.sample, stack.project_context(context), count)
                for name, stack in stacks.items()
            }
        name = f"sample again, B = {batch}, n = {count}"
        return Case(name, case.calls | _without_grad(held), batch * count * SAMPLE_FLOP)

    def latent_error(self) -> float:
        """RMS error of latents decoded in bfloat16, in standard deviations of the samples."""
        z = torch.randn(64, 256, FEATURES, device=self.device)
        with torch.no_grad():
            exact = self.ours.inverse(z, self.context)[0]
            off = self.frozen["frozen bf16"].inverse(z, self.context)[0] - exact
        return float((off / exact.std(dim=1, keepdim=True)).square().mean().sqrt())


def _make_lively(flow: ConditionalFlow) -> None:
    """Set weights like those of a trained flow, because a new flow is nearly the identity."""
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if name.endswith(("linears.1.weight", "output.weight")):
                parameter.normal_(std=HIDDEN**-0.5)
            elif "_entries" in name or "log_scale" in name:
                parameter.normal_(std=0.05)


def _without_grad(calls: dict[str, Call]) -> dict[str, Call]:
    def quiet(call: Call) -> object:
        with torch.no_grad():
            return call()

    return {name: partial(quiet, call) for name, call in calls.items()}


def time_case(case: Case, rounds: int, device: torch.device, shuffler: random.Random) -> None:
    """Fill in median seconds of every variant and the matrix peak of the same rounds."""
    left, right = (torch.randn(MATRIX, MATRIX, device=device) for _ in range(2))
    calls: dict[str, Call] = {**case.calls, "matrix": lambda: left @ right}
    # A round of the largest cases takes minutes, so they run only once.
    rounds = 1 if case.flop > LARGE else rounds
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + (rounds > 1)):
        for name in shuffler.sample(sorted(calls), len(calls)):
            _wait(device)
            start = time.perf_counter()
            calls[name]()
            _wait(device)
            if number or rounds == 1:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    # The peak is the fastest product, not the average.
    case.matrix_flops = 2 * MATRIX**3 / min(times["matrix"])
    del medians["matrix"]
    case.seconds = medians


def peak_memory(call: Call, device: torch.device) -> float:
    """Peak memory in MiB that a call adds."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before_kib = _status("VmRSS")
    call()
    return (_status("VmHWM") - before_kib) / 2**10


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"this system does not tell {name}")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def compile_times(models: Models, rounds: int) -> dict[str, float]:
    """Compilation time in seconds, and the speed-up of the compiled call."""
    x, context = models.x, models.context
    stack = models.frozen["frozen"]
    projected = stack.project_context(context)
    z = torch.randn(64, 16, FEATURES, device=models.device)

    def train(flow: ConditionalFlow) -> Callable[[], object]:
        def loss(x: Tensor, context: Tensor) -> Tensor:
            z, log_abs_det = flow.forward(x, context)
            return -(standard_normal_log_prob(z) + log_abs_det).mean()

        compiled = torch.compile(loss, fullgraph=True)
        return lambda: compiled(x, context).backward()

    models.weights_need_gradients(True)
    # Samples are decoded latents; the noise is drawn outside the graph.
    mode = "reduce-overhead" if models.device.type == "cuda" else None
    log_prob = torch.compile(stack.log_prob, fullgraph=True, mode=mode)
    decode = torch.compile(stack.inverse, fullgraph=True, mode=mode)
    pairs: dict[str, tuple[Call, Call]] = {
        "log_prob": (partial(stack.log_prob, x, projected), partial(log_prob, x, projected)),
        "decode": (partial(stack.inverse, z, projected), partial(decode, z, projected)),
        "training step": (
            lambda: models.ours.log_prob(x, context).mean().backward(),
            train(models.ours),
        ),
    }
    result = {}
    for name, (plain, compiled) in pairs.items():
        start = time.perf_counter()
        compiled()
        result[f"{name}, seconds to compile"] = time.perf_counter() - start
        case = Case(name, {"flowprior": compiled, "uncompiled": plain})
        time_case(case, rounds, models.device, random.Random(0))
        result[f"{name}, times faster"] = case.ratio("flowprior")
    return result


def table(cases: Sequence[Case]) -> str:
    """Ratios as Markdown."""
    lines = [
        "| case | " + " | ".join(OURS) + " | fastest peer | share of the matrix peak |",
        "|---|" + "---|" * (len(OURS) + 2),
    ]
    for case in cases:
        ratios = [f"{case.ratio(n):.2f}" if n in case.seconds else "" for n in OURS]
        best = "frozen" if "frozen" in case.seconds else "flowprior"
        cells = [case.name, *ratios, case.fastest_peer, f"{100 * case.share(best):.0f} %"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--sizes", choices=SIZES, default="quick", help="default: %(default)s")
    parser.add_argument("--only", default="", help="run only cases whose name contains this")
    parser.add_argument("--memory", action="store_true", help="also measure peak memory")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print a table and, with ``--json``, write the figures."""
    args = parse_args(argv)
    warnings.filterwarnings("ignore", message="torch.triangular_solve is deprecated")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    models = Models(device)
    shuffler = random.Random(args.seed)

    models.weights_need_gradients(False)
    frozen_weights = [
        models.log_prob(),
        models.fitting_step(1),
        models.fitting_step(64),
        models.more_samples(1, 1),
        *(models.sampling(batch, count) for batch, count in SIZES[args.sizes]),
    ]
    cases = [case for case in (*frozen_weights, models.training_step()) if args.only in case.name]
    for case in cases:
        models.weights_need_gradients("training" in case.name)
        time_case(case, args.rounds, device, shuffler)
        ours = ", ".join(f"{n} {case.ratio(n):.2f}" for n in OURS if n in case.seconds)
        print(f"{case.name}: {ours}", file=sys.stderr, flush=True)
    report: dict[str, object] = {
        "command": sys.argv,
        "torch": torch.__version__,
        "cases": [
            {k: v for k, v in asdict(case).items() if k != "calls"}
            for case in (Case(c.name, {}, c.flop, c.seconds, c.matrix_flops) for c in cases)
        ],
        "bf16_error": models.latent_error(),
    }
    print(table(cases))
    print(f"\nbfloat16 moves samples by {report['bf16_error']:.4f} standard deviations (rms)")
    if args.memory:
        memory = {
            name: peak_memory(call, device)
            for name, call in models.sampling(16, 4096).calls.items()
        }
        report["peak_memory_mib"] = memory
        print("\nMiB that 4096 samples of 16 contexts add at their peak:")
        print("\n".join(f"- {name}: {size:.0f}" for name, size in memory.items()))
    if args.compile:
        report["compile"] = compile_times(models, args.rounds)
        print(f"\ncompiled: {json.dumps(report['compile'], indent=2)}")
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{args.threads} thread(s)"
    print(f"\ntorch {torch.__version__}, {where}, medians of {args.rounds} rounds")
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
