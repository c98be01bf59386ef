"""Search for the best corner of a box from many starts, led by a model of the curvature made from the gradients seen so far."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.linalg.ascent import vertex_ascent
from landscape.linalg.products import column_chunks, gram
from landscape.linalg.regions import Region
from landscape.linalg.search import Search

# Climbs that may bring nothing before the search ends, and climbs in all. On thirty small networks a random start reaches
# the basin of the best corner one time in six to always, a start from the model more often: eight climbs in vain, half of
# them from the model, mean that there is most probably no better one.
PATIENCE, MOST = 8, 24
# Two corners that agree in more than this share of their coordinates start the same climb.
SAME = 0.9
# Secant pairs that are kept: as many as curvature directions count, fewer where they would take more than a gigabyte.
PAIRS, ROOM = 24, 1 << 30
# Starts of the search in the model, and coordinates up to which it also flips single ones: with more, one counts for nothing.
DRAWS, FLIPPED = 128, 256


class Secants:
    """A quadratic model of f around the centre, from gradients at corners: f(0) + g0.u + u.B u / 2.

    With the corners in the columns of U and the changes of the gradient in those of Y, B = Y (U^T Y)^+ Y^T restricted to the
    positive eigenvalues of U^T Y: the Nyström approximation of the Hessian, exact for a convex quadratic once U has full rank.
    Directions of little curvature are missing; which corner is the best is decided by the others.

    Args:
        slope: (P,) g0, the gradient at the centre.
    """

    def __init__(self, slope: Float[Tensor, " P"]) -> None:
        self.slope = slope
        self.most = min(PAIRS, ROOM // (len(slope) * (1 + slope.element_size())))
        self._corners: list[Tensor] = []
        self._changes: list[Tensor] = []

    def add(self, u: Float[Tensor, " P"], gradient: Float[Tensor, " P"]) -> None:
        """Take in the gradient at a corner; the oldest pair makes room."""
        if self.most < 2:
            return
        if len(self._corners) == self.most:
            del self._corners[0], self._changes[0]
        self._corners.append(u.to(torch.int8))
        self._changes.append(gradient - self.slope)

    def best_corners(self, generator: torch.Generator) -> Iterator[Float[Tensor, " P"]]:
        """Corners that are best for their own gradients in the model, best first; none while there is no curvature.

        Cost: no evaluation; about 20 passes over the pairs for `DRAWS` starts at a time.
        """
        if len(self._corners) < 2:
            return
        changes = torch.stack(self._changes)
        crossed = gram(torch.stack(self._corners), changes)
        values, vectors = np.linalg.eigh((crossed + crossed.T) / 2)
        # What is smaller is made of rounding, which the division by it would bring to the fore.
        kept = values > np.sqrt(torch.finfo(changes.dtype).eps) * np.abs(values).max()
        if not kept.any():
            return
        root = torch.from_numpy(vectors[:, kept] / np.sqrt(values[kept])).to(changes)
        draws = torch.randn(root.shape[1], DRAWS, generator=generator).to(changes)
        # Only L^T u of a corner u is kept, with B = L L^T: it says all about it, since the next one is sign(g0 + L L^T u).
        inside, ends = draws, self._sweep(changes, root, draws, linear=False)[0]
        for _ in range(20):
            if torch.equal(ends, inside):
                break
            inside, (ends, linear) = ends, self._sweep(changes, root, ends)
        ends, linear = self._sweep(changes, root, inside)
        if changes.shape[1] <= FLIPPED:
            corners = _flip(self.slope, changes.T @ root, self._corner(changes, root, inside))
            linear, ends = self.slope @ corners, root.T @ (changes @ corners)
            order = (linear + ends.square().sum(0) / 2).argsort(descending=True, stable=True)
            yield from corners.T[order]
            return
        for j in (linear + ends.square().sum(0) / 2).argsort(descending=True, stable=True).tolist():
            yield self._corner(changes, root, inside[:, j])

    def _corner(self, changes: Tensor, root: Tensor, inside: Float[Tensor, "r ..."]) -> Float[Tensor, "P ..."]:
        """sign(g0 + L a) for each column a."""
        steep = changes.T @ (root @ inside)
        return torch.sign(steep + (self.slope if steep.ndim == 1 else self.slope[:, None]))

    def _sweep(self, changes: Tensor, root: Tensor, inside: Tensor, linear: bool = True) -> tuple[Tensor, Tensor]:
        """L^T u and g0.u of the corners u = sign(g0 + L a), a few columns of the pairs at a time."""
        across, along = torch.zeros_like(inside), torch.zeros_like(inside[0])
        turned = root @ inside
        for columns in column_chunks(changes.shape[1], 1 << 14):
            part, slope = changes[:, columns], self.slope[columns]
            steep = part.T @ turned
            u = torch.sign(steep + slope[:, None] if linear else steep)
            across += root.T @ (part @ u)
            along += slope @ u
        return across, along


def _flip(
    slope: Float[Tensor, " P"], root: Float[Tensor, "P r"], corners: Float[Tensor, "P n"]
) -> Float[Tensor, "P n"]:
    """Flip the best single coordinate of each corner while that raises g0.u + |L^T u|^2 / 2."""
    corners, rows = torch.where(corners == 0, 1, corners), torch.arange(corners.shape[1], device=corners.device)
    own = root.square().sum(1)[:, None]
    for _ in range(2 * len(slope)):
        gains = 2 * (own - corners * (slope[:, None] + root @ (root.T @ corners)))
        gain, at = gains.max(0)
        rising = gain > 1e-12 * gains.abs().max()
        if not rising.any():
            break
        corners[at[rising], rows[rising]] *= -1
    return corners


def corner_search(
    search: Search,
    region: Region,
    slope: Float[Tensor, " P"],
    starts: Iterable[tuple[str, Tensor]],
    generator: torch.Generator,
    jumps: int,
    tol: float,
    run: Callable[[str, Callable[[], None]], None],
) -> None:
    """Climb from corner to corner out of many starts, until `PATIENCE` climbs in a row have brought nothing.

    First the given starts, then by turns the best corner of the model that is not near a known one, and a random corner. The
    mirror image of the best end so far is tried as soon as it is new: what tells it apart are the odd orders alone.

    Args:
        slope: gradient at the centre in unit coordinates.
        starts: (name, u).
        jumps, tol: of `vertex_ascent`; a climb that raises the growth by no more than this share has brought nothing.
        run: does a climb under a name, and keeps the books.
    """
    secants = Secants(slope)
    known: list[Tensor] = []

    def climb(name: str, u: Tensor) -> None:
        ends: list[Tensor] = []
        run(name, lambda: ends.append(vertex_ascent(search, region, u, jumps, tol, secants.add)))
        known.extend(v.to(torch.int8) for v in (u, *ends))

    def new(u: Tensor) -> bool:
        signs = u.to(torch.int8)
        return all(float((signs == v).float().mean()) < SAME for v in known)

    for name, u in starts:
        climb(name, u)
    vain = done = 0
    while vain < PATIENCE and done < MOST:
        before = search.best
        mirror = -torch.sign(search.point)
        if new(mirror):
            climb("the mirror image of the best", mirror)
        else:
            name, u = f"random {done}", region.random(generator, search.dtype, search.device)
            if done % 2:
                led = next((v for v in secants.best_corners(generator) if new(v)), None)
                name, u = (name, u) if led is None else (f"model {done}", led)
            climb(name, u)
        done += 1
        vain = 0 if search.best - before > tol * (search.best - search.base) else vain + 1
