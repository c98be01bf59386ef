"""Coordinates in which a matrix over the weights is measured: a linear map B from coordinates to weights, and B^T A B."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Coordinates:
    """A matrix B (P x dim), given by its products; measures are then those of B^T A B (dim x dim).

    Attributes:
        dim: number of coordinates.
        spread: c -> B c, for one vector (dim,) or several (k, dim).
        gather: g -> B^T g, for (P,) or (k, P).
        mark: what tells B from others of the same Objective, in the cache.
        name: by which a B of another checkpoint is recognized, whose eigenvectors may start a Lanczos run; None: none is.
    """

    dim: int
    spread: Callable[[Float[Tensor, "*k d"]], Float[Tensor, "*k P"]]
    gather: Callable[[Float[Tensor, "*k P"]], Float[Tensor, "*k d"]]
    mark: object
    name: str | None
