"""Eigenpairs and spectral density of an Objective's Hessian, by `landscape.linalg`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from landscape import linalg
from landscape.linalg.small_matrices import eigh
from landscape.machine.memory import Basis
from landscape.objective import Objective
from landscape.results import Eigenpairs, SpectralDensity

# Relative residual of the extreme eigenvalues. It is relative to the largest; the smallest is much smaller, and needs a tight
# tolerance to have correct digits. In float32 the noise of a product is not far below.
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-5}

Curvature = Literal["hessian", "ggn"]


def eigenpairs(
    objective: Objective,
    k: int = 1,
    which: Literal["largest", "smallest", "both"] = "largest",
    *,
    curvature: Curvature = "hessian",
    tol: float | None = None,
    value_tol: float | None = None,
    max_matvecs: int | None = None,
    start: Float[Tensor, "..."] | None = None,
    shard_basis: bool | None = None,
    generator: torch.Generator | None = None,
) -> Eigenpairs:
    """Extreme eigenpairs of the Hessian (or Gauss-Newton matrix) of the mean loss, in algebraic order.

    Args:
        objective: the network on its data.
        k: number of pairs at each end.
        which: "largest", "smallest" (algebraic, not by magnitude), or "both" from one run.
        curvature: "hessian", or "ggn" for the generalized Gauss-Newton matrix.
        tol: relative residual, ||Hv - lambda v|| <= tol * max |lambda|; default 1e-7 in float64, 1e-5 in float32.
        value_tol: instead of `tol`: error of every value, by a bound, relative to max |lambda|; see
            `landscape.linalg.eigenpairs`.
        max_matvecs: bound on the products; default max(300, 50 k).
        start: (P,) or (j, P) eigenvectors of a similar network to start from.
        shard_basis: with several processes, each stores its share of the columns of the Krylov basis; default: the objective's.
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
        value_tol=value_tol,
        max_matvecs=max_matvecs,
        **krylov(objective, (2 if which == "both" else 1) * k, shard_basis),
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
    shard_basis: bool | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Eigenpairs, SpectralDensity]:
    """Eigenpairs at both ends and the density; the Krylov space of the density's first probe starts the eigenpairs.

    The outer Ritz vectors of 80 steps are close to the eigenvectors; a few more products refine and verify them.

    Args:
        objective: the network on its data.
        k: pairs at each end.
        probes, steps, scale: of the density; see `spectral_density`.
        shard_basis: as in `eigenpairs`.
        generator: of the probes; default seed 0.

    Returns:
        Eigenpairs and SpectralDensity, each with its own number of products.

    Raises:
        UsageError, NumericalError: as `eigenpairs` and `spectral_density`.

    Cost: probes * steps products for the density, a few for each eigenpair.
    """
    starts: list[Tensor] = []

    def keep(run: linalg.KrylovBasis) -> None:
        if not starts:
            _, vectors = eigh(run.projection[: run.size, : run.size])
            ends = sorted({*range(min(k, run.size)), *range(max(0, run.size - k), run.size)})
            starts.append(run.combine(vectors[:, ends].T))

    density = spectral_density(
        objective, probes=probes, steps=steps, scale=scale, seen=keep, shard_basis=shard_basis, generator=generator
    )
    start = starts[0] if starts else None  # the bases of the density are not stored where they do not fit
    pairs = eigenpairs(objective, min(k, objective.dim), "both", start=start, shard_basis=shard_basis, generator=generator)
    return pairs, density


def krylov(objective: Objective, wanted: int, shard_basis: bool | None = None) -> dict[str, Any]:
    """Options of `landscape.linalg.eigenpairs` that keep its basis within the memory budget, for `wanted` pairs in all."""
    basis, place = objective.plan.basis(wanted, _processes(objective, shard_basis)), _place(objective, shard_basis)
    return {"basis_size": basis.size, "place": replace(place, where=basis.where)}


def uses(objective: Objective, k: int, probes: int, steps: int) -> tuple[list[Basis], int]:
    """The Krylov bases of `spectrum`, and the number of vectors beside them, for a memory forecast."""
    plan, processes = objective.plan, _processes(objective, None)
    together, bases = plan.probes(min(steps, objective.dim), probes, processes)
    basis = plan.basis(2 * k, processes)
    starts = 2 * k if bases.size >= together * min(steps, objective.dim) else 0
    return [bases, basis], plan.together((bases, starts + 4 * together), (basis, plan.beside(basis, 2 * k)))


def _processes(objective: Objective, shard_basis: bool | None) -> int:
    return objective.group.size if (objective.shard_basis if shard_basis is None else shard_basis) else 1


def _place(objective: Objective, shard_basis: bool | None) -> linalg.Place:
    return linalg.Place(group=objective.group) if _processes(objective, shard_basis) > 1 else linalg.Place()


def spectral_density(
    objective: Objective,
    *,
    probes: int = 10,
    steps: int = 80,
    scale: Literal["linear", "log"] = "log",
    curvature: Curvature = "hessian",
    seen: Callable[[linalg.KrylovBasis], None] | None = None,
    shard_basis: bool | None = None,
    generator: torch.Generator | None = None,
) -> SpectralDensity:
    """Density of all eigenvalues of the Hessian (or Gauss-Newton matrix), with a band from its probes.

    Args:
        objective: the network on its data.
        probes: number of random vectors; more narrow the band.
        steps: Lanczos steps of each, at most P; more sharpen the density.
        scale: "log" (symmetric logarithm) or "linear" eigenvalue axis.
        curvature: "hessian" or "ggn".
        seen: called with each probe's Krylov basis; see `spectrum`.
        shard_basis: as in `eigenpairs`.
        generator: of the probes; default seed 0.

    Returns:
        SpectralDensity; see `landscape.linalg.spectral_density`.

    Raises:
        UsageError: there are fewer than two probes or steps.
        NumericalError: as `eigenpairs`.

    Cost: probes * steps products, all probes in one pass over the data at each step.

    Reference: Ghorbani, Krishnan, Xiao 2019, arXiv:1901.10159; Lin, Saad, Yang 2016, arXiv:1308.5467.
    """
    steps = min(steps, objective.dim)
    processes = _processes(objective, shard_basis)
    together, bases = objective.plan.probes(steps, probes, processes)
    stored = bases.size >= steps
    # The plan counts them apart from bases: a block of vectors and that of their products, and one vector at work.
    blocks = 0 if stored else 2 * together * objective.plan.row + bases.bytes // bases.size
    return linalg.spectral_density(
        objective.hvp if curvature == "hessian" else objective.ggnvp,
        objective.dim,
        probes=probes,
        steps=steps,
        scale=scale,
        memory=float(bases.bytes + blocks),
        stored=stored,
        place=replace(_place(objective, shard_basis), where=bases.where),
        seen=seen,
        generator=generator,
        dtype=objective.dtype,
        device=objective.device,
    )
