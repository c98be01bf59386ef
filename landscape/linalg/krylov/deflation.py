"""Trace to a requested accuracy: exact on a Krylov space, and with as few random probes as necessary on its complement."""

import math

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.krylov.lanczos import KrylovBasis
from landscape.linalg.probes import default_generator, random_rows
from landscape.linalg.products import MatVec, Products, gram
from landscape.linalg.vector_store import Place
from landscape.machine import progress
from landscape.results import Estimate

# Pilot probes of the complement; their variance determines the number of probes.
PILOT = 8
# Most steps of Lanczos; rows are allocated for all of them, but use memory only once written.
_LONGEST = 64


def trace_within(
    matvec: MatVec,
    dim: int,
    *,
    relative_error: float = 0.05,
    max_matvecs: int = 1000,
    block: int = 8,
    basis_size: int | None = None,
    place: Place | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Estimate:
    """Trace of H with a 95 % interval whose half-width is at most `relative_error` times the trace.

    tr H = tr QᵀHQ + tr (I - QQᵀ) H (I - QQᵀ) with Q an orthonormal basis of a Krylov space. That space contains the outliers of
    the spectrum, which dominate the variance of Hutchinson's estimator. The first part is exact; the second is an average over
    probes z with entries ±1. Lanczos continues while a step saves more probes than the one product it costs, judged with the
    trace's size guessed from the first step. Eight pilot probes then estimate the standard deviation s of one probe, and the
    number n of probes is fixed such that t s / sqrt(n) is small enough (Stein's two stages). n depends on the observed spread
    and never on the mean, so the interval is not biased by the choice.

    Args:
        matvec: maps (k, P) to (k, P).
        dim: P.
        relative_error: half-width of the interval, relative to the trace.
        max_matvecs: bound on the products; if it is too small for the accuracy, the result is reported as not converged.
        block: probes that pass through the data together; affects time and memory, not the result.
        basis_size: most rows of the Krylov basis; default 64.
        place: where the basis is stored.
        generator: of the start and the probes; seed 0 if None.
        dtype, device: of the operator.

    Returns:
        Estimate of kind "t" in the unit of H, n the number of probes; of kind "exact" if the Krylov space is the whole space.

    Raises:
        UsageError: the relative error is not positive, or there are too few products for one step and the pilot.
        NumericalError: a product is not finite.

    Cost: Lanczos steps and probes, one product each: some 15 of the first and 8 to 20 of the second for a trained classifier to
    5 %, where Hutchinson's estimator alone takes 80 and more. Memory (steps + 2 * block) * P values.

    Accuracy: unbiased given Q. The half-width is relative to the value, so the trace cannot be found to that accuracy if it is
    near zero between large eigenvalues of both signs; `max_matvecs` ends the attempt.

    Reference: Stein 1945, A two-sample test for a linear hypothesis; Meyer, Musco, Musco, Woodruff 2021, arXiv:2010.09649
    (Hutch++). Deviation: a Krylov basis instead of a random sketch, for half the products, and the number of probes by Stein's
    rule, with the interval of all n probes.

    Example:
        >>> diagonal = torch.cat((torch.tensor([1000.0, 500.0]), torch.full((998,), 0.5)))
        >>> estimate = trace_within(lambda v: diagonal * v, 1000)
        >>> round(estimate.value), estimate.converged
        (1999, True)
    """
    if not 0 < relative_error < math.inf:
        raise UsageError(f"expected a positive relative error, found {relative_error:g}", fix="0.05 is five per cent")
    if max_matvecs <= PILOT:
        raise UsageError(f"expected max_matvecs >= {PILOT + 1}, found {max_matvecs}", fix="a step and the pilot probes")
    random = default_generator(generator)
    with progress.stage("trace", max_matvecs) as advance:
        products = Products(matvec, dim, dtype, device, advance)
        longest = min(dim, max(max_matvecs // 2, 1), basis_size or _LONGEST, _LONGEST)
        krylov = KrylovBasis(longest, dim, generator=random, dtype=dtype, device=device, place=place)
        exact = _deflate(krylov, products, min(longest, max_matvecs - PILOT), relative_error)
        if krylov.exhausted:
            return Estimate(exact, None, "exact", products.count)
        rows = krylov.rows
        rest = _Remainder(products, rows, block, random)
        rest.draw(PILOT)
        goal = relative_error * abs(exact + rest.mean)
        wanted = math.ceil((rest.deviation * rest.quantile / goal) ** 2) if goal > 0 else max_matvecs
        rest.draw(min(wanted - PILOT, max_matvecs - products.count))
    value, n = exact + rest.mean, len(rest.forms)
    error = rest.deviation / math.sqrt(n)
    half = error * rest.quantile
    # The spread of all probes may be a little larger than the pilot's; the planned number counts, up to a quarter more width.
    reached = wanted <= n and half <= 1.25 * relative_error * abs(value)
    share = f"{half / abs(value):.1%}" if value else "any size"
    reason = None if reached else f"a half-width of {share} after {products.count} products"
    return Estimate(value, error, "t", n, reached, reason)


def _deflate(krylov: KrylovBasis, products: Products, longest: int, relative_error: float) -> float:
    """Grow the basis while it pays; returns the trace of the projection."""
    start = random_rows(1, products.dim, "rademacher", krylov.generator, products.dtype, products.device)[0]
    krylov.begin(start)
    captured, paid = 0.0, 0
    while krylov.size < longest and not krylov.exhausted:
        krylov.absorb(products(krylov.next_row)[0])
        m = krylov.size
        values = np.linalg.eigvalsh(krylov.projection[:m, :m])
        before, captured = captured, float(np.square(values).sum())
        # The first step's Rayleigh quotient is one probe of Hutchinson's; the Ritz values so far have its size, too.
        size = max(abs(krylov.projection[0, 0]) * products.dim, abs(float(values.sum())))
        # A probe's variance is 2 ||R||_F^2, so a step that reduces ||R||_F^2 by d saves 2 d (1.96 / goal)^2 probes.
        saved = 2 * (captured - before) * (1.96 / (relative_error * size)) ** 2 if size else math.inf
        paid = 0 if saved > 1 else paid + 1
        if paid == 2:  # one poor step may come before a good one
            break
    return float(np.trace(krylov.projection[: krylov.size, : krylov.size]))


class _Remainder:
    """The trace of R = (I - QQᵀ) H (I - QQᵀ), from zᵀRz of independent probes z.

    The variance of zᵀRz is 2 ||R||_F² minus a part from R's diagonal. ||Rz||² estimates ||R||_F² without bias and with less
    noise than the sample variance of a few forms, which misses the rare large value of a skewed distribution. The larger of the
    two is used.
    """

    def __init__(self, products: Products, rows: Tensor, block: int, generator: torch.Generator) -> None:
        self.products, self.rows, self.block, self.generator = products, rows, block, generator
        self.forms: list[float] = []
        self.squares: list[float] = []

    def draw(self, count: int) -> None:
        """Draw more probes; none if the number is below one."""
        for begin in range(0, count, self.block):
            like = self.products
            z = random_rows(min(self.block, count - begin), like.dim, "rademacher", self.generator, like.dtype, like.device)
            for _ in range(2):  # twice, to remove the subspace to rounding in float32 as well
                z = self._outside(z)
            image = self._outside(self.products(z))
            self.forms += (z.double() * image.double()).sum(1).tolist()
            self.squares += image.double().square().sum(1).tolist()

    def _outside(self, v: Tensor) -> Tensor:
        """The component of these vectors orthogonal to the rows."""
        return v - torch.from_numpy(gram(v, self.rows)).to(v) @ self.rows

    @property
    def mean(self) -> float:
        """Mean of the forms."""
        return float(np.mean(self.forms))

    @property
    def deviation(self) -> float:
        """Standard deviation of a single form."""
        return math.sqrt(max(float(np.var(self.forms, ddof=1)), 2 * float(np.mean(self.squares))))

    @property
    def quantile(self) -> float:
        """Student's t quantile for a two-sided 95 % interval."""
        return float(stdtrit(len(self.forms) - 1, 0.975))
