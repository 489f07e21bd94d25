"""One step of the training: losses, gradients, update; a CUDA graph on a GPU."""

import torch
from torch import Tensor

from examples.fitting.train_prior import JOINT_WEIGHT, ROTATION_WEIGHT
from flowprior import ConditionalPosePrior
from tools.priors.chain import Chain
from tools.priors.hand_chain import HandChain

__all__ = ["Step", "held_joints", "losses"]

CLIP = 50.0
WARMUP = 5  # steps before a capture, in which ActNorm and the optimiser set up their state


def held_joints(prior: ConditionalPosePrior, known: Tensor) -> Tensor:
    """Joints (B, J) whose residuals are held at zero: known ones, and those the data lacks."""
    held = known.clone()
    held[:, list(prior.rest_joints)] = True
    return held


def losses(
    prior: ConditionalPosePrior,
    chain: Chain | HandChain,
    theta: Tensor,
    target: Tensor,
    context: Tensor,
    held: Tensor,
    generator: torch.Generator,
    *,
    likelihood: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Errors of the mode and the negative log-likelihood, with one pass of the encoder.

    Args:
        prior: The prior, in training mode.
        chain: The average body, or hand.
        theta: (B, J, 3, 3) true rotations.
        target: The same with rotation noise.
        context: (B, C).
        held: (B, J) bool, joints that are known or that the data lacks.
        generator: Source of the noise of the targets.
        likelihood: Whether to compute the likelihood.

    Returns:
        Scalars: sum of the joints' distances in metres; mean error of the matrices' entries;
        negative log-likelihood in nats or None.
    """
    assert prior.encoder is not None
    assert prior.head is not None
    features = prior.encoder(context)
    centre = prior.head.centre(features)
    mode = torch.where(held[..., None, None], theta, centre.frame)
    distance = (_joints(chain, mode) - _joints(chain, theta)).norm(dim=-1).sum(dim=-1).mean()
    turned = (mode - theta)[..., :2].abs().mean()
    if not likelihood:
        return distance, turned, None
    detached = type(centre)(*(part.detach() for part in centre))
    numbers = prior.space.features // prior.space.joints
    free = (~held).repeat_interleave(numbers, dim=-1)
    projected = prior.flow.project_context(features.detach(), free=free)
    vector = prior.space.to_vector(target, detached)
    noise = torch.randn(vector.shape, generator=generator, device=vector.device)
    # As prior.nll, which would compute the encoder's features again.
    log_prob = prior.flow.log_prob(vector + prior.target_noise * noise, projected)
    volume = prior.space.log_volume / prior.space.features * free.sum(dim=-1)
    return distance, turned, -(log_prob + volume).mean()


def _joints(chain: Chain | HandChain, rotation: Tensor) -> Tensor:
    """Joints (B, 22, 3), or points of a hand (B, 21, 3), of rotations with or without a root."""
    if rotation.shape[1] < chain.joints:
        root = torch.eye(3, device=rotation.device).expand(len(rotation), 1, 3, 3)
        rotation = torch.cat([root, rotation], dim=1)
    return chain(rotation)


class Step:
    """Steps of an optimiser, and their mean losses.

    A step launches two thousand small kernels, so on a GPU it is captured once for each of the two
    phases of the training and replayed.

    Args:
        prior: The prior, in training mode.
        chain: The average body, or hand.
        optimizer: Of the prior's parameters; ``capturable`` on a GPU.
        generator: Source of the noise of the targets, on the prior's device.
    """

    def __init__(
        self,
        prior: ConditionalPosePrior,
        chain: Chain | HandChain,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        self._prior = prior
        self._chain = chain
        self._optimizer = optimizer
        self._generator = generator
        flowing = list(prior.flow.parameters())
        answering = [p for name, p in prior.named_parameters() if not name.startswith("flow.")]
        self._parts = (answering, flowing)
        self._sums = torch.zeros(4, device=generator.device)
        self._inputs: tuple[Tensor, ...] = ()
        self._graphs: dict[bool, torch.cuda.CUDAGraph] = {}
        self._warm = {False: 0, True: 0}

    def __call__(
        self, theta: Tensor, target: Tensor, context: Tensor, held: Tensor, *, likelihood: bool
    ) -> None:
        """Take one step; the arguments are those of :func:`losses`."""
        batch = (theta, target, context, held)
        if self._generator.device.type != "cuda":
            self._descend(*batch, likelihood=likelihood)
        elif self._warm[likelihood] < WARMUP:
            self._warm[likelihood] += 1
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._descend(*batch, likelihood=likelihood)
            torch.cuda.current_stream().wait_stream(stream)
        else:
            self._replay(batch, likelihood=likelihood)

    def means(self) -> dict[str, float]:
        """Mean losses since the last call."""
        distance, _, nll, count = self._sums.tolist()
        self._sums.zero_()
        return {"training_mm": distance / count, "training_nll": nll / count}

    def _replay(self, batch: tuple[Tensor, ...], *, likelihood: bool) -> None:
        if not self._inputs:
            self._inputs = tuple(part.clone() for part in batch)
        for mine, new in zip(self._inputs, batch, strict=True):
            mine.copy_(new)
        if likelihood not in self._graphs:
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self._generator)
            self._optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                theta, target, context, held = self._inputs
                self._descend(theta, target, context, held, likelihood=likelihood)
            self._graphs[likelihood] = graph
        self._graphs[likelihood].replay()

    def _descend(
        self, theta: Tensor, target: Tensor, context: Tensor, held: Tensor, *, likelihood: bool
    ) -> None:
        distance, turned, nll = losses(
            self._prior,
            self._chain,
            theta,
            target,
            context,
            held,
            self._generator,
            likelihood=likelihood,
        )
        loss = JOINT_WEIGHT * distance + ROTATION_WEIGHT * turned
        if nll is not None:
            loss = loss + nll
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for part in self._parts:
            if any(each.grad is not None for each in part):
                torch.nn.utils.clip_grad_norm_(part, CLIP, foreach=True)
        self._optimizer.step()
        with torch.no_grad():
            one = torch.ones_like(distance)
            likely = torch.zeros_like(distance) if nll is None else nll
            self._sums += torch.stack(
                [distance * 1000 / (self._chain.scored - 1), turned, likely, one]
            )
