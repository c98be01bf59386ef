"""Search for the best corner of a box from many starts, guided by a curvature model built from gradients."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.linalg.maximisation.ascent import vertex_ascent
from landscape.linalg.maximisation.bookkeeping import Search
from landscape.linalg.maximisation.regions import Region
from landscape.linalg.products import column_chunks, gram
from landscape.linalg.small_matrices import eigh

# Climbs without improvement before the search ends, and climbs in all. On thirty small networks a random start reached the
# basin of the best corner one time in six to always, and a start from the model more often. Eight climbs without improvement,
# half of them from the model, make a better corner improbable.
PATIENCE, MOST = 8, 24
# With up to this many coordinates, single ones matter, corners that are best for their own gradients are many and far apart in
# value, and gradients are mostly cheap: twice the patience. With more, most climbs end at nearly the same values. A heuristic.
FEW = 1000
# Corners that differ in at most this share of coordinates count as the same start; up to a hundred coordinates, none do.
NEAR, HUNDRED = 0.1, 100
# Secant pairs to keep: as many as there are relevant curvature directions, fewer if they would take more than a gigabyte.
PAIRS, ROOM = 24, 1 << 30
# Starts of the search in the model, and how many of its results are tested for a new one.
DRAWS, FIRST = 128, 12
# Number of coordinates up to which the model also flips single ones; with more, a single one matters little.
FLIPPED = 512
# With more coordinates than this, starts are followed on so many of them, and then the `FIRST` best ends on all, in so many
# steps. On all from the beginning they would take longer than the gradients that they save. Half of them are the coordinates of
# the largest gradients, which may outweigh all others (biases, norm layers); half are drawn at random and stand for the rest.
THINNED, DRAWN, POLISHED = 1 << 19, 1 << 18, 3

_Piece = tuple[Tensor, Tensor, float]
"""Some coordinates of the model: changes of the gradient (k, p), its slope (p,), and the factor of sums over them."""


class Secants:
    """A quadratic model of f around the centre, from gradients at corners: f(0) + g0.u + u.B u / 2.

    With the corners in the columns of U and the changes of the gradient in those of Y, B = Y (U^T Y)^+ Y^T restricted to the
    positive eigenvalues of U^T Y: the Nyström approximation of the Hessian, exact for a convex quadratic once U has full rank.
    Directions of small curvature are missing; the large ones determine the best corner.

    Args:
        slope: (P,) g0, the gradient at the centre.
    """

    def __init__(self, slope: Float[Tensor, " P"]) -> None:
        self.slope = slope
        self.most = min(PAIRS, ROOM // (len(slope) * (1 + slope.element_size())))
        self._corners = torch.empty(self.most, len(slope), dtype=torch.int8, device=slope.device)
        self._changes = slope.new_empty(self.most, len(slope))
        self._added = 0

    def add(self, u: Float[Tensor, " P"], gradient: Float[Tensor, " P"]) -> None:
        """Add the gradient at a corner; the oldest pair is dropped when the store is full."""
        if self.most < 2:
            return
        row = self._added % self.most
        self._corners[row] = u
        torch.sub(gradient, self.slope, out=self._changes[row])
        self._added += 1

    def best_corners(self, generator: torch.Generator) -> Iterator[Float[Tensor, " P"]]:
        """Corners that are best for their own gradients in the model, best first; none without two pairs.

        Cost: no evaluation; one pass over the pairs, and at most 21 steps (two passes each) for `DRAWS` starts at a time. With
            more than `THINNED` coordinates these are on `DRAWN`, chosen in one pass, and `POLISHED` steps on all follow, for
            `FIRST` ends. And a pass for each corner that is taken.
        """
        size = min(self._added, self.most)
        if size < 2:
            return
        changes = self._changes[:size]
        crossed = gram(self._corners[:size], changes)
        values, vectors = eigh((crossed + crossed.T) / 2)
        # Smaller eigenvalues are rounding error, which the division by them would amplify.
        kept = values > np.sqrt(torch.finfo(changes.dtype).eps) * np.abs(values).max()
        if not kept.any():
            return
        root = torch.from_numpy(vectors[:, kept] / np.sqrt(values[kept])).to(changes)
        # Random combinations of gradient changes, not of eigenvectors, whose signs and rotations depend on rounding.
        draws = torch.randn(len(changes), DRAWS, generator=generator).to(changes)
        whole: list[_Piece] = [(changes, self.slope, 1.0)]
        thinned = changes.shape[1] > THINNED
        pieces = _thinned(changes, self.slope, generator) if thinned else whole
        # Only L^T u of a corner u is stored, with B = L L^T; it determines the next corner sign(g0 + L L^T u).
        ends, _ = _step(pieces, root, draws, 0.0)
        ends, sums, linear = _followed(pieces, root, ends, 20)
        if thinned:
            best = (linear + ends.square().sum(0) / 2).argsort(descending=True, stable=True)[:FIRST]
            ends, sums, linear = _followed(whole, root, ends[:, best], POLISHED)
        if changes.shape[1] <= FLIPPED:
            corners = _flip(self.slope, changes.T @ root, torch.sign(changes.T @ sums + self.slope[:, None]))
            ends, linear = root.T @ (changes @ corners), self.slope @ corners
        for j in (linear + ends.square().sum(0) / 2).argsort(descending=True, stable=True).tolist():
            yield corners[:, j] if changes.shape[1] <= FLIPPED else torch.sign(changes.T @ sums[:, j] + self.slope)


def _thinned(changes: Float[Tensor, "k P"], slope: Float[Tensor, " P"], generator: torch.Generator) -> list[_Piece]:
    """Half of `DRAWN` coordinates, of the largest gradients, as they are; and up to as many of the others, for all of them."""
    size = changes.shape[1]
    weight = slope.abs()
    for columns in column_chunks(size):
        weight[columns] += changes[:, columns].abs().sum(0)
    kept = weight.topk(DRAWN // 2, sorted=False).indices.sort().values
    free = torch.ones(size, dtype=torch.bool, device=changes.device)
    free[kept] = False
    drawn = torch.randint(size, (DRAWN // 2,), generator=generator).sort().values.to(changes.device)
    drawn = drawn[free[drawn]]
    return [(changes[:, kept], slope[kept], 1.0), (changes[:, drawn], slope[drawn], (size - len(kept)) / max(len(drawn), 1))]


def _followed(pieces: list[_Piece], root: Tensor, ends: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Corners followed to those that are best for their own gradients, in at most so many steps: L^T u, their sums s, g0.u."""
    for _ in range(most):
        sums = root @ ends
        again, linear = _step(pieces, root, sums, 1.0)
        if torch.equal(again, ends):
            break
        ends = again
    return ends, sums, linear


def _step(pieces: list[_Piece], root: Tensor, sums: Float[Tensor, "k n"], share: float) -> tuple[Tensor, Tensor]:
    """L^T u and g0.u of the corners u = sign(share * g0 + Y s) for each column s, as `pieces` of the model tell them."""
    across, along = sums.new_zeros(root.shape[1], sums.shape[1]), sums.new_zeros(sums.shape[1])
    for changes, slope, factor in pieces:
        more = _sweep(changes, slope, root, sums, share)
        across.add_(more[0], alpha=factor)
        along.add_(more[1], alpha=factor)
    return across, along


def _sweep(
    changes: Float[Tensor, "k p"], slope: Float[Tensor, " p"], root: Tensor, sums: Float[Tensor, "k n"], share: float
) -> tuple[Tensor, Tensor]:
    """The sums of `_step` over these coordinates, some at a time."""
    across, along = sums.new_zeros(root.shape[1], sums.shape[1]), sums.new_zeros(sums.shape[1])
    for columns in column_chunks(changes.shape[1], 1 << 14):
        part, own = changes[:, columns], slope[columns]
        u = torch.sign(part.T @ sums + share * own[:, None])
        across += root.T @ (part @ u)
        along += own @ u
    return across, along


def _flip(slope: Float[Tensor, " P"], root: Float[Tensor, "P r"], corners: Float[Tensor, "P n"]) -> Float[Tensor, "P n"]:
    """Flip the best single coordinate of each corner while that raises g0.u + |L^T u|^2 / 2."""
    corners, rows = torch.where(corners == 0, 1, corners), torch.arange(corners.shape[1], device=corners.device)
    squares = root.square().sum(1)[:, None]
    for _ in range(2 * len(slope)):
        gains = 2 * (squares - corners * (slope[:, None] + root @ (root.T @ corners)))
        gain, best = gains.max(0)
        rising = gain > 1e-12 * gains.abs().max()
        if not rising.any():
            break
        corners[best[rising], rows[rising]] *= -1
    return corners


def corner_search(
    search: Search,
    region: Region,
    slope: Float[Tensor, " P"],
    starts: Iterable[tuple[str, Tensor]],
    generator: torch.Generator,
    jumps: int,
    tol: float,
    run: Callable[[str, Callable[[], object]], None],
) -> None:
    """Climb from corner to corner from many starts, until `PATIENCE` climbs in a row (twice that if P <= FEW) gain nothing.

    The given starts come first; then, alternately, the best corner of the model that is not near a known one, and a random
    corner. The mirror image of the best corner so far is tried whenever it is new; its value differs only through odd orders.

    Args:
        slope: gradient at the centre in unit coordinates.
        starts: (name, u).
        jumps, tol: of `vertex_ascent`; a climb that raises the growth by at most this share has gained nothing.
        run: executes a climb under a name and records it.
    """
    secants = Secants(slope)
    near = NEAR * search.dim if search.dim > HUNDRED else 0
    known = torch.empty(0, search.dim, dtype=torch.int8, device=search.device)

    def climb(name: str, u: Tensor, *starts: Tensor) -> None:
        nonlocal known
        ends: list[Tensor] = []
        run(name, lambda: ends.append(vertex_ascent(search, region, u, jumps, tol, secants.add)))
        known = torch.cat((known, *(v.to(torch.int8)[None] for v in (*starts, *ends))))

    def new(u: Tensor) -> bool:
        signs = u.to(torch.int8)
        return all(int((signs != v).sum()) > near for v in known)

    for name, u in starts:
        climb(name, u)
    vain, done, more = 0, 0, 2 if search.dim <= FEW else 1
    while vain < more * PATIENCE and done < more * MOST:
        before = search.best
        mirror = -torch.sign(search.point)
        if new(mirror):
            climb("the mirror image of the best", mirror, mirror)
        else:
            led = next((v for v in islice(secants.best_corners(generator), FIRST) if new(v)), None) if done % 2 else None
            if led is None:
                climb(f"random {done}", region.random(generator, search.dtype, search.device))
            else:
                climb(f"model {done}", led, led)
        done += 1
        vain = 0 if search.best - before > tol * (search.best - search.base) else vain + 1
