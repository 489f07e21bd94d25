"""Base distributions of a flow's latents: standard normal and Student's t."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = [
    "BASES",
    "Base",
    "Normal",
    "StudentT",
    "make_base",
    "standard_normal",
    "standard_normal_log_prob",
]

# Degrees of freedom that calibration chooses from. At 2 the variance is infinite; at 1000 the
# density is normal for every purpose.
DEGREES_OF_FREEDOM: tuple[float, ...] = (
    *(3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 24.0, 32.0, 40.0, 48.0),
    *(64.0, 96.0, 128.0, 192.0, 256.0, 512.0, 1000.0),
)
EM_STEPS = 100
# Latents that are all 0 have no scale; this variance keeps densities finite.
LEAST_VARIANCE = torch.finfo(torch.float32).tiny


class Base(nn.Module, ABC):
    """An isotropic density over latents z with its peak at 0.

    A subclass depends on z through its length alone and decreases with it, so the latent 0 is the
    most likely one.
    """

    name: ClassVar[str]

    @abstractmethod
    def log_prob(self, z: Tensor, features: int | Tensor | None = None) -> Tensor:
        """Log-density in nats: z (..., D) -> (...).

        Args:
            z: Latents. Entries that are held at 0 are not part of the density.
            features: Number of entries that are not held, (...) or an int; D if None.
        """

    @abstractmethod
    def sample(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw latents of shape (..., D); a generator of None is the global one of the device."""

    @abstractmethod
    def entropy(self, features: int | Tensor, dtype: torch.dtype) -> Tensor:
        """Differential entropy in closed form, in nats, of ``features`` latents, () or (...)."""

    @abstractmethod
    def fit(self, squares: Tensor, features: int | Tensor) -> Tensor:
        """Fit the shape of the density and a scale to latents, by maximum likelihood.

        Args:
            squares: (N,) squared lengths of latents, N at least 1.
            features: Number D of latents, an int or (N,).

        Returns:
            The scale (): latents divided by it fit the density best.
        """

    def energy(self, z: Tensor, features: int | Tensor | None = None) -> Tensor:
        """-2 log p relative to its minimum at z = 0: z (..., D) -> (...), at least 0."""
        return 2 * (self.log_prob(torch.zeros_like(z), features) - self.log_prob(z, features))

    def facts(self) -> dict[str, object]:
        """What differs from the standard normal density, for descriptions."""
        return {}

    @abstractmethod
    def frozen(self, features: int) -> "Base":
        """A copy with constant tensors, for D = ``features`` latents."""


class Normal(Base):
    """The standard normal density."""

    name = "normal"

    def log_prob(self, z: Tensor, features: int | Tensor | None = None) -> Tensor:
        """As :meth:`Base.log_prob`."""
        return standard_normal_log_prob(z, features)

    def sample(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As :meth:`Base.sample`."""
        return standard_normal(shape, dtype, device, generator)

    def entropy(self, features: int | Tensor, dtype: torch.dtype) -> Tensor:
        """As :meth:`Base.entropy`."""
        return torch.as_tensor(0.5 * math.log(2 * math.pi * math.e) * features, dtype=dtype)

    def fit(self, squares: Tensor, features: int | Tensor) -> Tensor:
        """The root mean square of the latents."""
        return _variance(squares, _counts(features, squares)).sqrt()

    def energy(self, z: Tensor, features: int | Tensor | None = None) -> Tensor:
        """The squared length of z."""
        return z.square().sum(dim=-1)

    def frozen(self, features: int) -> "Normal":
        """As :meth:`Base.frozen`."""
        return Normal()


class StudentT(Base):
    r"""The multivariate Student's t density with identity scale.

    .. math:: \log p(z) = \log \Gamma(\tfrac{\nu + D}{2}) - \log \Gamma(\tfrac{\nu}{2})
        - \tfrac{D}{2} \log(\nu \pi) - \tfrac{\nu + D}{2} \log(1 + \|z\|^2 / \nu)

    A latent is a standard normal vector times :math:`\sqrt{\nu / w}` with one w from
    :math:`\chi^2_\nu`: all its entries are large together. So whole poses, not single joints, are
    outliers.

    Args:
        degrees_of_freedom: The initial :math:`\nu`, above 2; :meth:`fit` sets it.

    Attributes:
        degrees_of_freedom: :math:`\nu`, buffer of shape ().
        log_peak: The log-density at 0, shape (), in a frozen copy; otherwise None.

    Raises:
        ValueError: If ``degrees_of_freedom`` is 2 or less or not finite.

    References:
        Kotz and Nadarajah, *Multivariate t Distributions and Their Applications*, 2004; Liu and
        Rubin, *ML estimation of the t distribution using EM and its extensions*, 1995.
    """

    name = "student_t"
    degrees_of_freedom: Tensor
    log_peak: Tensor | None

    def __init__(self, degrees_of_freedom: float = 32.0) -> None:
        super().__init__()
        if not 2 < degrees_of_freedom < math.inf:
            raise ValueError(
                f"degrees_of_freedom must be above 2 and finite, got {degrees_of_freedom}"
            )
        self.register_buffer("degrees_of_freedom", torch.tensor(float(degrees_of_freedom)))
        self.register_buffer("log_peak", None)

    def log_prob(self, z: Tensor, features: int | Tensor | None = None) -> Tensor:
        """As :meth:`Base.log_prob`."""
        if features is None and self.log_peak is not None:
            return self.log_peak.to(z.dtype) - self.energy(z) / 2
        features = z.shape[-1] if features is None else features
        return _t_log_prob(z.square().sum(dim=-1), features, self._nu(z.dtype))

    def sample(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As :meth:`Base.sample`."""
        normal = standard_normal(shape, dtype, device, generator)
        half = self._nu(dtype) / 2
        # torch.distributions.Gamma takes no generator; this is the function that it calls.
        half_square = torch._standard_gamma(
            half.expand(*shape[:-1], 1).to(device).contiguous(), generator
        )
        return normal * (half / half_square).sqrt()

    def entropy(self, features: int | Tensor, dtype: torch.dtype) -> Tensor:
        """As :meth:`Base.entropy`."""
        nu = self._nu(dtype)
        total = (nu + features) / 2
        spread = total * (torch.digamma(total) - torch.digamma(nu / 2))
        return spread - _t_log_peak(features, nu)

    @torch.no_grad()
    def fit(self, squares: Tensor, features: int | Tensor) -> Tensor:
        """Set the degrees of freedom to the best of a grid; the scale of each is found by EM."""
        squares = squares.double()
        count = _counts(features, squares)[:, None]
        squares = squares[:, None]
        nu = torch.tensor(DEGREES_OF_FREEDOM, dtype=torch.float64, device=squares.device)
        variances = _variance(squares, count).expand(len(nu))
        for _ in range(EM_STEPS):
            weights = (nu + count) / (nu + squares / variances)
            variances = _variance(weights * squares, count)
        likelihood = _t_log_prob(squares / variances, count, nu).mean(dim=0)
        best = (likelihood - count.mean() / 2 * variances.log()).argmax()
        self.degrees_of_freedom.copy_(nu[best])
        return variances[best].sqrt()

    def facts(self) -> dict[str, object]:
        """Name and degrees of freedom, as :meth:`Base.facts`."""
        facts: dict[str, object] = {"base": self.name}
        if not self.degrees_of_freedom.is_meta:
            facts["degrees_of_freedom"] = round(float(self.degrees_of_freedom), 3)
        return facts

    def energy(self, z: Tensor, features: int | Tensor | None = None) -> Tensor:
        """As :meth:`Base.energy`, without the constant."""
        nu = self._nu(z.dtype)
        features = z.shape[-1] if features is None else features
        return (nu + features) * torch.log1p(z.square().sum(dim=-1) / nu)

    @torch.no_grad()
    def frozen(self, features: int) -> "StudentT":
        """As :meth:`Base.frozen`; the log-density at 0 is a constant, since ONNX has no lgamma."""
        copy = StudentT()
        copy.degrees_of_freedom = self.degrees_of_freedom.detach().clone()
        exact = copy.degrees_of_freedom.double()
        copy.log_peak = _t_log_peak(features, exact).to(copy.degrees_of_freedom.dtype)
        return copy

    def _nu(self, dtype: torch.dtype) -> Tensor:
        return self.degrees_of_freedom.to(dtype)


BASES: dict[str, type[Base]] = {"normal": Normal, "student_t": StudentT}


def make_base(name: str) -> Base:
    """Create a base distribution.

    Args:
        name: A key of :data:`BASES`.

    Returns:
        The base.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in BASES:
        raise ValueError(f"base must be one of {sorted(BASES)}, got {name!r}")
    return BASES[name]()


def standard_normal(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Standard normal noise; a generator of None is the global one of the device."""
    if generator is None:  # with dynamic shapes, torch.compile accepts no generator, even None
        return torch.randn(shape, dtype=dtype, device=device)
    return torch.randn(shape, generator=generator, dtype=dtype, device=device)


def standard_normal_log_prob(z: Tensor, features: int | Tensor | None = None) -> Tensor:
    """Standard normal log-density in nats: z (..., D) -> (...); see :meth:`Base.log_prob`."""
    features = z.shape[-1] if features is None else features
    return -0.5 * (z.square().sum(dim=-1) + features * math.log(2 * math.pi))


def _counts(features: int | Tensor, squares: Tensor) -> Tensor:
    """The number of entries of each latent, as a tensor like squares (N,)."""
    return torch.as_tensor(features, dtype=squares.dtype, device=squares.device).expand_as(squares)


def _variance(squares: Tensor, counts: Tensor) -> Tensor:
    """Mean square of an entry, of latents with squared lengths and numbers of entries (N, ...)."""
    return (squares.sum(dim=0) / counts.sum(dim=0).clamp(min=1)).clamp(min=LEAST_VARIANCE)


def _t_log_prob(squares: Tensor, features: int | Tensor, nu: Tensor) -> Tensor:
    """Log-density of latents with these squared lengths."""
    return _t_log_peak(features, nu) - (nu + features) / 2 * torch.log1p(squares / nu)


def _t_log_peak(features: int | Tensor, nu: Tensor) -> Tensor:
    """Log-density at 0."""
    total = torch.lgamma((nu + features) / 2) - torch.lgamma(nu / 2)
    return total - features / 2 * (nu * math.pi).log()
