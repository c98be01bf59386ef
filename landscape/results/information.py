"""Mutual information of a network's layers with its inputs and its labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from landscape.machine.json_values import finite_or_none, number_or_nan
from landscape.results.drawing import drawing, panels
from landscape.results.printed import Cells, Printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROUNDING = 0.05  # bits; the random error of knn


@dataclass(frozen=True, slots=True)
class MutualInformation:
    """What a layer T shares with the inputs X and with the labels Y, in bits, by one estimator.

    Attributes:
        inputs: I(T; X), at most log2 of the number of samples.
        labels: I(T; Y), at most H(Y); None without labels.
    """

    inputs: float
    labels: float | None = None


@dataclass(frozen=True)
class LayerInformation:
    """The mutual information of one layer by one estimator.

    Attributes:
        layer: name of the module, or "output" for what the loss takes; ":2" for the second call of a module.
        units: number of values of the layer for one sample.
        estimator: name of the estimator.
        whole: from all samples.
        half: from a random half of the samples. A number that depends on the number of samples differs from `whole`: it
            describes the samples, not the population.
    """

    layer: str
    units: int
    estimator: str
    whole: MutualInformation
    half: MutualInformation

    def row(self) -> tuple[str, ...]:
        """Cells of a table: layer, units, estimator, I(T; X) and I(T; Y), each with the value from half of the samples."""
        pairs = ((self.whole.inputs, self.half.inputs), (self.whole.labels, self.half.labels))
        cells = (text for pair in pairs for text in ("" if value is None else f"{value:.3f}" for value in pair))
        return (self.layer, str(self.units), self.estimator, *cells)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; bits that are not finite are null."""
        own = {"layer": self.layer, "units": self.units, "estimator": self.estimator}
        for name in ("inputs", "labels"):
            whole, half = getattr(self.whole, name), getattr(self.half, name)
            own[name] = None if whole is None else {"value": finite_or_none(whole), "half": finite_or_none(half)}
        return own

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "LayerInformation":
        """Inverse of `to_json`."""
        whole, half = (
            MutualInformation(*(None if data[n] is None else number_or_nan(data[n][key]) for n in ("inputs", "labels")))  # type: ignore[arg-type]  # inputs are always there
            for key in ("value", "half")
        )
        return cls(data["layer"], data["units"], data["estimator"], whole, half)


@dataclass(frozen=True)
class Information(Printed):
    """Mutual information of layers with inputs and labels: a network's place in the information plane.

    Attributes:
        rows: one for each layer and estimator, layers in the order in which they run.
        samples: number of samples N.
        label_entropy: H(Y) in bits, the largest possible I(T; Y); None if the targets are no class labels.
        settings: of the estimators: bins, noise variance, neighbours, copies.
        provenance: how the numbers were made.
    """

    rows: tuple[LayerInformation, ...]
    samples: int
    label_entropy: float | None
    settings: Mapping[str, float]
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    HEAD = ("layer", "units", "estimator", "I(T;X) bits", "from half", "I(T;Y) bits", "from half")

    @property
    def largest(self) -> float:
        """log2 N, which no estimate of I(T; X) from N samples exceeds."""
        return math.log2(self.samples)

    def notes(self) -> list[str]:
        """What to know before trusting the numbers, one line each."""
        labels = "" if self.label_entropy is None else f"; H(Y) = {self.label_entropy:.3f} bits"
        lines = [f"{self.samples} samples: at most log2 N = {self.largest:.2f} bits{labels}"]
        low = {row.layer: row.whole.inputs for row in self.rows if row.estimator == "kde_lower"}
        under = [r.layer for r in self.rows if r.estimator == "knn" and r.whole.inputs < low.get(r.layer, 0.0) - _ROUNDING]
        if under:
            lines.append(f"knn of {_some(under)} is below kde_lower, a lower bound: too many dimensions for neighbours")
        full = list(dict.fromkeys(row.layer for row in self.rows if row.whole.inputs > 0.95 * self.largest))
        if full:
            lines.append(f"I(T;X) of {_some(full)} is within 5 % of log2 N: it counts the samples, not what the layer keeps")
        lines.append("no interval: the bias from the number of samples exceeds the sampling error; compare with `from half`")
        return lines

    @drawing
    def plot(self, axes: "Sequence[Axes] | None" = None, *, caption: bool = False) -> "list[Axes]":
        """Draw what each layer tells of the inputs and of the labels, a panel for each kind of estimator."""
        found: list[Axes] = panels(self, axes, caption)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {
            "samples": self.samples,
            "largest": self.largest,
            "label_entropy": self.label_entropy,
            "settings": dict(self.settings),
            "layers": [row.to_json() for row in self.rows],
            "notes": self.notes(),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Information":
        """Inverse of `to_json`."""
        rows = tuple(LayerInformation.from_json(row) for row in data["layers"])
        return cls(rows, data["samples"], data["label_entropy"], data["settings"], data["provenance"])

    def cells(self) -> Cells:
        """One row per layer and estimator, then what to know before trusting them."""
        return Cells(self.HEAD, [row.row() for row in self.rows], after=self.notes())

    def records(self) -> list[Mapping[str, Any]]:
        """One row per layer and estimator, in bits."""
        return [
            {"layer": r.layer, "units": r.units, "estimator": r.estimator, "inputs": r.whole.inputs, "labels": r.whole.labels}
            | {"inputs_half": r.half.inputs, "labels_half": r.half.labels}
            for r in self.rows
        ]


def _some(names: list[str]) -> str:
    """The first names of a list."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
