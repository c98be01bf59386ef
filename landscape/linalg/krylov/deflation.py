"""Trace to a requested accuracy: by random probes, of what a known part and a Krylov space leave of the operator."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.krylov.lanczos import KrylovBasis
from landscape.linalg.probes import default_generator, random_rows
from landscape.linalg.products import MatVec, Products, gram
from landscape.linalg.small_matrices import eigvalsh
from landscape.linalg.vector_store import Place
from landscape.machine import progress
from landscape.results import Estimate

# Pilot probes; their spread determines the number of probes, and whether a Krylov space is worth its products.
PILOT = 8
# Most steps of Lanczos; rows are allocated for all of them, but use memory only once written.
_LONGEST = 64
# Relative error of the pilot's ||R||_F^2 above which a few eigenvalues must carry it.
_SURE = 0.15
# Steps of Lanczos for each eigenvalue that it takes out.
_STEPS = 1.5
# Steps before which a Krylov space shows little of the outliers.
_LEAST = 6


@dataclass(frozen=True)
class Known:
    """A part of an operator that is known in full: sum_k s_k r_k r_k^T, so that its trace needs no probe.

    Attributes:
        rows: (K, P) the vectors r.
        signs: (K,) the factors s, in the dtype of the rows.
    """

    rows: Float[Tensor, "K P"]
    signs: Float[Tensor, " K"]

    @property
    def trace(self) -> float:
        """sum_k s_k ||r_k||^2."""
        return float((torch.linalg.vector_norm(self.rows, dim=1, dtype=torch.float64).square() * self.signs.double()).sum())

    @property
    def diagonal(self) -> Float[Tensor, " P"]:
        """sum_k s_k r_ki^2, float64."""
        out = torch.zeros(self.rows.shape[1], dtype=torch.float64, device=self.rows.device)
        for row, sign in zip(self.rows, self.signs.tolist(), strict=True):
            out += sign * row.double().square()
        return out

    def product(self, v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """The product with k vectors."""
        return (v @ self.rows.T * self.signs) @ self.rows


def trace_within(
    matvec: MatVec,
    dim: int,
    *,
    relative_error: float = 0.05,
    max_matvecs: int = 1000,
    block: int = 8,
    known: Known | None = None,
    basis_size: int | None = None,
    place: Place | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Estimate:
    """Trace of H with a 95 % interval whose half-width is at most `relative_error` times the trace.

    tr H = tr K + tr Q R Qᵀ + tr (I - QᵀQ) R (I - QᵀQ): K is known, R = H - K, and the rows of Q are an orthonormal basis of a
    Krylov space of R, which contains the outliers of its spectrum: they dominate the variance of Hutchinson's estimator. The
    first two parts are exact; the last is an average over probes z with entries ±1. Eight pilot probes tell the standard
    deviation s of one (their images, where many eigenvalues contribute, else the forms as well), and the number n for which
    t s / sqrt(n) is small enough (Stein's two stages). Where what they tell of ||R||², apart from its diagonal, varies so much
    that a few eigenvalues must carry it, or n is more than these are worth, Lanczos continues while a step saves more probes
    than the one product it costs; the pilot probes serve again, without further products. The relative variation does not tell
    whether the pilot's values are large or small.

    Args:
        matvec: maps (k, P) to (k, P).
        dim: P.
        relative_error: half-width of the interval, relative to the trace.
        max_matvecs: bound on the products; if it is too small for the accuracy, the result is reported as not converged.
        block: probes that pass through the data together; affects time and memory, not the result.
        known: K; nothing if None.
        basis_size: most rows of the Krylov basis; default 64.
        place: where the basis is stored.
        generator: of the start and the probes; seed 0 if None.
        dtype, device: of the operator.

    Returns:
        Estimate of kind "t" in the unit of H, n the number of probes, `reason` with the number of Lanczos steps, too; of kind
        "exact" if the Krylov space is the whole space.

    Raises:
        UsageError: the relative error is not positive, or there are too few products for one step and the pilot.
        NumericalError: a product is not finite.

    Cost: one product for each probe and each Lanczos step: 8 at least; for a trained classifier to 5 % some 15 steps and 8 to
    20 probes, where Hutchinson's estimator alone takes 80 and more. Memory at most (steps + 2 * block + 40) * P values,
    16 of them the pilot's probes and images.

    Accuracy: unbiased for Q and n that are fixed beforehand. Both depend on the pilot, whose probes are used again: n on its
    spread and, since the accuracy is relative, on its mean. With 1 to 40 equal outliers the bias was at most about a tenth of
    the half-width, and the intervals covered 0.95 to 0.99 of the time (tests/linalg/test_deflation.py). The half-width is
    relative to the value, so the trace cannot be found to that accuracy if it is near zero between large eigenvalues of both
    signs; `max_matvecs` ends the attempt.

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
    left: MatVec = matvec if known is None else lambda v: matvec(v) - known.product(v)
    given = 0.0 if known is None else known.trace
    with progress.stage("trace", max_matvecs) as advance:
        products = Products(left, dim, dtype, device, advance)
        # Probes and images of the pilot take rows of a basis's memory, unless it has too few.
        keep = basis_size is None or basis_size >= 3 * PILOT
        rows = _LONGEST if basis_size is None else basis_size - 2 * PILOT * keep
        longest = min(dim, max(max_matvecs // 2, 1), rows, _LONGEST, max_matvecs - PILOT * (1 if keep else 2))
        rest = _Remainder(products, block, random, keep)
        if whole := dim <= longest and dim <= PILOT:
            wanted = 0
        else:
            rest.draw(PILOT)
            wanted = rest.enough(given, relative_error)
        steps = 0
        if whole or (longest > 0 and (not rest.even or wanted - PILOT > max(_LEAST, _STEPS * rest.carried_by))):
            krylov = KrylovBasis(longest, dim, generator=random, dtype=dtype, device=device, place=place)
            size = 0.0 if whole else given + rest.mean
            given += _deflate(krylov, products, longest, relative_error, size, known)
            if krylov.exhausted:
                return Estimate(given, None, "exact", products.count)
            steps = krylov.size
            rest.outside(krylov)
            rest.draw(min(PILOT - len(rest.forms), max_matvecs - products.count))
            wanted = rest.enough(given, relative_error)
        rest.draw(min(wanted - len(rest.forms), max_matvecs - products.count))
    value, n = given + rest.mean, len(rest.forms)
    error = rest.deviation / math.sqrt(n)
    half = error * float(stdtrit(n - 1, 0.975))
    # The spread of all probes may be a little larger than the pilot's; the planned number counts, up to a quarter more width.
    reached = wanted <= n and half <= 1.25 * relative_error * abs(value)
    share = f"{half / abs(value):.1%}" if value else "any size"
    took = f"{n} probes" if not steps else f"{steps} steps of Lanczos and {n} probes"
    reason = took if reached else f"a half-width of {share} after {products.count} products"
    return Estimate(value, error, "t", n, reached, reason)


def _deflate(
    krylov: KrylovBasis, products: Products, longest: int, relative_error: float, size: float, known: Known | None
) -> float:
    """Grow the basis while it pays; returns the trace of the projection. `size` is the trace as far as it is known.

    Beside a known part it starts from a random combination of its vectors: what is left has its outliers near their span.
    """
    of = products.dim if known is None else len(known.rows)
    start = random_rows(1, of, "rademacher", krylov.generator, products.dtype, products.device)
    krylov.begin((start if known is None else start @ known.rows)[0])
    captured, paid = 0.0, 0
    while krylov.size < longest and not krylov.exhausted:
        krylov.absorb(products(krylov.next_row)[0])
        m = krylov.size
        values = eigvalsh(krylov.projection[:m, :m])
        before, captured = captured, float(np.square(values).sum())
        # A probe's variance is 2 ||R||_F^2, so a step that reduces ||R||_F^2 by d saves 2 d (1.96 / goal)^2 probes.
        saved = 2 * (captured - before) * (1.96 / (relative_error * size)) ** 2 if size else math.inf
        paid = 0 if saved > 1 else paid + 1
        if paid >= 2 and m >= _LEAST:  # poor steps may come before a good one, first of all
            break
    return float(np.trace(krylov.projection[: krylov.size, : krylov.size]))


class _Remainder:
    """The trace of R, or of (I - QᵀQ) R (I - QᵀQ), from zᵀRz of independent probes z.

    The variance of zᵀRz is 2 ||R_o||_F², with R_o = R without its diagonal. As z_i (Rz)_i = R_ii + z_i (R_o z)_i, the sample
    variances of z_i (Rz)_i over the pilot add up to an unbiased estimate of ||R_o||_F². What each probe adds to it varies as
    ||R_o z||² does: little, if many eigenvalues contribute. Where the pilot is not kept, ||Rz||² is used, which includes the
    diagonal. The larger of this and of the sample variance of zᵀRz counts, since the latter misses the rare large value of a
    skewed distribution.
    """

    def __init__(self, products: Products, block: int, generator: torch.Generator, keep: bool) -> None:
        self.products, self.block, self.generator, self.keep = products, block, generator, keep
        self.basis: KrylovBasis | None = None
        self.forms: list[float] = []
        self.squares: list[float] = []
        self._first: list[tuple[Tensor, Tensor]] = []  # probes and images of the pilot

    def draw(self, count: int) -> None:
        """Draw more probes; none if the number is below one."""
        for begin in range(0, count, self.block):
            like = self.products
            z = random_rows(min(self.block, count - begin), like.dim, "rademacher", self.generator, like.dtype, like.device)
            if self.basis is not None:
                for _ in range(2):  # twice, to remove the subspace to rounding in float32 as well
                    z = self._outside(z)
            image = self.products(z)
            if self.basis is None and self.keep and len(self.forms) < PILOT:
                self._first.append((z, image))
            self._see(z, image if self.basis is None else self._outside(image))

    def outside(self, basis: KrylovBasis) -> None:
        """Leave the basis's rows out from now on, and of the probes that were drawn, without further products."""
        seen, self._first = self._first, []
        self.basis, self.forms, self.squares = basis, [], []
        while seen:  # a block of the images goes as its part outside comes
            z, image = seen.pop(0)
            inside = torch.from_numpy(gram(z, basis.rows)).to(z)
            image = self._outside(self._outside(image))
            if basis.beta > 0 and basis.size < len(basis.store):  # the last row's image has a part outside
                image -= basis.beta * inside[:, -1:] * basis.next_row
            self._first.append((z, image))
            self._see(self._outside(torch.addmm(z, inside, basis.rows, alpha=-1)), image)

    def _see(self, z: Tensor, image: Tensor) -> None:
        if len(self.forms) < PILOT:
            self.squares += [float(torch.linalg.vector_norm(row, dtype=torch.float64)) ** 2 for row in image]
        self.forms += [float(torch.dot(a.double(), b.double())) for a, b in zip(z, image, strict=True)]

    def _leave_diagonal(self) -> None:
        """Replace the pilot's ||Rz||² by what each probe adds to the estimate of ||R_o||_F², if its vectors are kept."""
        count = len(self.squares)
        mean = sum(((z * image).sum(0) for z, image in self._first), torch.zeros(())) / count
        least = 1e-3 * float(np.mean(self.squares))  # products are not exact
        own = (z * row - mean for block in self._first for z, row in zip(*block, strict=True))
        parts = [float(torch.linalg.vector_norm(o, dtype=torch.float64)) ** 2 for o in own]
        self.squares = [max(p * count / (count - 1), least) for p in parts]

    def _outside(self, v: Tensor) -> Tensor:
        """The component of these vectors orthogonal to the rows."""
        assert self.basis is not None  # asked only where there is one
        rows = self.basis.rows
        return torch.addmm(v, torch.from_numpy(gram(v, rows)).to(v), rows, alpha=-1)

    @property
    def mean(self) -> float:
        """Mean of the forms."""
        return float(np.mean(self.forms))

    @property
    def carried_by(self) -> float:
        """How many equal eigenvalues would make ||Rz||² vary as it does: its relative variance is 2 / number."""
        mean = float(np.mean(self.squares))
        return 2.0 * mean**2 / max(float(np.var(self.squares, ddof=1)), 1e-12 * mean**2, 1e-300)

    @property
    def even(self) -> bool:
        """Whether many eigenvalues contribute, so that forms are not skewed and their variance is known well."""
        return not any(self.squares) or self._doubt <= _SURE

    @property
    def _doubt(self) -> float:
        """Relative standard error of the mean of ||Rz||²."""
        return math.sqrt(2.0 / self.carried_by / len(self.squares))

    @property
    def deviation(self) -> float:
        """Standard deviation of a single form."""
        return math.sqrt(max(float(np.var(self.forms, ddof=1)), 2.0 * float(np.mean(self.squares))))

    def enough(self, given: float, relative_error: float) -> int:
        """How many probes it takes, beside a part `given` exactly.

        A variance from a few forms has Stein's quantile, of the pilot's freedom; one that is known well, that of n - 1.
        """
        if self._first:
            self._leave_diagonal()
        goal = relative_error * abs(given + self.mean)
        if not goal > 0:
            return 10**12
        n = len(self.forms)
        if not self.even:
            return math.ceil(min((self.deviation / goal * float(stdtrit(n - 1, 0.975))) ** 2, 1e12))
        # The forms' own variance is that of eight numbers, uncertain by half; it would only add to the plan.
        ratio = 2.0 * float(np.mean(self.squares)) * (1.0 + 2.0 * self._doubt) / goal**2 if any(self.squares) else 0.0
        for _ in range(20):  # converges to the n of n = ratio t², from below or above
            n = max(len(self.forms), math.ceil(min(ratio * float(stdtrit(n - 1, 0.975)) ** 2, 1e12)))
        return n
