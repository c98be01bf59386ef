"""Products with a Hessian from differences of gradients: the step, and the error that it leaves."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import NumericalError
from landscape.sharded.local_weights import LocalWeights

# The step is looked for among START * 4^k, k = -REACH ... REACH.
_FACTOR, _REACH = 4.0, 4
# What D(h) - D(2h) is multiplied by: a third is the truncation error of D(h), and 1.2 times it the rounding error of (4 D(h) -
# D(2h)) / 3 if the difference is all rounding.
_BOTH = 1.25


class Product(NamedTuple):
    """A product Hv, the norm of its error, and v^T D(h) v of the plain difference that it was made from."""

    vector: Tensor
    error: float
    form: float


class DifferenceProducts:
    """Products D(h) v = ||v|| (g(theta + h u) - g(theta - h u)) / 2h, u = v / ||v||, with the Hessian at theta.

    The error of D(h) has a part that grows as h^2, from the fourth derivative of the loss, and one that falls as 1/h, from the
    rounding of the gradients. The step is the one of nine, a factor of 4 apart around eps^(1/3) ||theta||, at which two
    neighbours agree best for a random direction. It is chosen once.

    Args:
        gradient: theta -> g, both this process's parts.
        theta: this process's part of the point.
        weights: for norms.
        step: h; None to choose it.

    Raises:
        NumericalError: no step gives finite gradients.

    Attributes:
        name: "finite differences".
        step: h.
        count: products so far, two gradients each.

    Cost: two gradients a product, four with the error; eighteen for the choice. Memory: five vectors.

    Reference: the pair is Richardson's; Moré and Wild 2012, doi:10.1145/2168773.2168777, on the choice of a step.
    """

    name = "finite differences"

    def __init__(
        self,
        gradient: Callable[[Tensor], Tensor],
        theta: Float[Tensor, " own"],
        weights: LocalWeights,
        step: float | None = None,
    ) -> None:
        self._gradient, self._theta, self._weights = gradient, theta, weights
        self.count = 0
        self.dim, self.dtype, self.device = weights.dim, weights.dtype, weights.device
        self.step = self._chosen() if step is None else step

    def __call__(self, block: Float[Tensor, "k own"]) -> Float[Tensor, "k own"]:
        """D(h) of each row.

        Raises:
            NumericalError: a product is not finite, in any process.
        """
        rows = []
        for v in block:
            length = self._weights.norm(v)
            rows.append(torch.zeros_like(v) if length == 0 else self._difference(v, length, self.step))
            self.count += 1
            (finite,) = self._weights.dots((rows[-1], rows[-1]))
            if not finite < float("inf"):
                raise NumericalError(
                    f"expected finite products, found a value that is not finite in product {self.count}",
                    fix="check the loss at these weights, or use float64",
                )
        return torch.stack(rows)

    def with_error(self, v: Float[Tensor, " own"]) -> Product:
        """(4 D(h) - D(2h)) / 3, 1.25 ||D(h) - D(2h)|| as its error, and v^T D(h) v. Cost: four gradients."""
        length = self._weights.norm(v)
        if length == 0:
            return Product(torch.zeros_like(v), 0.0, 0.0)
        near, far = (self._difference(v, length, h) for h in (self.step, 2 * self.step))
        self.count += 2
        error = _BOTH * self._weights.norm(near - far)
        (form,) = self._weights.dots((v, near))
        return Product(near.mul_(4.0).sub_(far).div_(3.0), error, form)

    def _difference(self, v: Tensor, length: float, step: float) -> Tensor:
        """D(step) v."""
        move = v * (step / length)
        ahead = self._gradient(self._theta + move)
        ahead -= self._gradient(self._theta - move)
        return ahead.mul_(length / (2 * step))

    def _chosen(self) -> float:
        """The step at which neighbours agree best."""
        v = self._weights.random(0, "gaussian")
        length = self._weights.norm(v)
        start = float(torch.finfo(self.dtype).eps) ** (1 / 3) * max(self._weights.norm(self._theta), 1.0)
        best, chosen, before = float("inf"), 0.0, None
        for k in range(-_REACH, _REACH + 1):
            step = start * _FACTOR**k
            now = self._difference(v, length, step)
            if before is not None:
                apart = self._weights.norm(now - before)
                if apart < best:
                    best, chosen = apart, step / _FACTOR
            before = now
        if not chosen:
            raise NumericalError(
                "expected finite gradients near the weights, found none", fix="check the loss at these weights"
            )
        return chosen
