"""Stochastic trace estimation: Hutchinson, Hutch++, and a sweep of probes that several measures can share."""

from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.probes import Distribution, default_generator, random_rows
from landscape.linalg.products import MatVec, Products, column_chunks, gram
from landscape.linalg.vector_store import orthonormal_rows
from landscape.machine import progress
from landscape.results import Estimate


def mean_estimate(samples: np.ndarray) -> Estimate:
    """Mean of independent samples as an Estimate of kind "t" (ddof = 1)."""
    n = len(samples)
    return Estimate(float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(n)), "t", n)


@dataclass(frozen=True, eq=False)
class ProbeSweep:
    """Results of one sweep of random probes z; all estimates below use the same products.

    Attributes:
        quadratic: (n,) zᵀHz of each probe.
        squared: (n,) ||Hz||² of each probe.
        sections: (n, s) Σ_{i in section} z_i (Hz)_i for each of the s sections.
        matvecs: products spent.
    """

    quadratic: np.ndarray
    squared: np.ndarray
    sections: np.ndarray
    matvecs: int

    def trace(self) -> Estimate:
        """tr H = E zᵀHz."""
        return mean_estimate(self.quadratic)

    def frobenius(self) -> Estimate:
        """||H||_F = sqrt(E ||Hz||²); the standard error is the delta method's, s / (2 ||H||_F sqrt(n))."""
        square = mean_estimate(self.squared)
        value = float(np.sqrt(square.value))
        if value == 0.0:
            return Estimate(0.0, 0.0, "t", square.n)
        assert square.stderr is not None  # of kind "t"
        return Estimate(value, square.stderr / (2 * value), "t", square.n)

    def section_traces(self) -> list[Estimate]:
        """Σ_{i in section} H_ii for each section, for instance a layer."""
        return [mean_estimate(column) for column in self.sections.T]


class ProbeOptions(TypedDict, total=False):
    """Options of all estimates from one sweep of probes; meaning and defaults as in `quadratic_forms`."""

    probes: int
    block: int
    distribution: Distribution
    generator: torch.Generator | None
    dtype: torch.dtype
    device: torch.device | str


def quadratic_forms(
    matvec: MatVec,
    dim: int,
    *,
    probes: int = 64,
    block: int = 8,
    distribution: Distribution = "rademacher",
    sections: Int[Tensor, " P"] | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> ProbeSweep:
    """One sweep of random probes for the trace, the Frobenius norm and the traces of sections such as layers.

    For probes with E zzᵀ = I: E zᵀHz = tr H, E ||Hz||² = ||H||_F², and E z_i (Hz)_i = H_ii, so that the trace of any block
    is estimated without further products.

    Args:
        matvec: maps (k, P) to (k, P).
        dim: P.
        probes: n >= 2 independent probes, one product each.
        block: probes that pass through the data together; affects time and memory, not the result.
        distribution: "rademacher" (entries ±1; least variance) or "gaussian".
        sections: (P,) index of the section of each coordinate, for instance its layer; -1 for none.
        generator: of the probes; seed 0 if None.
        dtype, device: of the operator.

    Returns:
        ProbeSweep.

    Raises:
        UsageError: there are fewer than 2 probes, or an option is out of range.
        NumericalError: a product is not finite.

    Cost: n products in ceil(n / block) blocks; memory 3 * block * P values.

    Accuracy: unbiased (for the Frobenius norm, its square). Sums over coordinates are accumulated in float64. The intervals are
    Student's, which assumes that a probe's value is nearly normal: good if many eigenvalues contribute, too narrow for an
    operator of rank one or two.

    Reference: Hutchinson 1990; Bekas, Kokiopoulou, Saad 2007 for the diagonal.

    Example:
        >>> diagonal = torch.tensor([1.0, 2.0, 3.0])
        >>> sweep = quadratic_forms(lambda v: diagonal * v, 3, probes=4, sections=torch.tensor([0, 0, 1]))
        >>> sweep.trace().value, sweep.section_traces()[0].value
        (6.0, 3.0)
    """
    _at_least("probes", probes, 2, "an interval needs two probes")
    _at_least("block", block, 1, "a block has at least one probe")
    generator = default_generator(generator)
    rows = np.empty((probes, 2))
    ids, count = _sections(sections, dim, device)
    parts = np.empty((probes, count))
    with progress.stage("probes", probes) as advance:
        products = Products(matvec, dim, dtype, device, advance)
        for begin in range(0, probes, block):
            part = slice(begin, min(begin + block, probes))
            z = random_rows(part.stop - part.start, dim, distribution, generator, dtype, device)
            hz = products(z)
            rows[part, 1] = torch.linalg.vector_norm(hz, dim=1, dtype=torch.float64).square().cpu().numpy()
            z *= hz
            rows[part, 0] = z.sum(dim=1, dtype=torch.float64).cpu().numpy()
            for i, row in enumerate(z if count else ()):
                sums = torch.zeros(count + 1, dtype=torch.float64, device=device).index_add_(0, ids, row.double())
                parts[begin + i] = sums[1:].cpu().numpy()
    return ProbeSweep(rows[:, 0].copy(), rows[:, 1].copy(), parts, products.count)


def hutchinson(matvec: MatVec, dim: int, **options: Unpack[ProbeOptions]) -> Estimate:
    """Trace of H by Hutchinson's estimator, with a t-interval.

    tr H = E zᵀHz, averaged over a number of probes that is fixed in advance, since stopping when the running mean seems settled
    would bias the interval.

    Args:
        matvec, dim, options: as for `quadratic_forms`.

    Returns:
        Estimate of kind "t": the mean of n = probes values, s / sqrt(n) with ddof = 1. Unit of H.

    Raises:
        UsageError, NumericalError: as `quadratic_forms`.

    Cost: `probes` products.

    Accuracy: unbiased; variance of one Rademacher probe 2 (||H||_F² - Σ H_ii²), of a Gaussian one 2 ||H||_F².

    Reference: Hutchinson 1990; Avron and Toledo 2011.

    Example:
        >>> diagonal = torch.tensor([1.0, 2.0, 3.0])
        >>> estimate = hutchinson(lambda v: diagonal * v, 3, probes=4)
        >>> estimate.value, estimate.stderr, estimate.n
        (6.0, 0.0, 4)
    """
    return quadratic_forms(matvec, dim, **options).trace()


def frobenius(matvec: MatVec, dim: int, **options: Unpack[ProbeOptions]) -> Estimate:
    """Frobenius norm of H, sqrt(Σ λ_i²), with a t-interval by the delta method.

    ||H||_F² = E ||Hz||², the trace of H².

    Args:
        matvec, dim, options: as for `quadratic_forms`.

    Returns:
        Estimate of kind "t", in the unit of H.

    Raises:
        UsageError, NumericalError: as `quadratic_forms`.

    Cost: `probes` products.

    Accuracy: the square is unbiased; the root is low by about stderr² / (2 value), which is small compared with stderr.

    Reference: Hutchinson 1990, applied to H².

    Example:
        >>> diagonal = torch.tensor([3.0, 4.0])
        >>> frobenius(lambda v: diagonal * v, 2, probes=4).value
        5.0
    """
    return quadratic_forms(matvec, dim, **options).frobenius()


def hutchpp(
    matvec: MatVec,
    dim: int,
    *,
    rank: int = 16,
    probes: int = 32,
    block: int = 8,
    distribution: Distribution = "rademacher",
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Estimate:
    """Trace of H by Hutch++: exact on a sketched subspace, Hutchinson's estimator on its complement.

    tr H = tr QᵀHQ + tr (I - QQᵀ) H (I - QQᵀ), Q an orthonormal basis of H S with random S of `rank` columns. The first part
    is exact; the second is estimated from fresh probes.

    Args:
        rank: columns of S; few suffice if few eigenvalues dominate. rank >= P gives the exact trace.
        probes: n >= 2 probes of the remainder; the paper's split of m products is rank = probes = m / 3.
        matvec, dim, block, distribution, generator, dtype, device: as for `quadratic_forms`.

    Returns:
        Estimate of kind "t" with n = probes; of kind "exact" if the complement is empty. Unit of H.

    Raises:
        UsageError: there are fewer than 2 probes, or rank < 1.
        NumericalError: a product is not finite.

    Cost: at most 2 * rank + probes products; memory (3 * rank + 2 * block) * P values.

    Accuracy: unbiased given Q; the error falls as 1 / products instead of 1 / sqrt(products) for a positive semi-definite H.

    Reference: Meyer, Musco, Musco, Woodruff 2021, Hutch++: optimal stochastic trace estimation, arXiv:2010.09649, algorithm 1.

    Example:
        >>> u = torch.tensor([[3.0, 4.0, 0.0]], dtype=torch.float64)
        >>> round(hutchpp(lambda v: v @ u.T @ u, 3, rank=1, dtype=torch.float64).value, 12)
        25.0
    """
    _at_least("probes", probes, 2, "an interval needs two probes")
    _at_least("rank", rank, 1, "use hutchinson without a sketch")
    _at_least("block", block, 1, "a block has at least one probe")
    generator = default_generator(generator)
    rank = min(rank, dim)
    with progress.stage("Hutch++", 2 * rank + probes) as advance:
        products = Products(matvec, dim, dtype, device, advance)

        def in_blocks(rows: Tensor) -> Tensor:
            return torch.cat([products(part) for part in rows.split(block)])

        if rank == dim:
            basis = torch.eye(dim, dtype=dtype, device=device)
        else:
            # Sketch rows are drawn one at a time for any block size, so the block size does not change the numbers.
            basis = orthonormal_rows(in_blocks(random_rows(rank, dim, distribution, generator, dtype, device)))
        low_rank = sum(float(_inner(part, products(part)).sum()) for part in basis.split(block) if len(part))
        if len(basis) == dim:
            return Estimate(low_rank, None, "exact", products.count)
        rest = np.empty(probes)
        for begin in range(0, probes, block):
            z = random_rows(min(block, probes - begin), dim, distribution, generator, dtype, device)
            for _ in range(2):  # twice, to remove the subspace to rounding in float32 as well
                z -= torch.from_numpy(gram(z, basis)).to(z) @ basis
            rest[begin : begin + block] = _inner(z, products(z))
    remainder = mean_estimate(rest)
    return Estimate(low_rank + remainder.value, remainder.stderr, "t", probes)


def _sections(sections: Tensor | None, dim: int, device: torch.device | str) -> tuple[Tensor, int]:
    """Section indices from 1 (0 for none), and the number of sections."""
    if sections is None:
        return torch.zeros(0, dtype=torch.long), 0
    if sections.shape != (dim,) or int(sections.min()) < -1:
        raise UsageError(
            f"expected {dim} section numbers from -1, found shape {tuple(sections.shape)}", fix="pass one for each coordinate"
        )
    return sections.to(device) + 1, int(sections.max()) + 1


def _inner(a: Float[Tensor, "k P"], b: Float[Tensor, "k P"]) -> np.ndarray:
    """Inner products row by row, in float64."""
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for columns in column_chunks(a.shape[1]):
        total += (a[:, columns].double() * b[:, columns].double()).sum(dim=1)
    return total.cpu().numpy()


def _at_least(name: str, value: int, least: int, why: str) -> None:
    if value < least:
        raise UsageError(f"expected {name} >= {least}, found {value}", fix=why)
