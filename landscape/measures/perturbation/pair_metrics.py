"""The two published metrics of pairs: their units, horizontal directions and geodesics, in coordinates that no matrix moves.

A pair is G (m x h) and H (n x h), used only as G H^T: (G A^-1, H A^T) is the same function for every invertible A. In
orthonormal bases U, V of the column spaces, which A leaves alone, G = U R and H = V T. A direction is written as
(Z_G S_G, Z_H S_H), with S_G = R, S_H = T for the metric inv and S_G = T^-T, S_H = R^-T for mix: its squared norm is then
||Z_G||^2 + ||Z_H||^2, and all that follows depends on U, V and C = T R^T, which A does not change either.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from landscape.measures.registry import NotDefined
from landscape.measures.running.coordinates import Coordinates
from landscape.measures.traced_network import known_symmetries
from landscape.network.parameters import Layout
from landscape.objective import Objective
from landscape.symmetry.mixing.mixtures import Mixing

Metric = Literal["inv", "mix"]


@dataclass(frozen=True, eq=False)
class Pair:
    """One pair in a metric, in float64.

    Attributes:
        first, second: positions of G and H in the vector of weights.
        u, v: orthonormal bases of their column spaces.
        first_unit, second_unit: S_G and S_H.
        c: C.
        metric: "inv" or "mix".
        p, q, ratio: bases of the h channels in which the directions that keep the function are, one for each i and j, the
            element ij of G by 1 together with the element ji of H by -ratio_ij.
    """

    first: Int[Tensor, "m h"]
    second: Int[Tensor, "n h"]
    u: Float[Tensor, "m h"]
    v: Float[Tensor, "n h"]
    first_unit: Float[Tensor, "h h"]
    second_unit: Float[Tensor, "h h"]
    c: Float[Tensor, "h h"]
    metric: Metric
    p: Float[Tensor, "h h"]
    q: Float[Tensor, "h h"]
    ratio: Float[Tensor, "h h"]

    def horizontal(self, z_first: Tensor, z_second: Tensor) -> tuple[Tensor, Tensor]:
        """The part of a direction (..., m, h), (..., n, h) that is orthogonal to all (-G W, H W^T), which keep the function."""
        u, v, p, q = self.u, self.v, self.p, self.q
        a, b = q.mT @ (u.mT @ z_first) @ q, p.mT @ (v.mT @ z_second) @ p
        excess = (a - self.ratio * b.mT) / (1 + self.ratio**2)
        return z_first - u @ (q @ excess @ q.mT), z_second + v @ (p @ (self.ratio * excess).mT @ p.mT)

    def arrival(self, z_first: Tensor, z_second: Tensor) -> tuple[Tensor, Tensor]:
        """Change of G and H after unit time on the geodesic that starts so, to second order: x - Gamma(x, x) / 2."""
        u, v, x, y = self.u, self.v, z_first, z_second
        if self.metric == "inv":
            bend_first = u @ (x.mT @ x) - x @ (x.mT @ u + u.mT @ x)
            bend_second = v @ (y.mT @ y) - y @ (y.mT @ v + v.mT @ y)
        else:
            inverse = torch.linalg.inv(self.c)
            bend_first = x @ inverse.mT @ y.mT @ v + (x @ v.mT @ y - u @ (y.mT @ y)) @ inverse
            bend_second = y @ inverse @ x.mT @ u + (y @ u.mT @ x - v @ (x.mT @ x)) @ inverse.mT
        return (x - bend_first / 2) @ self.first_unit, (y - bend_second / 2) @ self.second_unit


@dataclass(frozen=True, eq=False)
class Geometry:
    """A metric on all weights: the published one on pairs, d_i^2 / w_i^2 on every other weight."""

    theta: Float[Tensor, " P"]
    scale: Float[Tensor, " P"]  # |w|, and 0 in pairs
    pairs: tuple[Pair, ...]
    metric: Metric
    rotary: bool  # whether a pair allows fewer matrices than all

    def spread(self, z: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        """Coordinates to directions."""
        return self._mapped(z, lambda pair, x, y: (x @ pair.first_unit, y @ pair.second_unit), self.scale)

    def gather(self, g: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        """The transpose of `spread`."""
        return self._mapped(g, lambda pair, x, y: (x @ pair.first_unit.mT, y @ pair.second_unit.mT), self.scale)

    def horizontal(self, z: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        """Projection of coordinates onto directions that change the function; symmetric."""
        return self._mapped(z, Pair.horizontal, torch.ones_like(self.scale))

    def point(self, z: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """The weights that the geodesic along the horizontal part of z reaches in unit time, to second order."""
        return self.theta + self._mapped(self.horizontal(z), Pair.arrival, self.scale)

    def coordinates(self, horizontal: bool = False) -> Coordinates:
        """B, for the trace of the Hessian in this metric; or B on horizontal directions only."""
        mark = ("geodesic", self.metric, horizontal)
        if not horizontal:
            return Coordinates(len(self.theta), self.spread, self.gather, mark, None)
        return Coordinates(
            len(self.theta), lambda z: self.spread(self.horizontal(z)), lambda g: self.horizontal(self.gather(g)), mark, None
        )

    def _mapped(
        self, z: Tensor, of_pair: Callable[[Pair, Tensor, Tensor], tuple[Tensor, Tensor]], scale: Float[Tensor, " P"]
    ) -> Tensor:
        """A map that acts on each pair by itself, in float64, and multiplies every other coordinate."""
        places, values = [], []
        for pair in self.pairs:
            moved = of_pair(pair, z[..., pair.first].double(), z[..., pair.second].double())
            for at, value in zip((pair.first, pair.second), moved, strict=True):
                places.append(at.flatten())
                values.append(value.flatten(-2).to(z.dtype))
        return (scale * z).index_copy(-1, torch.cat(places), torch.cat(values, -1))


def geometry(objective: Objective, metric: Metric) -> Geometry:
    """The metric of the pairs that are found in the network.

    Raises:
        NotDefined: the network has no pair or cannot be read; or as `geometry_of`.
    """
    return geometry_of(objective, known_symmetries(objective).mixings, metric)


def geometry_of(objective: Objective, mixings: tuple[Mixing, ...], metric: Metric) -> Geometry:
    """The metric of these pairs.

    Raises:
        NotDefined: there is no pair; a weight is in two; some of a pair's weights are fixed; or a factor has no full rank.
    """
    pairs = [mixing for mixing in mixings if mixing.family == "pair"]
    if not pairs:
        raise NotDefined("expected a pair of linear maps with nothing between them, found none")
    theta = objective.theta
    found = tuple(_pair(mixing, objective.layout, theta, metric) for mixing in pairs)
    places = torch.cat([at.flatten() for pair in found for at in (pair.first, pair.second)])
    if len(places.unique()) < len(places):
        raise NotDefined("expected pairs that share no weight, found a weight in two; the published metrics are for one pair")
    scale = theta.abs()
    scale[places] = 0.0
    return Geometry(theta, scale, found, metric, any(pair.group == "rotary" for pair in pairs))


def _pair(mixing: Mixing, layout: Layout, theta: Tensor, metric: Metric) -> Pair:
    """The bases and units of one pair."""
    start = {entry.name: entry.start for entry in layout}
    if fixed := [rows.name for rows in mixing.rows if rows.name not in start]:
        raise NotDefined(f"expected all weights of a pair among those that vary, found {fixed[0]} fixed")
    indices = [
        torch.cat([start[rows.name] + rows.index for rows in mixing.rows if rows.inverse == inverse]).to(theta.device)
        for inverse in (True, False)
    ]
    bases, factors = [], []
    for index in indices:
        matrix = theta[index].double()
        singular = torch.linalg.svdvals(matrix)
        if len(index) < mixing.size or float(singular[-1]) <= 1e-6 * float(singular[0]):
            raise NotDefined(
                f"expected factors of rank {mixing.size}, found one of lower rank in {mixing.name}; the metric needs an inverse"
            )
        bases.append(_basis(matrix))
        factors.append(bases[-1].mT @ matrix)
    first, second = factors
    c = second @ first.mT
    if metric == "inv":
        units = first, second
        p, singular, q = torch.linalg.svd(c)
        ratio, q = singular[None, :] / singular[:, None], q.mT
    else:
        units = torch.linalg.inv(second).mT, torch.linalg.inv(first).mT
        p = q = torch.eye(mixing.size, dtype=c.dtype, device=c.device)
        ratio = torch.ones_like(c)
    return Pair(indices[0], indices[1], bases[0], bases[1], units[0], units[1], c, metric, p, q, ratio)


def _basis(matrix: Float[Tensor, "m h"]) -> Float[Tensor, "m h"]:
    """An orthonormal basis of the column space that depends on nothing else, so that the same probes are drawn on an orbit."""
    spanning = torch.linalg.qr(matrix).Q
    fixed = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype).to(matrix.device)
    basis, triangle = torch.linalg.qr(spanning @ (spanning.mT @ fixed))
    return basis * triangle.diagonal().sign()
