"""Eigenpairs and spectral density of an Objective's Hessian: `landscape.linalg` with the operator filled in."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from landscape import linalg
from landscape.objective import Objective
from landscape.results import Eigenpairs, SpectralDensity

# Relative residual of the extreme eigenvalues: the smallest is small beside the largest, which the tolerance is relative to, so
# that only a tight one gives it digits of its own. In float32 the noise of a product is not far below.
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-5}
# Bytes for the Krylov basis: the longer it grows before a restart the fewer products it takes, and products are what costs.
_BASIS_BYTES = 256 << 20
_LONGEST = 512

Curvature = Literal["hessian", "ggn"]


def eigenpairs(
    objective: Objective,
    k: int = 1,
    which: Literal["largest", "smallest", "both"] = "largest",
    *,
    curvature: Curvature = "hessian",
    tol: float | None = None,
    max_matvecs: int | None = None,
    start: Float[Tensor, "..."] | None = None,
    generator: torch.Generator | None = None,
) -> Eigenpairs:
    """Extreme eigenpairs of the Hessian (or Gauss-Newton matrix) of the mean loss, in algebraic order.

    Args:
        objective: the network on its data.
        k: pairs at each end that is asked for.
        which: "largest", "smallest" (algebraic, not by magnitude), or "both" from one run.
        curvature: "hessian", or "ggn" for the generalized Gauss-Newton matrix.
        tol: relative residual, ||Hv - lambda v|| <= tol * max |lambda|; default 1e-7 in float64, 1e-5 in float32.
        max_matvecs: bound on the products; default max(300, 50 k).
        start: (P,) or (j, P) eigenvectors of a similar network to start from.
        generator: of the start vector; default seed 0.

    Returns:
        Eigenpairs, unit loss / weight^2, with true residuals; see `landscape.linalg.eigenpairs` for cost and accuracy.

    Raises:
        UsageError: k is larger than the number of weights.
        NumericalError: the network fails the pre-flight check, or a product is not finite.

    Reference: Wu and Simon 2000 (thick-restart Lanczos).

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> eigenpairs(Objective(net, nn.MSELoss(), (x, torch.zeros(2, 1))), k=2).values.tolist()
        [4.0, 1.0]
    """
    return linalg.eigenpairs(
        objective.hvp if curvature == "hessian" else objective.ggnvp,
        objective.dim,
        k=k,
        which=which,
        tol=tol if tol is not None else TOLERANCE[objective.dtype],
        max_matvecs=max_matvecs,
        basis_size=basis_size(objective.dim, 2 * k),
        start=start,
        generator=generator,
        dtype=objective.dtype,
        device=objective.device,
    )


def spectrum(
    objective: Objective,
    k: int = 5,
    *,
    probes: int = 10,
    steps: int = 80,
    scale: Literal["linear", "log"] = "log",
    generator: torch.Generator | None = None,
) -> tuple[Eigenpairs, SpectralDensity]:
    """Eigenpairs at both ends and the density from one Lanczos run: the density's first probe starts the eigenpairs.

    The outer Ritz vectors of 80 steps are nearly the eigenvectors; what is left is to verify and polish them.

    Args:
        objective: the network on its data.
        k: pairs at each end.
        probes, steps, scale: of the density; see `spectral_density`.
        generator: of the probes; default seed 0.

    Returns:
        Eigenpairs and SpectralDensity, each with its own products.

    Raises:
        UsageError, NumericalError: as `eigenpairs` and `spectral_density`.

    Cost: probes * steps products for the density, a few for each eigenpair.
    """
    starts: list[Tensor] = []

    def keep(run: linalg.Lanczos) -> None:
        if not starts:
            _, vectors = eigh_tridiagonal(run.alpha, run.beta[:-1])
            ends = sorted({*range(min(k, len(run.alpha))), *range(max(0, len(run.alpha) - k), len(run.alpha))})
            starts.append(torch.from_numpy(vectors[:, ends].T.copy()).to(run.basis) @ run.basis)

    density = spectral_density(objective, probes=probes, steps=steps, scale=scale, seen=keep, generator=generator)
    pairs = eigenpairs(objective, min(k, objective.dim), "both", start=starts[0], generator=generator)
    return pairs, density


def basis_size(dim: int, wanted: int) -> int:
    """Vectors to keep before a restart, for `wanted` eigenpairs in all."""
    return min(dim - 1, max(40, 2 * wanted + 16, min(_LONGEST, _BASIS_BYTES // (8 * dim)))) if dim > 40 else dim


def spectral_density(
    objective: Objective,
    *,
    probes: int = 10,
    steps: int = 80,
    scale: Literal["linear", "log"] = "log",
    curvature: Curvature = "hessian",
    seen: Callable[[linalg.Lanczos], None] | None = None,
    generator: torch.Generator | None = None,
) -> SpectralDensity:
    """Density of all eigenvalues of the Hessian (or Gauss-Newton matrix), with a band from its probes.

    Args:
        objective: the network on its data.
        probes: random vectors; they narrow the band.
        steps: Lanczos steps for each, at most P; they sharpen the density.
        scale: "log" (symmetric logarithm) or "linear" eigenvalue axis.
        curvature: "hessian" or "ggn".
        seen: called with each probe's Lanczos run; see `spectrum`.
        generator: of the probes; default seed 0.

    Returns:
        SpectralDensity; see `landscape.linalg.spectral_density`.

    Raises:
        UsageError: fewer than two probes or steps.
        NumericalError: as `eigenpairs`.

    Cost: probes * steps products, all probes in one pass over the data at each step.

    Reference: Ghorbani, Krishnan, Xiao 2019, arXiv:1901.10159; Lin, Saad, Yang 2016, arXiv:1308.5467.
    """
    return linalg.spectral_density(
        objective.hvp if curvature == "hessian" else objective.ggnvp,
        objective.dim,
        probes=probes,
        steps=min(steps, objective.dim),
        scale=scale,
        seen=seen,
        generator=generator,
        dtype=objective.dtype,
        device=objective.device,
    )
