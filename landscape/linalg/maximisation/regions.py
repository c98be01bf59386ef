"""The sets over which a function is maximised, in coordinates that make them a unit box or a unit ball."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.linalg.probes import random_rows
from landscape.linalg.products import norm

# A coordinate this close to its bound counts as at the bound: some rounding errors of float32, far below relevant radii.
EDGE = 1e-6


@runtime_checkable
class Region(Protocol):
    """Operations on a set that the ascent methods use; u is a point in its unit coordinates, g the gradient in u."""

    name: str
    dim: int

    def project(self, u: Tensor) -> Tensor:
        """Nearest point of the set."""

    def vertex(self, g: Tensor, u: Tensor) -> Tensor:
        """Point of the set with the largest inner product with g; coordinates with g = 0 stay at u."""

    def free(self, u: Tensor, g: Tensor) -> Callable[[Tensor], Tensor]:
        """Projector onto the directions that neither leave the set at u nor are pushed against its boundary by g."""

    def multiplier(self, u: Tensor, g: Tensor) -> float:
        """Lagrange multiplier of a curved boundary at u: the weight of the boundary's curvature in the Lagrangian's."""

    def random(self, generator: torch.Generator, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """A random extreme point."""


def unit(g: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """g / ||g||, safe if the square of an entry overflows; 0 for 0."""
    largest = g.abs().max()
    if largest == 0:
        return g
    g = g / largest
    return g / norm(g)


class Box:
    """|u_i| <= 1."""

    name = "box"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def project(self, u: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        return u.clamp(-1, 1)

    def vertex(self, g: Float[Tensor, " P"], u: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        return torch.where(g == 0, u, torch.sign(g))

    def free(self, u: Float[Tensor, " P"], g: Float[Tensor, " P"]) -> Callable[[Tensor], Tensor]:
        pressed = ((u >= 1 - EDGE) & (g > 0)) | ((u <= EDGE - 1) & (g < 0))
        return lambda v: v.masked_fill(pressed, 0)

    def multiplier(self, u: Float[Tensor, " P"], g: Float[Tensor, " P"]) -> float:
        return 0.0

    def random(self, generator: torch.Generator, dtype: torch.dtype, device: torch.device | str) -> Float[Tensor, " P"]:
        return random_rows(1, self.dim, "rademacher", generator, dtype, device)[0]


class Ball:
    """||u|| <= 1."""

    name = "ball"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def project(self, u: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        length = norm(u)
        return u / length if length > 1 else u

    def vertex(self, g: Float[Tensor, " P"], u: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        return u if not g.any() else unit(g)

    def free(self, u: Float[Tensor, " P"], g: Float[Tensor, " P"]) -> Callable[[Tensor], Tensor]:
        if not self._pressed(u, g):
            return lambda v: v
        normal = unit(u)
        return lambda v: v - torch.dot(v, normal) * normal

    def multiplier(self, u: Float[Tensor, " P"], g: Float[Tensor, " P"]) -> float:
        return float(torch.dot(g, u)) if self._pressed(u, g) else 0.0

    def random(self, generator: torch.Generator, dtype: torch.dtype, device: torch.device | str) -> Float[Tensor, " P"]:
        return unit(random_rows(1, self.dim, "gaussian", generator, dtype, device)[0])

    def _pressed(self, u: Tensor, g: Tensor) -> bool:
        """Whether u is on the sphere and g points outward."""
        return norm(u) >= 1 - EDGE and bool(torch.dot(g, u) > 0)
