"""The curvature along random axes beside what is expected of it, and beside the extreme eigenvalues of the Hessian."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from landscape import linalg
from landscape.errors import NumericalError, UsageError
from landscape.linalg.products import gram
from landscape.linalg.small_matrices import eigh, eigvalsh
from landscape.objective import Objective
from landscape.results import Estimate, RandomAxes, RandomAxis
from landscape.spectra import eigenpairs
from landscape.surfaces.axes.directions import Direction, mean_squares
from landscape.surfaces.checks.check_derivatives import on_first, unmade

# Probes of the expected curvature, and most products for the eigenvalues. A Rayleigh quotient below 0 proves a negative
# eigenvalue before it has converged.
PROBES, PRODUCTS = 16, 100
_TOLERANCE = 1e-4
# Most samples: as for the other curvatures of the check, but in the objective's own dtype; fewer for convolutions on a CPU, and
# there, down to _LEAST, no more than take as long as the surface's points: some _FORWARDS passes over them.
_SAMPLES, _CONVOLVED, _LEAST, _FORWARDS = 1024, 256, 16, 360
# Seed of the probes and of the Lanczos start, apart from the seeds that axes usually have.
_SEED = 2208_13219


def check_random_axes(
    objective: Objective,
    directions: tuple[Direction, ...],
    recalibrated: bool = False,
    interpolated: bool = False,
    points: int | None = None,
) -> RandomAxes | None:
    """Compare the curvature d^T H d along random axes with its expectation, and with the extreme eigenvalues of H.

    For axes d of one kind, E d^T H d = sum_i E d_i^2 H_ii (`mean_squares`): tr H / P per unit length where all weights have the
    same variance, and sum_g (||theta_g||^2 / n_g) tr H_gg for axes that are normalized by filter or by layer. Such an axis sees
    the mean of many eigenvalues, never the smallest, so that a saddle can look like a minimum.

    Args:
        objective: the network on its data.
        directions: the axes of the slice.
        recalibrated: whether BatchNorm statistics are re-estimated at every point; H is then that of the loss with the
            statistics of the batch.
        interpolated: whether they are interpolated; the products would hold them fixed, and nothing is compared.
        points: of the surface; few limit the samples, see `random_samples`.

    Returns:
        The comparison; None if no axis is random. Without second derivatives it has a reason in place of numbers.

    Cost: a product for each axis, 16 probes, and 20 to 100 products for the eigenvalues, on at most 1,024 samples (for
        convolutions on a CPU on 256, or as few as take no longer than the points, but 16), in the objective's dtype; memory of
        a Krylov basis. If these few have a negative eigenvalue, a product on all samples along its eigenvector.

    Accuracy: the expectation is unbiased, with a t-interval from Rademacher probes scaled by sqrt(E d_i^2); an axis that was
        made orthogonal to another deviates from it by 1 / P. One axis scatters around it by sqrt(2) ||S H S||_F with
        S^2 = diag(E d_i^2) for a Gaussian axis, by less for a normalized one. Eigenvalues have true residuals.

    Reference: Böttcher and Wheeler 2022, arXiv:2208.13219.
    """
    numbers = [i for i, direction in enumerate(directions) if direction.fixed is not None]
    if not numbers:
        return None
    if interpolated:
        return RandomAxes({}, reason="not compared: the statistics vary along the axes, but products with H hold them fixed")
    try:
        part, samples, _ = compared_on(objective, recalibrated, points)
        found, lowest = _compared(part, directions, numbers)
        found = replace(found, samples=samples)
        if samples is None or recalibrated or not found.falls_here:
            return found
        return replace(found, whole=float(gram(lowest[None], objective.hvp(lowest)[None])[0, 0]))
    except (NumericalError, UsageError, RuntimeError) as error:  # RuntimeError: PyTorch cannot differentiate an operation
        return RandomAxes({}, reason=unmade(error).reason)


def random_samples(objective: Objective, points: int | None = None) -> int:
    """Number of samples on which random axes of a surface of so many points are compared; without `points` the most."""
    if not objective.convolves or objective.device.type != "cpu":
        return min(objective.samples, _SAMPLES)
    affordable = _CONVOLVED if points is None else max(_LEAST, points * objective.samples // _FORWARDS)
    return min(objective.samples, _CONVOLVED, affordable)


def compared_on(objective: Objective, recalibrated: bool, points: int | None = None) -> tuple[Objective, int | None, str]:
    """The objective whose Hessian is compared, as `on_first`."""
    return on_first(objective, random_samples(objective, points), recalibrated)


def _compared(part: Objective, directions: tuple[Direction, ...], numbers: list[int]) -> tuple[RandomAxes, Tensor]:
    """The comparison on this objective, and the eigenvector of its smallest eigenvalue."""
    d = torch.stack([direction.vector.to(part.theta) for direction in directions])
    surface, lengths = gram(d, part.hvp(d)), gram(d, d)
    random = torch.Generator().manual_seed(_SEED)
    kinds = {(directions[i].norm, directions[i].fixed) for i in numbers}
    expected = {kind: _expected(part, mean_squares(part, kind[0], kind[1] or ()), random) for kind in sorted(kinds)}
    axes = {f"{i + 1}": RandomAxis(float(surface[i, i]), *expected[directions[i].norm, directions[i].fixed]) for i in numbers}
    ends = eigenpairs(part, 1, "both", tol=_TOLERANCE, max_matvecs=PRODUCTS, generator=random)
    return RandomAxes(axes, _lowest(surface, lengths), ends.estimate(-1), ends.estimate(0)), ends.vectors[-1]


def _expected(part: Objective, squares: Tensor, random: torch.Generator) -> tuple[Estimate, float, float]:
    """E d^T H d, the bound on the scatter of d^T H d, and sqrt(E ||d||^2), of axes with E d_i^2 = squares."""
    scale = squares.sqrt().to(part.theta)
    sweep = linalg.quadratic_forms(
        lambda v: scale * part.hvp(scale * v), part.dim, probes=PROBES, block=part.plan.block, generator=random,
        dtype=part.dtype, device=part.device,
    )  # fmt: skip
    return sweep.trace(), 2**0.5 * sweep.frobenius().value, float(squares.sum().sqrt())


def _lowest(surface: np.ndarray, lengths: np.ndarray) -> float:
    """The smallest v^T H v / v^T v over the span of the axes: the smallest eigenvalue of their whitened curvature."""
    sizes, basis = eigh(lengths)
    white = basis / np.sqrt(sizes)
    return float(eigvalsh(white.T @ ((surface + surface.T) / 2) @ white)[0])
