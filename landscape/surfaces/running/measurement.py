"""What is measured at a point of a chart: loss and accuracy, and on request the ends of the Hessian's spectrum."""

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

# Relative residual of the eigenvalues on a map. Their own error is of the order of its square over the gap.
TOLERANCE = 1e-3


# Points that are measured together, always the same ones.
Unit = tuple[int, ...]


class Part(Protocol):
    """One kind of measurement over a whole chart.

    Attributes:
        name: of it.
        order: the points.
        units: the same points, those together that are measured together.
    """

    name: str
    order: list[int]
    units: list[Unit]

    def __call__(self, unit: Unit) -> list[Record]:
        """The values at each point: name -> [value, standard error, standard error of the difference to the centre]."""

    def wants(self, number: int) -> int | None:
        """The point that must be done before this one, if any; only of points that are measured alone."""


class Losses:
    """Loss and accuracy, on training and test data, with the same samples at every point.

    The error of a difference to the centre comes from every sample's own difference, so that what all points share does not
    count.

    Args:
        chart: where.
        objective: the network on its data.
        test: on other data, with the same BatchNorm statistics; None for none.
        together: points that go through the network at once (`landscape.surfaces.running.settings`). Where a network stands as
            it was saved the point is evaluated alone, so that its loss is the checkpoint's to the bit.
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
        """Loss and accuracy at some points. Cost: one forward pass a point, and one more to re-estimate BatchNorm."""
        if len(unit) == 1:
            theta, buffers = self.chart.at(self.chart.place(unit[0]))
            return self._records({prefix: [o.evaluate(theta, buffers)] for prefix, o in self.objectives.items()})
        points: dict[int, tuple[Tensor, dict[str, Tensor] | None]] = {}
        records: dict[int, Record] = {}
        for k in unit:
            try:
                points[k] = self.chart.at(self.chart.place(k))
            except Exception as error:  # also what the user's own model raises; the others are done all the same
                records[k] = failure(error)
        if points:
            # Always of one size: the kernels that a size calls for may differ in the last bits.
            rows = [*points.values()]
            rows += [rows[-1]] * (self.together - len(rows))
            theta = torch.stack([t for t, _ in rows])
            held = [b or {} for _, b in rows]
            buffers = {n: torch.stack([b[n] for b in held]) for n in held[0]}
            found = {prefix: o.evaluate_many(theta, buffers) for prefix, o in self.objectives.items()}
            records |= zip(points, self._records(found), strict=False)
        return [records[k] for k in unit]

    def _records(self, evaluations: dict[str, list[Evaluation]]) -> list[Record]:
        """What is kept of each point."""
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

    Each point starts from the eigenvectors of its neighbour towards the middle, so that the result does not depend on the
    order in which points are done, nor on who does them; and from as much that is random, drawn from the point's number: an
    eigenvalue that has overtaken the neighbour's, with another eigenvector, would else not be seen.

    Args:
        chart: where.
        objective: the network on its data.
        run: keeps the eigenvectors.

    Accuracy: the error is the residual, within which there is an eigenvalue. It is the outermost one but for those that lie
        close beyond it (some per cent of the largest) with an eigenvector of which the neighbour's had nothing.

    Reference: Li et al. 2018, arXiv:1712.09913, section 6, for the map.
    """

    name = "curvature"

    def __init__(self, chart: Chart, objective: Objective, run: Run) -> None:
        self.chart, self.objective, self.run = chart, objective, run
        self.order = chart.outwards()
        self.units: list[Unit] = [(k,) for k in self.order]
        self.parents = {k: chart.parent(k) for k in self.order}
        self.children: dict[int, set[int]] = {}
        for k, parent in self.parents.items():
            if parent is not None:
                self.children.setdefault(parent, set()).add(k)
        self._last: tuple[int, Tensor] | None = None

    def wants(self, number: int) -> int | None:
        """Its neighbour towards the middle."""
        return self.parents[number]

    def __call__(self, unit: Unit) -> list[Record]:
        """Both ends at a point. Cost: some ten to fifty Hessian-vector products from a neighbour, more at the first point."""
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
        sure = abs(high) - errors[1]  # of |lambda_max|, at least
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
        """The parent's eigenvectors: from memory, the run's folder, or computed anew from the nearest there are."""
        missing: list[int] = []
        found: Tensor | None = None
        at = self.parents[number]
        while at is not None:
            if self._last is not None and self._last[0] == at:
                found = self._last[1]
                break
            if "failed" in self.run.journal.records.get(f"{self.name}:{at}", {}):
                # From a cold start the value could be another one than after a parent that succeeds the next time.
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
        """Drop the vectors that the last point started from, if it was the last to need them: only now is it in the journal."""
        parent = None if self._last is None else self.parents[self._last[0]]
        if parent is not None and all(f"{self.name}:{c}" in self.run.journal.records for c in self.children[parent]):
            self.run.drop_vectors(parent)


def paired_errors(found: Sequence[Evaluation], centre: Evaluation, name: str) -> list[float | None]:
    """Standard error over samples of each one's difference to the centre; None where it does not come apart, or is none."""
    if not all(name in e.each for e in (centre, *found)):
        return [None] * len(found)
    with np.errstate(invalid="ignore"):  # of infinite losses
        differences = np.stack([e.each[name] for e in found]) - centre.each[name]
    errors = errors_of_means(differences, centre.each["weight"])
    sound = [(getattr(e, name), getattr(centre, name)) for e in found]
    finite = [all(x is not None and math.isfinite(x.value) for x in pair) for pair in sound]
    return [error if good else None for error, good in zip(errors, finite, strict=True)]


def errors_of_means(differences: np.ndarray, weights: np.ndarray) -> list[float | None]:
    """Standard error of the weighted mean of each row's differences; those that are not a number do not count."""
    counted = ~np.isnan(differences)
    errors = means_and_errors(differences, weights, counted)[1]
    return [float(e) if n > 1 else None for e, n in zip(errors, counted.sum(1), strict=True)]


def filled(empty: Slice, chart: Chart, parts: Sequence[Part], records: Mapping[str, Record]) -> Slice:
    """The slice with everything that is recorded."""
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
