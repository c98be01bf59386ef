"""What was measured through a training run, check by check."""

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import UsageError
from landscape.machine.files import write
from landscape.machine.json_values import finite_or_none
from landscape.results.drawing import drawn, plotted
from landscape.results.estimate import Estimate

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes


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
    """

    step: int
    name: str
    value: float
    edge: float

    def __str__(self) -> str:
        return f"step {self.step}: {self.name} {self.value:.4g} is above its edge {self.edge:.4g}"


@dataclass(frozen=True, eq=False)
class WatchHistory:
    """Measures through a training run. Prints as a table, or as HTML in a notebook; draws, and exports to xarray and CSV.

    Attributes:
        checks: in the order of the steps.
        units: name of a measure -> its unit.
        optimizer: name and settings of the optimizer, e.g. "SGD, lr 0.02"; "" if none was given.
        remarks: why an edge or a measure is missing, a line each.
        seconds: time spent on watching, with its preparation.
        total: time from the start of watching to this history; 0 for checkpoints that were measured after training.
        budget: the share of the time that watching may take; None if it is not limited.
        every: steps between the next two checks, which a budget may have raised.
        provenance: samples, dtype, device, seed, versions.
    """

    checks: tuple[Check, ...]
    units: Mapping[str, str] = field(default_factory=dict)
    optimizer: str = ""
    remarks: tuple[str, ...] = ()
    seconds: float = 0.0
    total: float = 0.0
    budget: float | None = None
    every: int = 1
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.checks)

    @property
    def steps(self) -> np.ndarray:
        """(n,) steps of the checks."""
        return np.array([c.step for c in self.checks], dtype=np.int64)

    @property
    def losses(self) -> np.ndarray:
        """(n,) loss of the probe batch."""
        return np.array([c.loss for c in self.checks])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the measures, in order."""
        return tuple(dict.fromkeys(name for c in self.checks for name in c.measures))

    def estimates(self, name: str) -> list[Estimate | None]:
        """A measure at every check; None where it was not measured.

        Raises:
            UsageError: no such measure.
        """
        if name not in self.names:
            raise UsageError(f"expected a measure of this history, found {name!r}", fix=f"it has {', '.join(self.names)}")
        return [c.measures.get(name) for c in self.checks]

    def values(self, name: str) -> np.ndarray:
        """(n,) values of a measure, nan where there is none."""
        return np.array([np.nan if e is None else e.value for e in self.estimates(name)])

    def errors(self, name: str) -> np.ndarray:
        """(n,) half-widths of the intervals (95 %, or a strict bound for residuals and brackets); nan where there is none."""
        bounds = [None if e is None else e.interval() for e in self.estimates(name)]
        return np.array([np.nan if b is None else (b[1] - b[0]) / 2 for b in bounds])

    def edges(self, name: str) -> np.ndarray:
        """(n,) edges of stability of a measure, nan where there is none."""
        return np.array([c.edges.get(name, np.nan) for c in self.checks])

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Where each measure was first above its edge: the steps then grow along its direction, until the curvature falls."""
        found = []
        for name in self.names:
            above = self.values(name) - np.nan_to_num(self.errors(name)) > self.edges(name)
            if above.any():
                i = int(above.argmax())
                found.append(Alarm(int(self.steps[i]), name, float(self.values(name)[i]), float(self.edges(name)[i])))
        return tuple(found)

    @property
    def share(self) -> float:
        """Share of the time that was spent on watching; nan before any time has passed."""
        return self.seconds / self.total if self.total > 0 else np.nan

    def time_line(self) -> str:
        """How many checks there were, and what they cost, in one line."""
        limit = "" if self.budget is None else f" of the {100 * self.budget:g} % allowed"
        checks = f"{len(self)} check{'s' * (len(self) != 1)}"
        if not self.total:
            return f"{checks} in {self.seconds:.3g} s" if self.seconds else checks
        return f"{checks} in {self.seconds:.3g} of {self.total:.3g} s: {100 * self.share:.3g} % of the time{limit}"

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells, the first row its head: step, loss, every measure with its error, and its edge if it has one."""
        shown = [n for n in self.names if not n.startswith("trace/")]
        edged = [n for n in shown if np.isfinite(self.edges(n)).any()]
        columns = [(n, kind) for n in shown for kind in ("value", "edge") if kind == "value" or n in edged]
        head = ("step", "loss", *(n if kind == "value" else "edge" for n, kind in columns))
        return [head, *((str(c.step), f"{c.loss:.4g}", *(_cell(c, n, kind) for n, kind in columns)) for c in self.checks)]

    def __str__(self) -> str:
        table = self.rows()
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
        return "\n".join([*lines, *self.notes()])

    def notes(self) -> list[str]:
        """What stands under the table."""
        optimizer = [self.optimizer] if self.optimizer else []
        return [*optimizer, *(f"first at {a}" for a in self.alarms), *self.remarks, self.time_line()]

    def _repr_html_(self) -> str:
        head, *body = [[html.escape(cell) for cell in row] for row in self.rows()]
        cells = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in body)
        notes = "".join(f"<p>{html.escape(line)}</p>" for line in self.notes())
        return f"<table><tr>{''.join(f'<th>{c}</th>' for c in head)}</tr>{cells}</table>{notes}"

    def plot(self, ax: "Axes | None" = None, *, measure: str | None = None, caption: bool = False) -> "Axes":
        """Draw a measure against the step with its error and its edge, by default the first one that has an edge."""
        return plotted(self, ax, caption, measure=measure)

    def to_xarray(self) -> "xarray.Dataset":
        """Measures, errors and edges over "step" (traces of layers over "step" and "layer"); needs xarray."""
        return drawn(self, "xarray")

    def to_csv(self, path: str | Path | None = None) -> str:
        """One row for each check: value, error, convergence and edge of every measure. Also written to `path`, if given."""
        text: str = drawn(self, "csv")
        if path is not None:
            write(Path(path), text.encode())
        return text

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "checks": [c.to_json() for c in self.checks],
            "units": dict(self.units),
            "alarms": [asdict(a) for a in self.alarms],
            "optimizer": self.optimizer,
            "remarks": list(self.remarks),
            "seconds": self.seconds,
            "total": self.total,
            "share": finite_or_none(self.share),
            "budget": self.budget,
            "every": self.every,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "WatchHistory":
        """Inverse of `to_json`."""
        kept = ("units", "optimizer", "seconds", "total", "budget", "every", "provenance")
        return cls(
            tuple(Check.from_json(c) for c in data["checks"]),
            remarks=tuple(data["remarks"]),
            **{name: data[name] for name in kept},
        )


def _cell(check: Check, name: str, kind: str) -> str:
    """A value with its error, or an edge."""
    if kind == "edge":
        return f"{check.edges[name]:.4g}" if name in check.edges else ""
    e = check.measures.get(name)
    if e is None:
        return ""
    return f"{e.value:.5g} {e.doubt()}".rstrip() + ("" if e.converged else " NOT CONVERGED")
