"""Measurements at the points of a chart: loss and accuracy, and optionally the extreme eigenvalues of the Hessian."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from landscape.errors import NumericalError
from landscape.machine.json_values import number_or_nan
from landscape.network.losses.mean_loss import means_and_errors
from landscape.objective import Objective
from landscape.results import DONE, FAILED, MISSING, NOT_FINITE, UNCONVERGED, Evaluation, Slice
from landscape.spectra import eigenpairs
from landscape.surfaces.axes.chart import Chart
from landscape.surfaces.running.point_records import Record, encoded, failure
from landscape.surfaces.running.run_directory import Run

# Relative residual of the eigenvalues on a map. The error of an eigenvalue is of the order of its square over the gap.
TOLERANCE = 1e-3


# A fixed group of points that are measured together.
Unit = tuple[int, ...]


class Part(Protocol):
    """One kind of measurement over a whole chart.

    Attributes:
        name: name of the measurement.
        order: the points in order.
        units: the same points, in the groups that are measured together.
    """

    name: str
    order: list[int]
    units: list[Unit]

    def __call__(self, unit: Unit) -> list[Record]:
        """The values at each point: name -> [value, standard error, standard error of the difference from the centre]."""

    def wants(self, number: int) -> int | None:
        """The point that must be computed before this one, if any; only for points that are measured alone."""


class Some:
    """A part at some of its points, which are measured independently of one another."""

    def __init__(self, whole: "Losses | Extremes", numbers: Sequence[int]) -> None:
        self.whole, self.name = whole, whole.name
        self.units: list[Unit] = whole.chart.grouped(numbers, whole.together)
        self.order = [k for unit in self.units for k in unit]

    def wants(self, number: int) -> None:
        """Points do not depend on one another."""

    def __call__(self, unit: Unit) -> list[Record]:
        """The values at a group of these points."""
        return self.whole(unit)


class Losses:
    """Loss and accuracy, on training and test data, with the same samples at every point.

    The error of a difference from the centre comes from paired differences of samples, so that their common part cancels.

    Args:
        chart: the points.
        objective: the network on its data.
        test: the network on test data, evaluated with the same BatchNorm statistics; None for none.
        together: number of points that are evaluated at once (`landscape.surfaces.running.settings`). Points that are saved
            networks are evaluated alone, so that their loss is the checkpoint's to the bit.
    """

    name = "loss"

    def __init__(self, chart: Chart, objective: Objective, test: Objective | None, together: int = 1) -> None:
        self.chart, self.together = chart, together
        self.objectives = {"": objective} | ({"test_": test} if test is not None else {})
        self.units = chart.stacks(together)
        self.order = [k for unit in self.units for k in unit]
        theta, buffers = chart.at(chart.centre)
        self.centre = {prefix: o.evaluate(theta, buffers) for prefix, o in self.objectives.items()}

    def wants(self, number: int) -> None:
        """Points do not depend on one another."""

    def __call__(self, unit: Unit) -> list[Record]:
        """Loss and accuracy at a group of points. Cost: one forward pass per point, and one more to re-estimate BatchNorm."""
        if len(unit) == 1:
            if self.chart.place(unit[0]) == self.chart.centre:  # known already; the check of a surface computes it again
                return self._records({prefix: [found] for prefix, found in self.centre.items()})
            theta, buffers = self.chart.at(self.chart.place(unit[0]))
            return self._records({prefix: [o.evaluate(theta, buffers)] for prefix, o in self.objectives.items()})
        points: dict[int, tuple[Tensor, dict[str, Tensor] | None]] = {}
        records: dict[int, Record] = {}
        for k in unit:
            try:
                points[k] = self.chart.at(self.chart.place(k))
            except Exception as error:  # the user's model may raise anything; the other points are computed all the same
                records[k] = failure(error)
        if points:
            # A stack always has the same size, because kernels for different sizes may differ in the last bits.
            rows = [*points.values()]
            rows += [rows[-1]] * (self.together - len(rows))
            theta = torch.stack([t for t, _ in rows])
            held = [b or {} for _, b in rows]
            buffers = {n: torch.stack([b[n] for b in held]) for n in held[0]}
            found = {prefix: o.evaluate_many(theta, buffers) for prefix, o in self.objectives.items()}
            records |= zip(points, self._records(found), strict=False)
        return [records[k] for k in unit]

    def _records(self, evaluations: dict[str, list[Evaluation]]) -> list[Record]:
        """The record of each point."""
        records: list[dict[str, list[Any]]] = [{} for _ in next(iter(evaluations.values()))]
        for prefix, found in evaluations.items():
            for name in ("loss", "accuracy"):
                paired = paired_errors(found, self.centre[prefix], name)
                for record, estimate, error in zip(records, (getattr(e, name) for e in found), paired, strict=True):
                    if estimate is not None:
                        record[prefix + name] = [encoded(x) for x in (estimate.value, estimate.stderr, error)]
        return [{"values": values} for values in records]


class Extremes:
    """Largest and smallest eigenvalue of the Hessian at every point, and |lambda_min / lambda_max|.

    Each point starts from the eigenvectors of its neighbour towards the middle, so that the result depends neither on the order
    of the points nor on the process. A random vector, seeded by the point's index, is added to the start; without it, an
    eigenvalue that has become the largest, with another eigenvector, could be missed.

    Args:
        chart: the points.
        objective: the network on its data.
        run: stores the eigenvectors.
        warm: start from neighbours; else every point starts anew, which takes about twice the products, and no point waits
            for another.

    Accuracy: an eigenvalue lies within the residual of the value. It is the extreme one, except that a slightly more extreme
        one (by a few per cent of the largest) may be missed if its eigenvector is orthogonal to the neighbour's.

    Reference: Li et al. 2018, arXiv:1712.09913, section 6, for the map.
    """

    name, together = "curvature", 1

    def __init__(self, chart: Chart, objective: Objective, run: Run, warm: bool = True) -> None:
        self.chart, self.objective, self.run = chart, objective, run
        self.order = chart.outwards()
        self.units: list[Unit] = [(k,) for k in self.order]
        self.parents = {k: chart.parent(k) if warm else None for k in self.order}
        self.children: dict[int, set[int]] = {}
        for k, parent in self.parents.items():
            if parent is not None:
                self.children.setdefault(parent, set()).add(k)
        self._last: tuple[int, Tensor] | None = None

    def wants(self, number: int) -> int | None:
        """The neighbour towards the middle."""
        return self.parents[number]

    def __call__(self, unit: Unit) -> list[Record]:
        """Both extreme eigenvalues at a point. Cost: 10 to 50 Hessian-vector products, more at the first point."""
        (number,) = unit
        self._let_go()
        start = self._start(number)
        values, vectors, converged = self._solved(number, start)
        if number in self.children:
            self.run.keep_vectors(number, vectors)
        self._last = number, vectors
        low, high = (float(v) for v in values[0])
        errors = [float(e) for e in values[1]]
        ratio = abs(low / high) if high else math.inf
        sure = abs(high) - errors[1]  # lower bound of |lambda_max|
        error = (errors[0] + ratio * errors[1]) / sure if sure > 0 else math.inf
        found = {"lambda_min": (low, errors[0]), "lambda_max": (high, errors[1]), "lambda_ratio": (ratio, error)}
        lost = [name for name, good in zip(("lambda_min", "lambda_max"), converged, strict=True) if not good]
        record: Record = {"values": {k: [encoded(v), encoded(e), None] for k, (v, e) in found.items()}}
        return [record | ({"unconverged": [*lost, "lambda_ratio"]} if lost else {})]

    def _solved(self, number: int, start: Tensor | None) -> tuple[np.ndarray, Tensor, list[bool]]:
        """(2, 2) values and residuals, smallest first; (2, P) vectors; whether they converged."""
        theta, buffers = self.chart.at(self.chart.place(number))
        if not bool(torch.isfinite(theta).all()):
            raise NumericalError("expected finite weights, found some that are not")
        random, at = torch.Generator().manual_seed(number), self.objective.at(theta, buffers)
        if start is not None:
            fresh = torch.randn(len(theta), generator=random, dtype=torch.float64).to(start)
            start = torch.cat([start, fresh[None] / fresh.norm()])
        pairs = eigenpairs(at, 1, "both", tol=TOLERANCE, start=start, generator=random)
        order = np.argsort(pairs.values)
        ends = [int(order[0]), int(order[-1])]
        values = np.stack([pairs.values[ends], pairs.residuals[ends]])
        return values, pairs.vectors[ends], [bool(pairs.converged[i]) for i in ends]

    def _start(self, number: int) -> Tensor | None:
        """The parent's eigenvectors: from memory, from the run's folder, or computed again from the nearest available ones."""
        missing: list[int] = []
        found: Tensor | None = None
        at = self.parents[number]
        while at is not None:
            if self._last is not None and self._last[0] == at:
                found = self._last[1]
                break
            if "failed" in self.run.journal.records.get(f"{self.name}:{at}", {}):
                # Without the parent's eigenvectors the result could differ from that of a later, successful attempt.
                raise NumericalError(f"expected the neighbour that this point starts from, found that point {at} failed")
            found = self.run.vectors(at, self.objective.theta)
            if found is not None:
                break
            missing.append(at)
            at = self.parents[at]
        for k in reversed(missing):
            found = self._solved(k, found)[1]
            self.run.keep_vectors(k, found)
        return found

    def _let_go(self) -> None:
        """Delete the eigenvectors from which the last point started, if all points that need them are now in the journal."""
        parent = None if self._last is None else self.parents[self._last[0]]
        if parent is not None and all(f"{self.name}:{c}" in self.run.journal.records for c in self.children[parent]):
            self.run.drop_vectors(parent)


def paired_errors(found: Sequence[Evaluation], centre: Evaluation, name: str) -> list[float | None]:
    """Standard error of each value's difference from the centre; None if it is not a mean over samples or not finite."""
    if not all(name in e.each for e in (centre, *found)):
        return [None] * len(found)
    with np.errstate(invalid="ignore"):  # of infinite losses
        differences = np.stack([e.each[name] for e in found]) - centre.each[name]
    errors = errors_of_means(differences, centre.each["weight"])
    sound = [(getattr(e, name), getattr(centre, name)) for e in found]
    finite = [all(x is not None and math.isfinite(x.value) for x in pair) for pair in sound]
    return [error if good else None for error, good in zip(errors, finite, strict=True)]


def errors_of_means(differences: np.ndarray, weights: np.ndarray) -> list[float | None]:
    """Standard error of the weighted mean of each row of differences; nan entries are ignored."""
    counted = ~np.isnan(differences)
    errors = means_and_errors(differences, weights, counted)[1]
    return [float(e) if n > 1 else None for e, n in zip(errors, counted.sum(1), strict=True)]


def filled(empty: Slice, chart: Chart, parts: Sequence[Part], records: Mapping[str, Record]) -> Slice:
    """The slice with all recorded values."""
    columns: dict[str, dict[str, np.ndarray]] = {"values": {}, "stderr": {}, "paired": {}}
    status: dict[str, np.ndarray] = {}
    for part in parts:
        found: dict[str, np.ndarray] = {}
        failed: list[int] = []
        for k in part.order:
            record: Record = records.get(f"{part.name}:{k}", {})
            if "failed" in record:
                failed.append(k)
            for name, numbers in record.get("values", {}).items():
                if name not in found:
                    found[name], status[name] = np.full((3, chart.size), math.nan), np.full(chart.size, MISSING, np.int8)
                found[name][:, k] = [number_or_nan(x) for x in numbers]
                state = UNCONVERGED if name in record.get("unconverged", ()) else DONE
                status[name][k] = state if math.isfinite(found[name][0, k]) else NOT_FINITE
        for name, rows in found.items():
            status[name][failed] = FAILED
            for kind, column in zip(columns, rows, strict=True):
                if kind == "values" or np.isfinite(column).any():
                    columns[kind][name] = column.reshape(chart.shape)
            status[name] = status[name].reshape(chart.shape)
    return replace(empty, status=status, values=columns["values"], stderr=columns["stderr"], paired=columns["paired"])
