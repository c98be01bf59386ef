"""Measures of many checkpoints in one table, a row each, with the reason where a checkpoint could not be measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from landscape.errors import UsageError
from landscape.results.estimate import Estimate
from landscape.results.printed import Cells, Printed
from landscape.results.sharpness import Measurement, Sharpness

# What rows can be sorted by, besides the measures.
ORDERS = ("checkpoint", "loss", "accuracy")


@dataclass(frozen=True)
class Unmeasured:
    """A checkpoint without measures.

    Attributes:
        checkpoint: path as given.
        error: why, in one line.
        exit_code: that `landscape sharpness` ends with for it.
    """

    checkpoint: str
    error: str
    exit_code: int

    def to_json(self) -> dict[str, Any]:
        """One entry of the "failed" list of the command line's JSON."""
        return {"checkpoint": self.checkpoint, "error": self.error, "exit_code": self.exit_code}


@dataclass(frozen=True)
class Sweep(Printed):
    """The same measures of many checkpoints, each on its data.

    Attributes:
        results: one for each measured checkpoint, in the order of the table.
        failed: the checkpoints that could not be measured.
    """

    results: Sequence[Sharpness]
    failed: Sequence[Unmeasured] = ()

    @property
    def measures(self) -> list[str]:
        """Names of the measures, in the order of the first result that has them."""
        return list(dict.fromkeys(name for r in self.results for name in r.measures))

    def sorted_by(self, name: str) -> "Sweep":
        """The rows in another order: largest value of a measure, loss or accuracy first, those without one last.

        Raises:
            UsageError: no such measure.

        Example:
            >>> rows = [Sharpness(Estimate(x), None, {}, 1, checkpoint=f"{x}") for x in (1.0, 3.0, math.nan, 2.0)]
            >>> [r.checkpoint for r in Sweep(rows).sorted_by("loss").results]
            ['3.0', '2.0', '1.0', 'nan']
        """
        if name == "checkpoint":
            return self
        known = (*ORDERS, *self.measures)
        if self.results and name not in known:
            raise UsageError(f"expected a column to sort by, found {name!r}", fix=f"choose among {', '.join(known)}")

        def place(result: Sharpness) -> float:
            found = self._numbers(result).get(name)
            value = math.nan if found is None else found.value
            return math.inf if math.isnan(value) else -value

        return Sweep(sorted(self.results, key=place), self.failed)

    def _numbers(self, result: Sharpness) -> dict[str, Estimate | None]:
        """The numbers of one row by the name of their column."""
        found: dict[str, Estimate | None] = {"loss": result.loss, "accuracy": result.accuracy}
        return found | {name: result[name] if name in result.measures else None for name in self.measures}

    def cells(self) -> Cells:
        """A row for each checkpoint, and a line for each that could not be measured."""
        rows = []
        for r in self.results:
            measured = [_cell(r.measures[name]) if name in r.measures else "" for name in self.measures]
            accuracy = "" if r.accuracy is None else f"{100 * r.accuracy.value:.2f} %"
            rows.append((r.checkpoint or "", f"{r.loss.value:.5g}", accuracy, *measured))
        failed = [f"{f.checkpoint}: not measured: {f.error}" for f in self.failed]
        legend = [SWEEP_LEGEND] if self.results else []
        return Cells(("checkpoint", "loss", "accuracy", *self.measures) if rows else (), rows, (), (*failed, *legend))

    def records(self) -> list[Mapping[str, Any]]:
        """One row for each checkpoint; a measure's `..._low` and `..._high` are the method's 95 % interval, if it is known."""
        out: list[Mapping[str, Any]] = []
        for r in self.results:
            row: dict[str, Any] = {"checkpoint": r.checkpoint, "sha256": r.sha256, "error": "", "samples": r.samples}
            for name, e in self._numbers(r).items():
                low, high = (e.interval() if e is not None else None) or (None, None)
                row |= {name: None if e is None else e.value, f"{name}_low": low, f"{name}_high": high}
                if name in r.measures:
                    m = r.measures[name]
                    row |= {f"{name}_data_stderr": m.estimate.data_stderr, f"{name}_converged": m.estimate.converged}
                    row |= {f"{name}_fakeable": m.mark if m.defined else "not defined"}
            out.append(row)
        return [*out, *({"checkpoint": f.checkpoint, "sha256": None, "error": f.error} for f in self.failed)]

    def to_json(self) -> dict[str, Any]:
        """The document of `landscape sweep --json`, without its version."""
        return {"results": [r.to_json() for r in self.results], "failed": [f.to_json() for f in self.failed]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Sweep":
        """Inverse of `to_json`."""
        return cls([Sharpness.from_json(r) for r in data["results"]], [Unmeasured(**f) for f in data["failed"]])


SWEEP_LEGEND = "±: 95 % interval of the method, or residual of an eigenvalue; ≥: lower bound of a maximum; !: did not converge"


def _cell(m: Measurement) -> str:
    """A value with the error of its method, short enough for a column."""
    e = m.estimate
    if not e.converged:
        return f"{e.value:.5g} !"
    if not m.defined:
        return "–"
    bounds = e.interval()
    if e.kind == "lower bound":
        return f"≥ {e.value:.5g}"
    if bounds is None or e.kind in ("exact", "samples", "proportion"):
        return f"{e.value:.5g}"
    return f"{e.value:.5g} ± {max(bounds[1] - e.value, e.value - bounds[0]):.2g}"
