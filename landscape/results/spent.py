"""What a computation cost, in passes over the data."""

from dataclasses import astuple, dataclass


@dataclass
class Spent:
    """Passes over the data; multiply by what one takes on a machine to get seconds.

    Attributes:
        forwards: forward passes.
        gradients: forward and backward.
        sweeps: passes that build the graph for curvature products, whatever the number of vectors.
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

    def __matmul__(self, seconds: "Spent") -> float:
        """Seconds, where `seconds` holds what one of each takes."""
        return sum(a * b for a, b in zip(astuple(self), astuple(seconds), strict=True))
