"""Measures of many checkpoints in one table, a row each, with the reason where a checkpoint could not be measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from landscape.errors import UsageError
from landscape.results.estimate import Estimate
from landscape.results.printed import Cells, Printed
from landscape.results.sharpness import Measurement, Sharpness, joint_mark

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
        rows, judged = [], any(r.minimum is not None for r in self.results)
        for r in self.results:
            measured = [_cell(r.measures[name]) if name in r.measures else "" for name in self.measures]
            accuracy = "" if r.accuracy is None else f"{100 * r.accuracy.value:.2f} %"
            minimum = ("" if r.minimum is None else r.minimum.short(),) if judged else ()
            loss = f"{r.loss.value:.5g} {r.loss.larger_doubt()}".rstrip()
            rows.append((r.checkpoint or "", loss, accuracy, *minimum, *measured))
        head = ("checkpoint", "loss", "accuracy", *(("at a minimum",) if judged else ()), *self.measures)
        failed = [f"{f.checkpoint}: not measured: {f.error}" for f in self.failed]
        legend = [SWEEP_LEGEND] if self.results else []
        return Cells(head if rows else (), rows, (), (*failed, *self._marks(), *legend))

    def _marks(self) -> list[str]:
        """What could have faked each measure in any of the rows, in one line."""
        told = []
        for name in self.measures:
            found = [r.measures[name] for r in self.results if name in r.measures and r.measures[name].defined]
            if found:
                told.append(f"{name}: {joint_mark(found)}")
        return [f"fakeable: {'; '.join(told)}"] if told else []

    def records(self) -> list[Mapping[str, Any]]:
        """One row for each checkpoint. Of each number the value, and:

        - `..._method_low`, `..._method_high`: 95 % interval of the computation, on these samples; no confidence interval for
          other samples.
        - `..._data_low`, `..._data_high`: 95 % interval over samples, which includes the method's error; `..._data_stderr`:
          standard error over samples, also where there is no interval. Empty where unknown.
        - Of measures `..._converged`, and `..._fakeable`: what could have faked it.

        `not_a_minimum` says why the weights are not at a minimum: empty without evidence against one, or if nothing asked.
        """
        out: list[Mapping[str, Any]] = []
        for r in self.results:
            row: dict[str, Any] = {"checkpoint": r.checkpoint, "sha256": r.sha256, "error": "", "samples": r.samples}
            row["not_a_minimum"] = "" if r.minimum is None else "; ".join(r.minimum.reasons)
            for name, e in self._numbers(r).items():
                errors = (e or Estimate(math.nan)).columns()
                row |= {name: None if e is None else e.value} | {f"{name}_{key}": error for key, error in errors.items()}
                if name in r.measures:
                    m = r.measures[name]
                    row |= {f"{name}_converged": m.estimate.converged}
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


SWEEP_LEGEND = (
    "behind a value the larger of its two errors. method: of the computation (95 %, or the residual of an eigenvalue). data: "
    "sampling error, a 95 % interval with the method's error included, or sd, its standard deviation. ≥: lower bound of a "
    "maximum; !: did not converge. at a minimum: what speaks against it. fakeable: symmetries of the networks that could have "
    "given the value; both errors and marks of each row are in sweep.csv"
)


def _cell(m: Measurement) -> str:
    """A value with the larger of its errors, short enough for a column."""
    e = m.estimate
    if not e.converged:
        return f"{e.value:.5g} !"
    if not m.defined:
        return "–"
    bound = "≥ " if e.kind == "lower bound" else ""
    return f"{bound}{e.value:.5g} {e.larger_doubt()}".rstrip()
