"""The cost of a computation, in passes over the data."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any, Literal


@dataclass
class Spent:
    """Passes over the data by kind; `seconds` converts them to time.

    Attributes:
        forwards: forward passes.
        gradients: forward and backward passes.
        sweeps: passes that build the graph for curvature products, for any number of vectors.
        products: Hessian-, Gauss-Newton- or Fisher-vector products.
    """

    forwards: float = 0
    gradients: float = 0
    sweeps: float = 0
    products: float = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def counting(
        self, network: Callable[[Any], Any], samples: int, kind: Literal["forwards", "gradients"] = "forwards"
    ) -> Callable[[Any], Any]:
        """The function, with its passes counted here; a call on part of the samples counts as that fraction."""

        def counted(x: Any) -> Any:
            setattr(self, kind, getattr(self, kind) + len(x) / samples)
            return network(x)

        return counted

    def seconds(self, each: "Spent") -> float:
        """Total time in seconds; `each` holds the seconds of one pass of each kind."""
        return sum(a * b for a, b in zip(astuple(self), astuple(each), strict=True))
