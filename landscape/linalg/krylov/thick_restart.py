"""Thick-restart Lanczos: the basis, the wanted pairs and the budget of one run."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.linalg.krylov.lanczos import KrylovBasis
from landscape.linalg.krylov.value_bounds import value_bounds
from landscape.linalg.products import Products, gram, inner_products, norm, rotate_rows
from landscape.linalg.small_matrices import eigh
from landscape.linalg.vector_store import Place, orthonormal_rows
from landscape.results import Eigenpairs
from landscape.results.spectra.spectrum import Which

# Above this multiple of the rounding error, products count as exactly linear.
_LOOSE = 1000
# Of a stop by the bounds of values: no gap counts for more than this share of max |λ| (a heuristic). A wide one in a small
# Krylov space may have an eigenvalue in it: of two that are close, the first Ritz vector is a mixture for many steps.
_WIDEST_GAP = 0.003
# Weight of the next row beside the random start of a sweep (a heuristic): more finds fewer exact copies.
_ONWARD = 0.3
# Ritz values beyond the wanted ones among which a gap is looked for.
_BEYOND = 10


def end_indices(size: int, high: int, low: int) -> np.ndarray:
    """Indices of the wanted values in an increasing array, in decreasing order of the values."""
    return np.r_[size - 1 : size - 1 - high : -1, low - 1 : -1 : -1] if low else np.arange(size - 1, size - 1 - high, -1)


def rayleigh_ritz(products: Products, rows: Float[Tensor, "k P"]) -> tuple[np.ndarray, np.ndarray, Float[Tensor, "k P"]]:
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
        by_value: stop by the bounds of the values instead of the residuals.
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
        by_value: bool = False,
    ) -> None:
        self.products, self.high, self.low, self.short = products, high, low, short
        self.wanted, self.by_value = high + low, by_value
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
        by_value = self.by_value
        exact = by_value or tol >= _LOOSE * torch.finfo(self.products.dtype).eps
        # A sweep keeps converged pairs fixed; their residuals need a margin for the final Rayleigh-Ritz step.
        self.advance(tol / 2 if sweep and not exact else tol, least, by_value)
        values, residuals = self.ritz() if self.krylov.size >= self.wanted else (np.empty(0), np.array([np.inf]))
        bounds = self.bounds() if by_value else None
        rose = False
        while sweep and self.budget > self.products.count and self.rises(sweep, tol):
            rose = True
            self.advance(tol / 2)
        if exact and not rose and (by_value or (residuals <= tol * self.scale).all()) and len(values):
            self.compress()
            vectors = self.krylov.rows if self.short else self.krylov.rows.clone()
            return self.answer(values, vectors, residuals, tol, which, bounds)
        goal, worst = tol, np.inf
        while True:
            self.compress()
            vectors, values, residuals, following = self.verified(tol)
            found = self.answer(values, vectors, residuals, tol, which, self.bounds_of(values, residuals) if by_value else None)
            if found.converged.all() or residuals.max() > worst / 2 or self.products.count + 2 > self.budget:
                return found
            worst = residuals.max()
            goal = min(goal, tol) * tol * self.scale / worst
            self.krylov.reset(values, None if self.short else vectors)
            self.krylov.begin(following)
            self.advance(goal, least=self.wanted + int((~found.converged).sum()))

    def answer(
        self,
        values: np.ndarray,
        vectors: Float[Tensor, "k P"],
        residuals: np.ndarray,
        tol: float,
        which: Which,
        bounds: np.ndarray | None,
    ) -> Eigenpairs:
        """The wanted pairs with what says whether they are good enough: the bounds of the values if there are any."""
        converged = (residuals if bounds is None else bounds) <= tol * self.scale
        return Eigenpairs(values, vectors, residuals, converged, self.products.count, which, bounds=bounds)

    def verified(self, tol: float) -> tuple[Float[Tensor, "k P"], np.ndarray, np.ndarray, Float[Tensor, " P"]]:
        """The wanted pairs with true residual norms, and a start for what they lack, from new products.

        The residuals of the block have rank up to `wanted`, but a Krylov space has one start: the sum of those that are too
        large, equally weighted.
        """
        if not self.short:
            vectors = self.krylov.rows.clone()
            values, residuals, remainders = rayleigh_ritz(self.products, vectors)
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
            kept = end_indices(len(values), self.high + more, self.low and self.low + spare - more)
            krylov.restart(turn[:, kept], values[kept])
        krylov.absorb(self.products(krylov.next_row)[0])

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Wanted Ritz values and the recurrence's estimates of their residuals."""
        size = self.krylov.size
        values, turn = eigh(self.krylov.projection[:size, :size])
        self.scale = max(self.scale, float(np.abs(values).max()))
        ends = end_indices(size, self.high, self.low)
        return values[ends], self.krylov.beta * np.abs(turn[-1, ends])

    def bounds(self) -> np.ndarray:
        """Bounds of the wanted values, from all Ritz values of the basis; valid while no residual was dropped from it."""
        size = self.krylov.size
        values, turn = eigh(self.krylov.projection[:size, :size])
        return self.bounds_of(values[::-1], self.krylov.beta * np.abs(turn[-1, ::-1]))

    def bounds_of(self, values: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """Bounds of the wanted values among these, which are in decreasing order."""
        spare, widest = len(values) - self.wanted, _WIDEST_GAP * self.scale
        top = self.high + min(_BEYOND, spare) if self.high else 0
        bottom = self.low + min(_BEYOND, spare) if self.low else 0
        upper = value_bounds(values[:top], residuals[:top], self.high, widest)
        lower = value_bounds(-values[::-1][:bottom], residuals[::-1][:bottom], self.low, widest)
        return np.r_[upper, lower[::-1]]

    def advance(self, goal: float, least: int = 0, by_value: bool = False) -> None:
        """Step until every wanted pair's estimated residual, or value's bound, is at most goal * scale, or to the budget."""
        # Below this the estimates cannot be distinguished from rounding; without a floor, an unattainable tolerance would spend
        # the whole budget.
        goal = max(goal, 4 * torch.finfo(self.products.dtype).eps)
        while not self.krylov.exhausted and self.products.count < self.budget:
            self.step()
            if self.krylov.size >= max(self.wanted, least):
                _, residuals = self.ritz()
                if ((self.bounds() if by_value else residuals) <= goal * self.scale).all():
                    return

    def compress(self) -> None:
        """Reduce the basis to the wanted Ritz vectors."""
        size = self.krylov.size
        values, turn = eigh(self.krylov.projection[:size, :size])
        ends = end_indices(size, self.high, self.low)
        self.krylov.restart(turn[:, ends], values[ends])

    def rises(self, steps: int, tol: float) -> bool:
        """Whether a start orthogonal to the pairs found reveals a value beyond them.

        It is random, for copies of multiple eigenvalues, with a part of the next row, in which an eigenvector that the pairs
        found lack has grown with every step.
        """
        onward = None if self.krylov.exhausted else self.krylov.next_row[0].clone()
        self.compress()
        before = np.diag(self.krylov.projection)[: self.wanted].copy()
        self.krylov.begin(None)
        if onward is not None:
            self.krylov.begin(self.krylov.next_row[0] + _ONWARD * onward)
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
