"""The measures of one checkpoint, as `landscape sharpness` prints and writes them."""

import html
import math
from dataclasses import dataclass, field
from typing import Any

from landscape.machine.json_values import finite_or_none
from landscape.results.estimate import Estimate
from landscape.results.stationarity import Stationarity

HEAD = ("measure", "value", "method (95 %)", "data (95 %, or sd)", "fakeable", "unit")
LEGEND = (
    "method: error of the computation (random probes, iterations). data: sampling error, a 95 % interval for the value on the "
    "population that the samples were drawn from, at these weights, with the method's error included. sd: standard deviation "
    "over such samples, for a maximum, which is biased upwards and has no interval. "
    "fakeable: rescaling the weights can change this number although the network's function stays the same."
)


@dataclass(frozen=True)
class Measurement:
    """One measure of one network: an Estimate, its unit, its invariance and its cost.

    Attributes:
        estimate: the value and the error of the method (probes, iterations, maximisation).
        unit: unit of the value, e.g. "loss / weight^2".
        invariant_to: the rescalings that provably leave it unchanged, out of "layer" and "node"; empty if rescaling can change
            it.
        matvecs, gradients, forwards: curvature products, gradients and forward passes; work that several measures share is
            counted for the first of them.
        seconds: wall time.
        settings: radius, steps, restarts, probes and so on, by name.
        definition, reference: one line each, for citing the number.
    """

    estimate: Estimate
    unit: str
    invariant_to: tuple[str, ...]
    matvecs: int = 0
    seconds: float = 0.0
    gradients: int = 0
    forwards: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    definition: str = ""
    reference: str = ""

    @property
    def defined(self) -> bool:
        """Whether the measure is defined for this network; if not, the estimate has the reason."""
        return not math.isnan(self.estimate.value)

    @property
    def mark(self) -> str:
        """ "yes" if some rescaling can change the value, "node-wise" if only a neuron-wise one can, else "no"."""
        if "node" in self.invariant_to:
            return "no"
        return "node-wise" if "layer" in self.invariant_to else "yes"

    def to_json(self) -> dict[str, Any]:
        """The Estimate's keys and those of the measure. `interval` is the method's 95 % interval, None at an open end.

        `data_stderr` and "sampling" describe the sampling error: {"kind", "stderr", "interval", "n", "skew", "carried_by",
        "floor", "ceiling"}, see `Sampling`; that interval includes the method's error.
        """
        bounds = self.estimate.interval()
        return self.estimate.to_json() | {
            "unit": self.unit,
            "invariant_to": list(self.invariant_to),
            "matvecs": self.matvecs,
            "gradients": self.gradients,
            "forwards": self.forwards,
            "seconds": round(self.seconds, 4),
            "settings": self.settings,
            "definition": self.definition,
            "reference": self.reference,
            "interval": None if bounds is None else [finite_or_none(b) for b in bounds],
            "data_stderr": finite_or_none(self.estimate.data_stderr),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Measurement":
        """Inverse of `to_json`."""
        own = {
            k: data[k]
            for k in ("unit", "matvecs", "seconds", "gradients", "forwards", "settings", "definition", "reference")
            if k in data
        }
        return cls(Estimate.from_json(data), invariant_to=tuple(data["invariant_to"]), **own)


@dataclass(frozen=True)
class Sharpness:
    """All measures of one network on one data set. Prints as a table, or as HTML in a notebook.

    Attributes:
        loss, accuracy: at the checkpoint, with the standard error over samples; accuracy is None if the task has no metric.
        measures: name -> Measurement, in the order requested.
        samples: number of samples used.
        checkpoint, sha256: the file and the digest of its bytes; None for a network in memory.
        task: name of the task.
        provenance: seed, dtype, device, versions, settings.
        minimum: evidence on whether the weights are at a minimum; None if no measure needed derivatives.
        directions: eigenvectors that were computed, as initial guesses for a similar checkpoint; not in the JSON.
    """

    loss: Estimate
    accuracy: Estimate | None
    measures: dict[str, Measurement]
    samples: int
    checkpoint: str | None = None
    sha256: str | None = None
    task: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    minimum: Stationarity | None = None
    directions: object = field(default=None, repr=False, compare=False)

    def __getitem__(self, name: str) -> Estimate:
        return self.measures[name].estimate

    @property
    def unconverged(self) -> list[str]:
        """Names of the measures that did not converge."""
        return [name for name, m in self.measures.items() if not m.estimate.converged]

    def rows(self) -> list[tuple[str, ...]]:
        """Cells under `HEAD`, one row per measure."""
        out: list[tuple[str, ...]] = []
        for name, m in self.measures.items():
            e = m.estimate
            value, doubt = f"{e.value:.5g}", e.doubt()
            if not e.converged:
                doubt = f"NOT CONVERGED: {e.reason}"
            elif not m.defined:
                value, doubt = "–", "not defined"
            data = e.data_doubt()
            if m.defined and e.kind in ("samples", "proportion"):  # there is only sampling error
                doubt = e.reason or "exact"
            elif m.defined and e.kind == "exact":
                doubt = "exact"
            out.append((name, value, doubt, data, m.mark if m.defined else "", m.unit))
        return out

    def reasons(self) -> list[str]:
        """Why the weights are not at a minimum, if so; then one line for each measure that is not defined for this network."""
        out = [f"{name}: {m.estimate.reason}" for name, m in self.measures.items() if not m.defined and m.estimate.converged]
        line = None if self.minimum is None else self.minimum.line()
        return out if line is None else [line, *out]

    def centre(self) -> str:
        """Loss and accuracy at the checkpoint in one line."""
        text = f"loss {self.loss.value:.5g} {self.loss.doubt()}"
        if self.accuracy is not None:
            low, high = self.accuracy.interval() or (0.0, 1.0)
            text += f", accuracy {100 * self.accuracy.value:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"
        return f"{text} on {self.samples} samples"

    def __str__(self) -> str:
        return "\n".join((self.centre(), *aligned([HEAD, *self.rows()]), *self.reasons(), LEGEND))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{h}</th>" for h in HEAD)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self.rows())
        why = "".join(f"<p>{html.escape(reason)}</p>" for reason in self.reasons())
        return f"<p>{html.escape(self.centre())}</p><table><tr>{head}</tr>{body}</table>{why}<p>{html.escape(LEGEND)}</p>"

    def to_json(self) -> dict[str, Any]:
        """One entry of the "results" list of the command line's JSON."""
        return {
            "checkpoint": self.checkpoint,
            "sha256": self.sha256,
            "task": self.task,
            "samples": self.samples,
            "loss": self.loss.to_json(),
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
            "measures": {name: m.to_json() for name, m in self.measures.items()},
            "minimum": None if self.minimum is None else self.minimum.to_json(),
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Sharpness":
        """Inverse of `to_json`."""
        return cls(
            loss=Estimate.from_json(data["loss"]),
            accuracy=None if data["accuracy"] is None else Estimate.from_json(data["accuracy"]),
            measures={name: Measurement.from_json(m) for name, m in data["measures"].items()},
            minimum=None if data.get("minimum") is None else Stationarity.from_json(data["minimum"]),
            **{k: data[k] for k in ("samples", "checkpoint", "sha256", "task", "provenance")},
        )


def aligned(table: list[tuple[str, ...]]) -> list[str]:
    """Rows of cells as lines of plain text with aligned columns."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
