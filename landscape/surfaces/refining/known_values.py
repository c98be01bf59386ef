"""The computed values of a surface, the errors that its tolerance is measured in, and what they say about points held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from landscape.errors import NumericalError, UsageError
from landscape.machine.json_values import number_or_nan
from landscape.results.surfaces.refinement import EIGENVALUE_ERROR, HeldOut
from landscape.surfaces.axes.chart import Chart
from landscape.surfaces.refining.smooth_fit import Fit, fit, interpolated_linearly, suits_logarithms
from landscape.surfaces.running.point_records import Record

BOUNDED = ("loss", "test_loss", "lambda_max", "lambda_min")  # the quantities that the tolerance holds for
_FLOOR = 1e-5  # an error below this share of the value is below the rounding of float32 losses


@dataclass(frozen=True, eq=False)
class Known:
    """The values of a surface at some of its points.

    Attributes:
        chart: the grid.
        numbers: the points.
        held: those of the last round that were drawn at random and held out.
        extremes: those of the last round that had the smallest and the largest interpolated value; judged like `held`.
        rounds: how often points were held out.
        values: quantity -> (n,) values; nan where there is none.
        errors: quantity -> (n,) what the tolerance is measured in; only the quantities that it holds for.
    """

    chart: Chart
    numbers: np.ndarray
    held: tuple[int, ...]
    extremes: tuple[int, ...]
    rounds: int
    values: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]

    @classmethod
    def of(cls, chart: Chart, name: str, rounds: Sequence[Mapping[str, list[int]]], records: Mapping[str, Record]) -> "Known":
        """The values of one kind of measurement.

        Args:
            chart: the grid.
            name: of the measurement.
            rounds: for each round its "points", and which of them were "held out" or "extremes".
            records: those of the points. An eigenvalue that did not converge counts as none.

        Raises:
            NumericalError: no point has a value.
            UsageError: the losses have no standard error.
        """
        numbers = [k for one in rounds for k in one["points"]]
        rows: dict[str, np.ndarray] = {}
        found = [records.get(f"{name}:{k}", {}) for k in numbers]
        for i, record in enumerate(found):
            for quantity, row in record.get("values", {}).items():
                column = rows.setdefault(quantity, np.full((2, len(numbers)), np.nan))
                if quantity not in record.get("unconverged", ()):
                    column[:, i] = [number_or_nan(x) for x in row[:2]]
        values = {q: row[0] for q, row in rows.items()}
        if not any(np.isfinite(v).any() for v in values.values()):
            reason = next((r["failed"] for r in found if "failed" in r), "no finite value")
            raise NumericalError(f"expected points that can be computed, found that all failed: {reason}")
        errors = {q: _errors(q, rows, values) for q in BOUNDED if q in values}
        last, tries = rounds[-1], sum(bool(one["held out"]) for one in rounds)
        return cls(chart, np.array(numbers, int), tuple(last["held out"]), tuple(last["extremes"]), tries, values, errors)

    def spline(self, quantity: str, at: np.ndarray, without_held: bool = False) -> Fit:
        """A bounded quantity at the points `at`, from the known ones with finite values."""
        use = self.finite(quantity, without_held)
        known = self.places[self.numbers[use]]
        return fit(known, self.values[quantity][use], self.places[at], quantity in self.logarithmic)

    def between(self, quantity: str, at: np.ndarray, without_held: bool = False) -> np.ndarray:
        """Any quantity at the points `at`; one that is not bounded, such as an accuracy, lies between its known values."""
        if quantity in self.errors:
            return self.spline(quantity, at, without_held).values
        use = self.finite(quantity, without_held)
        own = self.values[quantity][use]
        return np.clip(interpolated_linearly(self.places[self.numbers[use]], own, self.places[at]), own.min(), own.max())

    def apart(self, quantity: str, at: np.ndarray) -> np.ndarray:
        """How far the two splines are apart, in errors."""
        use = self.finite(quantity)
        errors = interpolated_linearly(self.places[self.numbers[use]], np.log(self.errors[quantity][use]), self.places[at])
        return self.spline(quantity, at).apart / np.exp(errors)

    def finite(self, quantity: str, without_held: bool = False) -> np.ndarray:
        """Mask over the known points: those with a finite value."""
        good = np.isfinite(self.values[quantity])
        return good & ~np.isin(self.numbers, (*self.held, *self.extremes)) if without_held else good

    @cached_property
    def logarithmic(self) -> frozenset[str]:
        """The bounded quantities whose logarithms are interpolated: one choice for all points, which those held out share."""
        found = set()
        for quantity in self.errors:
            use = self.finite(quantity, without_held=True)
            if (self.values[quantity][self.finite(quantity)] > 0).all() and use.any():
                known = self.places[self.numbers[use]]
                found |= {quantity} if suits_logarithms(known, self.values[quantity][use], self.places[self.rest]) else set()
        return frozenset(found)

    def off(self) -> dict[int, float]:
        """How far points held out and extremes are from what the others say, in errors; infinite where one has no value."""
        judged = (*self.held, *self.extremes)
        found = dict.fromkeys(judged, 0.0)
        at, where = np.array(judged, int), self._where(judged)
        for quantity in self.errors if judged else ():
            exact, errors = (of[quantity][where] for of in (self.values, self.errors))
            ratios = np.abs(self.between(quantity, at, without_held=True) - exact) / errors
            for k, ratio in zip(judged, ratios, strict=True):
                found[k] = max(found[k], float(ratio) if np.isfinite(ratio) else np.inf)
        return found

    def held_out(self) -> dict[str, HeldOut]:
        """What the points held out say about each quantity."""
        found: dict[str, HeldOut] = {}
        for quantity, values in self.values.items() if self.held else ():
            exact = values[self._where(self.held)]
            good = np.isfinite(exact)
            if not good.any():
                continue
            at = np.array(self.held, int)[good]
            errors = self.errors[quantity][self._where(self.held)][good] if quantity in self.errors else None
            places = [self.chart.place(int(k)) for k in at]
            predicted = self.between(quantity, at, without_held=True)
            found[quantity] = HeldOut.of(predicted, exact[good], errors, places, self.rounds)
        return found

    @cached_property
    def rest(self) -> np.ndarray:
        """The points that are not known."""
        return np.setdiff1d(np.arange(self.chart.size), self.numbers)

    @cached_property
    def places(self) -> np.ndarray:
        """(size, d) places of all points of the chart, in a unit cube."""
        index = np.unravel_index(np.arange(self.chart.size), self.chart.shape)
        return np.stack(index, axis=1) / (np.array(self.chart.shape) - 1)

    def _where(self, numbers: Sequence[int]) -> np.ndarray:
        """Where points stand among the known ones."""
        at = {int(k): i for i, k in enumerate(self.numbers)}
        return np.array([at[k] for k in numbers], int)


def _errors(quantity: str, rows: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """The errors that the tolerance is measured in: standard errors over samples, for eigenvalues a share of |lambda_max|.

    Raises:
        UsageError: a loss has no standard error.
    """
    own = values[quantity]
    errors = EIGENVALUE_ERROR * np.abs(values["lambda_max"]) if quantity.startswith("lambda") else rows[quantity][1]
    if not np.isfinite(errors[np.isfinite(own)]).all():
        raise UsageError(
            f"expected a {quantity.replace('_', ' ')} with a standard error over samples, which the tolerance is measured in, "
            "found one without",
            fix="leave the tolerance out, or use a loss that is a mean over more than one sample",
        )
    return np.maximum(errors, _FLOOR * np.abs(own) + 1e-12)
