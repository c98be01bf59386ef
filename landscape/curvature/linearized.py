"""A batch's outputs as a linear function of the weights: products J^T W J v from one graph, for any number of vectors."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from landscape.curvature.reverse_mode import pusher, vjp


@dataclass(frozen=True, eq=False)
class Linearized:
    """The graph of one batch's outputs f, and of J^T u for any u, J = df / d weights.

    Attributes:
        leaves: the weights.
        output: f: the network's outputs, or the losses of the samples.
        push: v -> J v.
        weigh: W, a symmetric map of what has the shape of f.
        share: the batch's share of the mean.
    """

    leaves: dict[str, Tensor]
    output: Tensor
    push: Callable[[dict[str, Tensor]], Tensor]
    weigh: Callable[[Tensor], Tensor]
    share: float

    @classmethod
    def of(cls, leaves: dict[str, Tensor], output: Tensor, weigh: Callable[[Tensor], Tensor], share: float) -> "Linearized":
        """With J v by reverse over reverse."""
        return cls(leaves, output, pusher(output, leaves), weigh, share)

    def product(self, v: dict[str, Tensor]) -> dict[str, Tensor]:
        """J^T W J v. Cost: some 5 forward passes of the batch."""
        return vjp({"output": self.output}, self.leaves, {"output": self.weigh(self.push(v))})
