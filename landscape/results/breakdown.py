"""Curvature layer by layer and filter by filter."""

from dataclasses import dataclass
from typing import Any

from landscape.results.estimate import Estimate


@dataclass(frozen=True)
class Block:
    """One diagonal block of the Hessian: the weights of a layer, or of one of its filters or neurons.

    Attributes:
        layer: name of the module; "" for the network itself.
        filter: number of the filter or neuron; None for the whole layer.
        weights: how many weights the block has.
        trace: sum of its diagonal; traces of the layers add up to the Hessian's.
        lambda_max: its largest eigenvalue, at most the Hessian's.
    """

    layer: str
    filter: int | None
    weights: int
    trace: Estimate
    lambda_max: Estimate

    @property
    def name(self) -> str:
        """Layer, and filter in brackets."""
        return (self.layer or "(model)") + ("" if self.filter is None else f"[{self.filter}]")

    def row(self) -> tuple[str, ...]:
        """Cells of a table: name, weights, trace, its doubt, largest eigenvalue, its doubt."""
        trace, top = self.trace, self.lambda_max
        doubt = top.doubt() if top.converged else f"NOT CONVERGED: {top.reason}"
        return (self.name, str(self.weights), f"{trace.value:.5g}", trace.doubt(), f"{top.value:.5g}", doubt)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        own = {"layer": self.layer, "filter": self.filter, "weights": self.weights}
        return own | {"trace": self.trace.to_json(), "lambda_max": self.lambda_max.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Block":
        """Inverse of `to_json`."""
        estimates = (Estimate.from_json(data[key]) for key in ("trace", "lambda_max"))
        return cls(data["layer"], data.get("filter"), data["weights"], *estimates)
