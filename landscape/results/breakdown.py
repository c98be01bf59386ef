"""Curvature by layer and by filter."""

from dataclasses import dataclass
from typing import Any

from landscape.results.estimate import Estimate


@dataclass(frozen=True)
class Block:
    """One diagonal block of the Hessian: the weights of a layer, or of one of its filters or neurons.

    Attributes:
        layer: name of the module; "" for the network itself.
        filter: index of the filter or neuron; None for the whole layer.
        weights: number of weights in the block.
        trace: trace of the block; the traces of all layers sum to the trace of the Hessian.
        lambda_max: largest eigenvalue of the block, at most that of the Hessian.
    """

    layer: str
    filter: int | None
    weights: int
    trace: Estimate
    lambda_max: Estimate

    @property
    def name(self) -> str:
        """Name of the layer, with the filter's index in brackets."""
        return (self.layer or "(model)") + ("" if self.filter is None else f"[{self.filter}]")

    def row(self) -> tuple[str, ...]:
        """Cells of a table: name, weights, trace and its error, largest eigenvalue and its error."""
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
