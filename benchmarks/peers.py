"""The same flow built from other libraries: same widths, same conditioner, same depth.

Each flow maps data x (N, D) with contexts (N, C) to latents and back, and repeats the context for
every sample, as the library's ``sample`` does.
"""

from typing import Any, Protocol

import FrEIA.framework
import FrEIA.modules
import normflows
import torch
import zuko
from nflows.distributions.normal import StandardNormal
from nflows.flows import Flow
from nflows.nn.nets import ResidualNet
from nflows.transforms import ActNorm, AdditiveCouplingTransform, CompositeTransform, LULinear
from torch import Tensor, nn
from zuko.flows.coupling import GeneralCouplingTransform

FEATURES, CONTEXT, HIDDEN, STEPS, BLOCKS = 144, 2048, 1024, 4, 2

__all__ = ["BLOCKS", "CONTEXT", "FEATURES", "HIDDEN", "PEERS", "STEPS", "Peer"]


class Peer(Protocol):
    """The methods of a flow that are timed."""

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """(N, D), (N, C) -> (N,)."""

    def decode(self, z: Tensor, context: Tensor) -> Tensor:
        """Latents (N, D), contexts (N, C) -> (N, D)."""

    def sample(self, context: Tensor, num_samples: int) -> Tensor:
        """(B, C) -> (B, n, D), with the library's own sampling."""


class Concatenating(nn.Module):
    """The original's conditioner: the first layer reads features and context together."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.net = ResidualNet(
            in_features + CONTEXT, out_features, hidden_features=HIDDEN, num_blocks=BLOCKS
        )

    def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
        """(N, in_features) and (N, C) -> (N, out_features)."""
        out: Tensor = self.net(torch.cat((inputs, context), dim=-1))
        return out


class Nflows(nn.Module):
    """nflows 0.14, whose fork the original uses."""

    def __init__(self) -> None:
        super().__init__()
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
        self.transform = CompositeTransform(layers)
        self.flow = Flow(self.transform, StandardNormal([FEATURES]))

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """(N, D), (N, C) -> (N,)."""
        return self.flow.log_prob(x, context)

    def decode(self, z: Tensor, context: Tensor) -> Tensor:
        """(N, D), (N, C) -> (N, D)."""
        return self.transform.inverse(z, context)[0]

    def sample(self, context: Tensor, num_samples: int) -> Tensor:
        """(B, C) -> (B, n, D)."""
        return self.flow.sample(num_samples, context)


class _ZukoAffine(nn.Module):
    """An affine map with its own weights, in place of ActNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(FEATURES))
        self.scale = nn.Parameter(torch.zeros(FEATURES))

    def forward(self, context: Tensor) -> Any:  # noqa: ANN401 (zuko's transforms are untyped)
        """Zuko's transform."""
        return zuko.transforms.MonotonicAffineTransform(self.shift, self.scale)


class _ZukoLinear(nn.Module):
    """LU, or with ``rotate`` a rotation, which zuko inverts faster; in place of LULinear."""

    def __init__(self, rotate: bool) -> None:
        super().__init__()
        self.rotate = rotate
        self.matrix = nn.Parameter(torch.eye(FEATURES))

    def forward(self, context: Tensor) -> Any:  # noqa: ANN401
        """Zuko's transform."""
        if self.rotate:
            return zuko.transforms.RotationTransform(self.matrix)
        return zuko.transforms.LULinearTransform(self.matrix)


class Zuko(nn.Module):
    """zuko 1.6: its conditioner is a plain network of the same size."""

    def __init__(self, rotate: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for step in range(STEPS):
            layers += [
                _ZukoAffine(),
                _ZukoLinear(rotate),
                GeneralCouplingTransform(
                    FEATURES,
                    CONTEXT,
                    mask=torch.arange(FEATURES) % 2 == step % 2,
                    univariate=zuko.transforms.AdditiveTransform,
                    shapes=((),),
                    hidden_features=(HIDDEN,) * (2 * BLOCKS + 1),
                ),
            ]
        self.layers = nn.ModuleList(layers)
        self.register_buffer("zeros", torch.zeros(FEATURES))
        self.register_buffer("ones", torch.ones(FEATURES))

    def _distribution(self, context: Tensor) -> Any:  # noqa: ANN401
        transform = zuko.transforms.ComposedTransform(*(layer(context) for layer in self.layers))
        base = zuko.distributions.DiagNormal(self.zeros, self.ones).expand(context.shape[:-1])
        return zuko.distributions.NormalizingFlow(transform, base)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """(N, D), (N, C) -> (N,)."""
        return self._distribution(context).log_prob(x)

    def decode(self, z: Tensor, context: Tensor) -> Tensor:
        """(N, D), (N, C) -> (N, D)."""
        return self._distribution(context).transform.inv(z)

    def sample(self, context: Tensor, num_samples: int) -> Tensor:
        """(B, C) -> (B, n, D)."""
        return self._distribution(context).rsample((num_samples,)).transpose(0, 1)


class ZukoRotation(Zuko):
    """zuko with rotations instead of LU."""

    def __init__(self) -> None:
        super().__init__(rotate=True)


class _NormflowsActNorm(normflows.flows.ActNorm):  # type: ignore[misc]
    """Ignores the context that the library's conditional flow passes to every layer."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent to data."""
        return super().forward(z)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to latent."""
        return super().inverse(z)


class _NormflowsAdditive(normflows.flows.base.Flow):  # type: ignore[misc]
    """A conditional additive coupling, which the library lacks."""

    def __init__(self, odd_moves: bool) -> None:
        super().__init__()
        self.odd_moves = odd_moves
        self.net = Concatenating(FEATURES // 2, FEATURES // 2)

    def _couple(self, z: Tensor, context: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        rests, moves = (0, 1) if self.odd_moves else (1, 0)
        moved = z.clone()
        moved[:, moves::2] += sign * self.net(z[:, rests::2], context)
        return moved, z.new_zeros(len(z))

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to data."""
        return self._couple(z, context, -1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Data to latent."""
        return self._couple(z, context, 1)


class Normflows(nn.Module):
    """normflows 1.7, with our coupling."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for step in reversed(range(STEPS)):
            layers += [
                _NormflowsAdditive(step % 2 == 0),
                normflows.flows.LULinearPermute(FEATURES),
                _NormflowsActNorm(FEATURES),
            ]
        base = normflows.distributions.DiagGaussian(FEATURES, trainable=False)
        self.flow = normflows.ConditionalNormalizingFlow(base, layers)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """(N, D), (N, C) -> (N,)."""
        return self.flow.log_prob(x, context)

    def decode(self, z: Tensor, context: Tensor) -> Tensor:
        """(N, D), (N, C) -> (N, D)."""
        return self.flow.forward(z, context)

    def sample(self, context: Tensor, num_samples: int) -> Tensor:
        """(B, C) -> (B, n, D)."""
        repeated = context.repeat_interleave(num_samples, dim=0)
        z = torch.randn(len(repeated), FEATURES, device=context.device)
        return self.decode(z, repeated).unflatten(0, (len(context), num_samples))


class Freia(nn.Module):
    """FrEIA 0.2: affine couplings and orthogonal maps, the closest that it provides."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = FrEIA.framework.SequenceINN(FEATURES)
        for _ in range(STEPS):
            self.flow.append(FrEIA.modules.ActNorm)
            self.flow.append(FrEIA.modules.OrthogonalTransform)
            self.flow.append(
                FrEIA.modules.AffineCouplingOneSided,
                cond=0,
                cond_shape=(CONTEXT,),
                subnet_constructor=_residual,
            )
        # The first call sets its ActNorm.
        self.flow(torch.randn(16, FEATURES), c=[torch.randn(16, CONTEXT)])

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """(N, D), (N, C) -> (N,), without the constant of the normal density."""
        z, log_abs_det = self.flow(x, c=[context])
        return log_abs_det - 0.5 * z.square().sum(dim=-1)

    def decode(self, z: Tensor, context: Tensor) -> Tensor:
        """(N, D), (N, C) -> (N, D)."""
        return self.flow(z, c=[context], rev=True)[0]

    def sample(self, context: Tensor, num_samples: int) -> Tensor:
        """(B, C) -> (B, n, D)."""
        repeated = context.repeat_interleave(num_samples, dim=0)
        z = torch.randn(len(repeated), FEATURES, device=context.device)
        return self.decode(z, repeated).unflatten(0, (len(context), num_samples))


def _residual(in_features: int, out_features: int) -> nn.Module:
    return ResidualNet(in_features, out_features, hidden_features=HIDDEN, num_blocks=BLOCKS)


PEERS: dict[str, type[Nflows | Zuko | Normflows | Freia]] = {
    "nflows": Nflows,
    "zuko": Zuko,
    "zuko rotation": ZukoRotation,
    "normflows": Normflows,
    "FrEIA": Freia,
}
