"""The measures at one step of a watched training run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landscape.machine.json_values import finite_or_none
from landscape.results.estimate import Estimate


@dataclass(frozen=True)
class Check:
    """The measures at one step of training.

    Attributes:
        step: as it was given to the watch.
        loss: mean loss of the probe batch, in eval mode.
        measures: name -> Estimate; "trace/LAYER" is the trace of one layer's block.
        edges: name -> the value above which the optimizer's steps diverge on a quadratic of that curvature, at the learning
            rate of this step. A measure without one is missing.
        seconds: time that the check took.
    """

    step: int
    loss: float
    measures: Mapping[str, Estimate]
    edges: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def row(self) -> dict[str, float]:
        """Loss, values and edges by name, for a logger: "lambda_max", "lambda_max/edge", ...; values may be nan."""
        out = {"loss": self.loss} | {name: e.value for name, e in self.measures.items()}
        return out | {f"{name}/edge": edge for name, edge in self.edges.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; values that are not finite are null."""
        return {
            "step": self.step,
            "loss": finite_or_none(self.loss),
            "measures": {name: e.to_json() for name, e in self.measures.items()},
            "edges": {name: finite_or_none(edge) for name, edge in self.edges.items()},
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Check":
        """Inverse of `to_json`; an edge that was not finite is missing."""
        return cls(
            data["step"],
            np.nan if data["loss"] is None else float(data["loss"]),
            {name: Estimate.from_json(e) for name, e in data["measures"].items()},
            {name: float(edge) for name, edge in data["edges"].items() if edge is not None},
            data["seconds"],
        )


@dataclass(frozen=True)
class Alarm:
    """A measure above its edge, by more than its error.

    Attributes:
        step: of the first check at which it was.
        name: of the measure.
        value, edge: at that check.
        counted: what `step` counts.
    """

    step: int
    name: str
    value: float
    edge: float
    counted: str = "step"

    def __str__(self) -> str:
        return f"{self.counted} {self.step}: {self.name} {self.value:.4g} is above its edge {self.edge:.4g}"
