"""Extreme eigenpairs of a symmetric operator: thick-restart Lanczos with true residuals."""

from typing import get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.krylov.lanczos import KrylovBasis, vectors_of
from landscape.linalg.probes import default_generator
from landscape.linalg.products import MatVec, Products, gram, inner_products, norm, rotate_rows
from landscape.linalg.small_matrices import eigh
from landscape.linalg.vector_store import Place, orthonormal_rows
from landscape.machine import progress
from landscape.results import Eigenpairs
from landscape.results.spectra.spectrum import Which

# Above this multiple of the rounding error, products count as exactly linear.
_LOOSE = 1000


def eigenpairs(
    matvec: MatVec,
    dim: int,
    *,
    k: int = 1,
    which: Which = "largest",
    tol: float = 1e-4,
    max_matvecs: int | None = None,
    basis_size: int | None = None,
    sweep: int | None = None,
    start: Float[Tensor, "..."] | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    place: Place | None = None,
) -> Eigenpairs:
    """The k largest or smallest eigenpairs of a symmetric operator, or both ends in one run.

    H v = λ v with ||v|| = 1. The order is algebraic, never by magnitude: λ_1 >= ... >= λ_P, "largest" is λ_1..λ_k and
    "smallest" is λ_{P-k+1}..λ_P. Values come in decreasing order, so the smallest eigenvalue is always `values[-1]` of
    "smallest" and of "both".

    Args:
        matvec: maps (k, P) to (k, P).
        dim: P.
        k: pairs to find at each end.
        which: "largest", "smallest", or "both": the k largest, then the k smallest. If 2k >= P, "both" returns all P pairs
            once.
        tol: a pair is converged when its true residual ||H v - λ v|| <= tol * max |λ|, the maximum over all Ritz values seen.
        max_matvecs: bound on all products, including those for the residuals; max(300, 50 * k) if None.
        basis_size: vectors in the Krylov basis before a restart; max(40, 2 * wanted + 16) if None. If P is at most this
            default, the matrix itself is formed, P products in one block, and the answer is exact.
        sweep: steps of the search for copies of multiple eigenvalues (see Accuracy), 0 disables it; default 8, or 4 for a
            tolerance of at least 1e-3.
        start: (P,) or (j, P): eigenvectors of a similar operator, for instance of the last training step; only a hint.
        generator: of the random vectors; seed 0 if None.
        dtype, device: of the operator.
        place: where the Krylov basis is stored; see `landscape.linalg.Place`.

    Returns:
        Eigenpairs. An eigenvalue of H lies within `residuals[i]` of `values[i]`. `converged` is based on true residuals: with a
        noisy matvec (float32), a tolerance below the noise is abandoned once the residuals stop halving, and reported as not
        converged.

    Raises:
        UsageError: k > P, or an option is out of range.
        NumericalError: a product is not finite; the message gives its number.

    Cost: Lanczos steps (one product each) until the residuals that the recurrence estimates are below tol, tested at every
    step; if k > 1, `sweep` more products, and two or more for each copy found; then one block of products for the true
    residuals. If tol is above 1000 times the rounding of dtype (1.2e-4 in float32) this block is omitted: Hv is the linear
    combination of earlier products that v is of the basis, equal up to rounding. Memory (basis_size + 1 + 3 * wanted) * P
    values; with a basis_size below its default (basis_size + 4) * P, the vectors of the result among them.

    Accuracy: a Krylov space contains one vector of each eigenspace, so a copy of a multiple eigenvalue can be missed. The sweep
    runs `sweep` Lanczos steps from a random vector orthogonal to the pairs found; if a wanted value rises, it is converged and
    the sweep is repeated. A copy that is separated from the rest shows within a few steps; one within tol * max |λ| of a value
    already found does not change the values. Eigenvalues are Rayleigh quotients: their error is about residual² / gap.

    Reference: Wu and Simon 2000, Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J. Matrix Anal.
    Appl. 22(2); Stewart 2001 (Krylov-Schur). Deviations: the full projection is kept instead of its arrow form, and the
    sweep.

    Example:
        >>> diagonal = torch.arange(1.0, 101.0)
        >>> pairs = eigenpairs(lambda v: diagonal * v, 100, k=2, which="both")
        >>> pairs.values.round(2).tolist()
        [100.0, 99.0, 2.0, 1.0]
    """
    if which not in get_args(Which):
        raise UsageError(
            f"expected which 'largest', 'smallest' or 'both', found {which!r}", fix="choose an end of the spectrum"
        )
    if not 1 <= k <= dim:
        raise UsageError(f"expected 1 <= k <= {dim} eigenpairs, found k={k}", fix=f"the operator has {dim}")
    if sweep is None:
        sweep = 4 if tol >= 1e-3 else 8
    if not tol > 0 or sweep < 0:
        raise UsageError(f"expected tol > 0 and sweep >= 0, found tol={tol}, sweep={sweep}", fix="tol is relative, e.g. 1e-4")
    high = k if which != "smallest" else 0
    low = min(k, dim - high) if which != "largest" else 0
    wanted = high + low
    small = max(40, 2 * wanted + 16)
    if basis_size is None:
        basis_size = small
    if max_matvecs is None:
        max_matvecs = max(300, 50 * k)
    if max_matvecs < 2 * wanted:
        raise UsageError(
            f"expected max_matvecs >= {2 * wanted}, found {max_matvecs}", fix="each pair needs a step and a residual"
        )
    if basis_size < min(dim, wanted + 2):
        raise UsageError(
            f"expected basis_size >= {min(dim, wanted + 2)}, found {basis_size}", fix="use two vectors more than pairs"
        )
    generator = default_generator(generator)
    hint = None if start is None else vectors_of(start, dim, "start", dtype, device)
    with progress.stage("eigenvalues", max_matvecs) as advance:
        products = Products(matvec, dim, dtype, device, advance)
        if dim <= min(small, basis_size) and dim + wanted <= max_matvecs:
            vectors, scale = _dense(products, high, low)
        else:
            size, short = min(basis_size, dim), basis_size < min(small, dim)
            run = ThickRestart(products, size, high, low, max_matvecs, generator, place, short)
            return run.solve(hint, tol, sweep if k > 1 else 0, which)
        values, residuals, _ = _rayleigh_ritz(products, vectors)
    scale = max(scale, float(np.abs(values).max()))
    return Eigenpairs(values, vectors, residuals, residuals <= tol * scale, products.count, which)


def _dense(products: Products, high: int, low: int) -> tuple[Float[Tensor, "k P"], float]:
    """Wanted eigenvectors from the dense matrix, and max |λ|; correct for any multiplicity."""
    eye = torch.eye(products.dim, dtype=products.dtype, device=products.device)
    matrix = products(eye).double().cpu().numpy()
    values, vectors = eigh((matrix + matrix.T) / 2)
    chosen = np.array(vectors[:, _ends(len(values), high, low)].T, order="C")
    return torch.from_numpy(chosen).to(device=products.device, dtype=products.dtype), float(np.abs(values).max())


def _ends(size: int, high: int, low: int) -> np.ndarray:
    """Indices of the wanted values in an increasing array, in decreasing order of the values."""
    return np.r_[size - 1 : size - 1 - high : -1, low - 1 : -1 : -1] if low else np.arange(size - 1, size - 1 - high, -1)


def _rayleigh_ritz(products: Products, rows: Float[Tensor, "k P"]) -> tuple[np.ndarray, np.ndarray, Float[Tensor, "k P"]]:
    """Rotate orthonormal rows in place to Ritz vectors by new products; returns values, true residual norms, residuals."""
    images = products(rows)
    small = gram(rows, images)
    values, turn = eigh((small + small.T) / 2)
    values, turn = values[::-1].copy(), turn[:, ::-1]
    images = images.clone()
    rotate_rows(rows, turn)
    rotate_rows(images, turn)
    residuals = images.sub_(rows * torch.from_numpy(values).to(rows)[:, None])
    return values, np.array([norm(r) for r in residuals]), residuals


class ThickRestart:
    """State of a thick-restart Lanczos run: the basis, the wanted pairs and the budget.

    Args:
        products: the operator.
        size: rows of the basis before a restart.
        high, low: pairs wanted at each end.
        max_matvecs: bound on all products, of which one for each wanted pair is left for its residual.
        generator: of the random vectors.
        place: where the basis is stored.
        short: whether memory is short: no second copy of the wanted vectors, products of one vector.
    """

    def __init__(
        self,
        products: Products,
        size: int,
        high: int,
        low: int,
        max_matvecs: int,
        generator: torch.Generator,
        place: Place | None,
        short: bool = False,
    ) -> None:
        self.products, self.high, self.low, self.short = products, high, low, short
        self.wanted = high + low
        self.size = size
        self.budget = max_matvecs - self.wanted  # reserves the products for the true residuals
        self.scale = 0.0
        self.krylov = KrylovBasis(
            size + 1, products.dim, generator=generator, dtype=products.dtype, device=products.device, place=place
        )

    def solve(self, hint: Float[Tensor, "j P"] | None, tol: float, sweep: int, which: Which) -> Eigenpairs:
        """Iterate, look for missed copies and verify; repeat while the true residuals keep falling."""
        self.krylov.begin(None)
        least = 0
        if hint is not None and len(earlier := orthonormal_rows(hint)):
            # All earlier vectors with equal weight. Without a sweep also a random part, and five steps to reveal what the hint
            # lacks: an exact eigenvector of another eigenvalue would seem converged at once (both numbers are heuristics).
            share, least = (0.0, 0) if sweep else (0.1, 5)
            self.krylov.begin(earlier.sum(dim=0) / len(earlier) ** 0.5 + share * self.krylov.next_row[0])
        exact = tol >= _LOOSE * torch.finfo(self.products.dtype).eps
        # A sweep keeps converged pairs fixed; their residuals need a margin for the final Rayleigh-Ritz step.
        self.advance(tol / 2 if sweep and not exact else tol, least)
        values, residuals = self.ritz() if self.krylov.size >= self.wanted else (np.empty(0), np.array([np.inf]))
        rose = False
        while sweep and self.budget > self.products.count and self.rises(sweep, tol):
            rose = True
            self.advance(tol / 2)
        if exact and not rose and (residuals <= tol * self.scale).all():
            self.compress()
            vectors = self.krylov.rows if self.short else self.krylov.rows.clone()
            return Eigenpairs(values, vectors, residuals, residuals <= tol * self.scale, self.products.count, which)
        goal, worst = tol, np.inf
        while True:
            self.compress()
            vectors, values, residuals, following = self.verified(tol)
            converged = residuals <= tol * self.scale
            if converged.all() or residuals.max() > worst / 2 or self.products.count + 2 > self.budget:
                return Eigenpairs(values, vectors, residuals, converged, self.products.count, which)
            worst = residuals.max()
            goal = min(goal, tol) * tol * self.scale / worst
            self.krylov.reset(values, None if self.short else vectors)
            self.krylov.begin(following)
            self.advance(goal, least=self.wanted + int((~converged).sum()))

    def verified(self, tol: float) -> tuple[Float[Tensor, "k P"], np.ndarray, np.ndarray, Float[Tensor, " P"]]:
        """The wanted pairs with true residual norms, and a start for what they lack, from new products.

        The residuals of the block have rank up to `wanted`, but a Krylov space has one start: the sum of those that are too
        large, equally weighted.
        """
        if not self.short:
            vectors = self.krylov.rows.clone()
            values, residuals, remainders = _rayleigh_ritz(self.products, vectors)
            self.scale = max(self.scale, float(np.abs(values).max()))
            bad = np.flatnonzero(residuals > tol * self.scale)
            lengths = torch.from_numpy(residuals).to(remainders)[:, None]
            return vectors, values, residuals, (remainders[bad] / lengths[bad]).sum(dim=0)
        # One vector at a time beside the basis; without the rotation that removes rounding of the products among close values.
        vectors, following = self.krylov.rows, torch.zeros_like(self.krylov.rows[0])
        values, residuals = np.empty((2, len(vectors)))
        for i, row in enumerate(vectors):
            image = self.products(row[None])[0]
            values[i] = inner_products(image[None], row)[0]
            remainder = torch.sub(image, row, alpha=float(values[i]))
            residuals[i] = norm(remainder)
            self.scale = max(self.scale, abs(float(values[i])))
            if residuals[i] > tol * self.scale:
                following.add_(remainder, alpha=1 / float(residuals[i]))
        order = np.argsort(-values, kind="stable")
        if (order != np.arange(len(values))).any():
            self.krylov.restart(np.eye(len(values))[:, order], values[order])
            vectors = self.krylov.rows
        return vectors, values[order], residuals[order], following

    def step(self) -> None:
        """One product, after a thick restart if the basis is full."""
        krylov = self.krylov
        if krylov.size == self.size:
            values, turn = eigh(krylov.projection[: krylov.size, : krylov.size])
            # A third of the free rows is kept with the wanted ones: few restarts, yet space for new directions (a heuristic).
            spare = (self.size - self.wanted) // 3
            more = spare * self.high // self.wanted
            kept = _ends(len(values), self.high + more, self.low and self.low + spare - more)
            krylov.restart(turn[:, kept], values[kept])
        krylov.absorb(self.products(krylov.next_row)[0])

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Wanted Ritz values and the recurrence's estimates of their residuals."""
        size = self.krylov.size
        values, turn = eigh(self.krylov.projection[:size, :size])
        self.scale = max(self.scale, float(np.abs(values).max()))
        ends = _ends(size, self.high, self.low)
        return values[ends], self.krylov.beta * np.abs(turn[-1, ends])

    def advance(self, goal: float, least: int = 0) -> None:
        """Step until every wanted pair's estimated residual is at most goal * scale, or the budget is spent."""
        # Below this the estimates cannot be distinguished from rounding; without a floor, an unattainable tolerance would spend
        # the whole budget.
        goal = max(goal, 4 * torch.finfo(self.products.dtype).eps)
        while not self.krylov.exhausted and self.products.count < self.budget:
            self.step()
            if self.krylov.size >= max(self.wanted, least):
                _, residuals = self.ritz()
                if (residuals <= goal * self.scale).all():
                    return

    def compress(self) -> None:
        """Reduce the basis to the wanted Ritz vectors."""
        size = self.krylov.size
        values, turn = eigh(self.krylov.projection[:size, :size])
        ends = _ends(size, self.high, self.low)
        self.krylov.restart(turn[:, ends], values[ends])

    def rises(self, steps: int, tol: float) -> bool:
        """Whether a random start orthogonal to the pairs found reveals a value beyond them."""
        self.compress()
        before = np.diag(self.krylov.projection)[: self.wanted].copy()
        self.krylov.begin(None)
        # A smaller change is noise of the products, or another copy of a known value.
        margin = max(tol, 100 * torch.finfo(self.products.dtype).eps)
        for _ in range(min(steps, self.budget - self.products.count, self.size - self.wanted)):
            if self.krylov.exhausted:
                break
            self.step()
            now, _ = self.ritz()
            gain = np.r_[now[: self.high] - before[: self.high], before[self.high :] - now[self.high :]]
            if gain.max() > margin * self.scale:
                return True
        # Another copy of a known value, not yet converged, would mix with the converged ones: discard the rows of the sweep.
        self.krylov.reset(before)
        return False
