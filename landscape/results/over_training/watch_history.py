"""What was measured through a training run, check by check."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.errors import MalformedError, UsageError, printable
from landscape.machine.files import read_json, write
from landscape.machine.json_values import finite_or_none, plain
from landscape.results.drawing import drawing, drawn, plotted
from landscape.results.estimate import Estimate
from landscape.results.over_training.check import Alarm, Check
from landscape.results.over_training.memorization_signal import MemorizationSignal
from landscape.results.printed import Cells, Printed

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

# A pair of checks is a gap if it is so many times as far apart as the median pair, of so many pairs at least.
_WIDE, _PAIRS = 5, 3
# And this many times as far as the last pair before that is no gap, or as the next: a budget's checks thin out gradually.
_SUDDEN = 2.5
FILE = "watch.json"  # the name by which `landscape report` finds a history


@dataclass(frozen=True, eq=False)
class WatchHistory(Printed):
    """Measures through a training run. Prints as a table, or as HTML in a notebook; draws, and exports to xarray and CSV.

    Attributes:
        checks: in the order of the steps.
        units: name of a measure -> its unit.
        optimizer: name and settings of the optimizer, e.g. "SGD, lr 0.02"; "" if none was given.
        remarks: why an edge or a measure is missing, a line each.
        seconds: time spent on watching, with its preparation.
        total: time from the start of watching to the last step seen; 0 for checkpoints that were measured after training.
        budget: the share of the time that watching may take; None if it is not limited.
        every: steps between the next two checks, which a budget may have raised.
        counted: what the numbers of the checks count: "step", or for checkpoints "epoch" or "checkpoint".
        memorization: the alarm for label memorization at the last check; None without one.
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
    counted: str = "step"
    memorization: MemorizationSignal | None = None
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
                value, edge = float(self.values(name)[i]), float(self.edges(name)[i])
                found.append(Alarm(int(self.steps[i]), name, value, edge, self.counted))
        return tuple(found)

    @property
    def share(self) -> float:
        """Share of the time that was spent on watching; nan before any time has passed."""
        return self.seconds / self.total if self.total > 0 else np.nan

    def time_line(self) -> str:
        """How many checks there were, and what they cost, in one line."""
        limit = "" if self.budget is None else f" of the {100 * self.budget:g} % allowed"
        if self.budget is not None and self.share > self.budget:  # the first check is made whatever it costs
            limit = f"; the {100 * self.budget:g} % allowed take a run of {self.seconds / self.budget:.3g} s or more"
        checks = f"{len(self)} check{'s' * (len(self) != 1)}"
        if not self.total:
            return f"{checks} in {self.seconds:.3g} s" if self.seconds else checks
        return f"{checks} in {self.seconds:.3g} of {self.total:.3g} s: {100 * self.share:.3g} % of the time{limit}"

    def cells(self) -> Cells:
        """A row for each check: number, loss, every measure with its error, and its edge if it has one; no traces of layers."""
        shown = [n for n in self.names if not n.startswith("trace/")]
        edged = [n for n in shown if np.isfinite(self.edges(n)).any()]
        columns = [(n, kind) for n in shown for kind in ("value", "edge") if kind == "value" or n in edged]
        head = (self.counted, "loss", *(n if kind == "value" else "edge" for n, kind in columns))
        rows = [(str(c.step), f"{c.loss:.4g}", *(_cell(c, n, kind) for n, kind in columns)) for c in self.checks]
        return Cells(head, rows, after=self.notes())

    def records(self) -> list[Mapping[str, Any]]:
        """One row for each check: its number, loss, seconds; of every measure value, `_error`, `_converged`, `_edge`.

        None stands for what was not measured; a value that is not finite is nan or inf.
        """
        columns: dict[str, list[Any]] = {self.counted: self.steps.tolist(), "loss": self.losses.tolist()}
        columns["seconds"] = [c.seconds for c in self.checks]
        for name in self.names:
            estimates = self.estimates(name)
            columns[name] = [None if e is None else e.value for e in estimates]
            columns[f"{name}_error"] = _known(self.errors(name))
            columns[f"{name}_converged"] = [None if e is None else e.converged for e in estimates]
            if np.isfinite(self.edges(name)).any():
                columns[f"{name}_edge"] = _known(self.edges(name))
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    @property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """Pairs of checks that are over 5 times as far apart as the median, and suddenly so: between them nothing is known.

        Checks of a budget thin out gradually: such pairs are no more than twice as far apart as the pair before. A pair is
        compared with the last one that is no gap, so that two gaps in a row do not hide each other, and with the next one.
        """
        steps = self.steps
        apart = np.diff(steps)
        if len(apart) < _PAIRS:
            return ()
        wide = apart > _WIDE * np.median(apart)
        usual, found = float(apart[~wide][0]), []  # the first ones have none before them
        for i, following in enumerate(np.append(apart[1:], np.inf)):
            if wide[i] and apart[i] > _SUDDEN * min(usual, following):
                found.append((int(steps[i]), int(steps[i + 1])))
            else:
                usual = float(apart[i])
        return tuple(found)

    def notes(self, drawn: bool = False) -> list[str]:
        """What stands under the table; where traces of layers are `drawn` beside it, nobody has to be told where they are."""
        optimizer = [self.optimizer] if self.optimizer else []
        memorization = [] if self.memorization is None else [str(self.memorization)]
        unseen = [f"nothing was measured between {self.counted} {a} and {b}{self._deferred}" for a, b in self.gaps]
        layers = sum(name.startswith("trace/") for name in self.names) if not drawn else 0
        where = 'they are in .to_dataframe(), in the CSV file and in .plot(measure="layer_traces")'
        untold = [f"not in this table: the traces of {layers} layer{'s' * (layers != 1)}; {where}"] if layers else []
        return [*optimizer, *map(self._told, self.alarms), *memorization, *unseen, *untold, *self.remarks, self.time_line()]

    @property
    def _deferred(self) -> str:
        """Why there are gaps, if that is known."""
        return "" if self.budget is None else f", to keep to {100 * self.budget:.3g} % of the time"

    def from_the_start(self, alarm: Alarm) -> bool:
        """Whether a measure is above its edge at the first check that has both: nothing was crossed while it was watched."""
        known = np.isfinite(self.values(alarm.name)) & np.isfinite(self.edges(alarm.name))
        return alarm.step == int(self.steps[known][0])

    def _told(self, alarm: Alarm) -> str:
        """An alarm in one line."""
        if self.from_the_start(alarm):
            above = f"{alarm.name} {alarm.value:.4g} is above its edge {alarm.edge:.4g}"
            return f"from the start: {above}, at {alarm.counted} {alarm.step}, the first check with both"
        return f"first at {alarm}"

    @drawing
    def plot(self, ax: "Axes | None" = None, *, measure: str | None = None, caption: bool = False) -> "Axes":
        """Draw a measure against the step with its error and its edge, by default the first one that has an edge.

        "layer_traces" draws those of all layers, and the alarm for label memorization.
        """
        return plotted(self, ax, caption, measure=measure)

    def to_xarray(self) -> "xarray.Dataset":
        """Measures, errors and edges over `counted`, e.g. "step" (traces of layers also over "layer"); needs xarray."""
        return drawn(self, "xarray")

    def to_csv(self, path: str | Path | None = None) -> str:
        """One row for each check: value, error, convergence and edge of every measure. Also written to `path`, if given."""
        text: str = drawn(self, "csv")
        if path is not None:
            write(path, text.encode(), parents=True)
        return text

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON that `landscape report` shows, and `load` reads.

        Args:
            path: a folder that is there, for "watch.json" in it, or a file of that name or one that ends in "-watch.json",
                whose folder is made if it is missing: by these names `landscape report FOLDER` finds it. The beginning of the
                name, or the folder's, is the heading of the run.

        Returns:
            The file.

        Raises:
            UsageError: another name, or a place that cannot be written.
        """
        place = Path(path)
        place = place / FILE if place.is_dir() else place
        if place.name != FILE and not place.name.endswith(f"-{FILE}"):
            raise UsageError(
                f"expected a folder or a name that ends in -{FILE}, found {printable(place.name)}",
                fix=f"for example {printable(place.with_suffix('').name)}-{FILE}, which landscape report finds",
            )
        return write(place, (json.dumps(plain(self.to_json()), indent=2, allow_nan=False) + "\n").encode(), parents=True)

    @classmethod
    def load(cls, path: str | Path) -> "WatchHistory":
        """Inverse of `save`; also reads what `landscape watch` and `landscape train --watch` write.

        Raises:
            UsageError: the file cannot be read.
            MalformedError: it is no history.
        """
        place = Path(path) / FILE if Path(path).is_dir() else Path(path)
        try:
            return cls.from_json(read_json(place))
        except OSError as error:
            raise UsageError(f"expected a file that can be read, found {place}: {error.strerror}") from error
        except KeyError as error:
            raise MalformedError(
                f"expected the history of a watch in {place}, found one without {error}", fix="save it again"
            ) from error
        except (TypeError, ValueError, AttributeError) as error:
            raise MalformedError(f"expected the history of a watch in {place}, found {error}", fix="save it again") from error

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "checks": [c.to_json() for c in self.checks],
            "units": dict(self.units),
            "alarms": [{"step": a.step, "name": a.name, "value": a.value, "edge": a.edge} for a in self.alarms],
            "memorization": None if self.memorization is None else self.memorization.to_json(),
            "optimizer": self.optimizer,
            "remarks": list(self.remarks),
            "seconds": self.seconds,
            "total": self.total,
            "share": finite_or_none(self.share),
            "budget": self.budget,
            "every": self.every,
            "counted": self.counted,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "WatchHistory":
        """Inverse of `to_json`."""
        signal = data.get("memorization")
        kept = ("units", "optimizer", "seconds", "total", "budget", "every", "provenance")
        return cls(
            tuple(Check.from_json(c) for c in data["checks"]),
            remarks=tuple(data["remarks"]),
            memorization=None if signal is None else MemorizationSignal.from_json(signal),
            counted=data.get("counted", "step"),
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


def _known(values: np.ndarray) -> list[float | None]:
    """Plain numbers, None for nan."""
    return [None if np.isnan(x) else float(x) for x in values]
