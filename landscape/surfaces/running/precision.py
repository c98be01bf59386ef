"""A surface in bfloat16: which values it has in full precision at a spread of its points, and how far off it is."""

from collections.abc import Mapping
from itertools import product

import numpy as np

from landscape.errors import UsageError
from landscape.machine.json_values import number_or_nan
from landscape.objective import Objective
from landscape.results import Deviation, Slice
from landscape.surfaces.axes.chart import Chart
from landscape.surfaces.running.measurement import Unit
from landscape.surfaces.running.point_records import Record, encoded

# Points that are compared on a line; on a plane they are the 3 x 3 of corners, middles of sides and centre, and 4 between.
_ON_A_LINE, COMPARED = 9, 13


def in_precision(objective: Objective, precision: str | None) -> Objective:
    """The objective whose values are drawn: itself, or its variant in another precision.

    Raises:
        UsageError: a precision that there is not, or that the network cannot compute in.
    """
    own = str(objective.dtype).removeprefix("torch.")
    if precision is None or precision == own:
        return objective
    if precision == "float32":
        raise UsageError(f"expected precision {own} or none for an objective in {own}, found float32", fix="pass dtype float32")
    return objective.values_in(precision)


def spread(chart: Chart) -> list[int]:
    """Numbers of a few points all over a chart: centre, corners, and some between; all of them where there are few.

    Example:
        >>> flat = Chart(("d",), (np.linspace(-1, 1, 17),), lambda p: None, lambda p, t: None, (0.0,))
        >>> spread(flat)
        [0, 2, 4, 6, 8, 10, 12, 14, 16]
    """
    if chart.size <= _ON_A_LINE:
        return list(range(chart.size))
    if len(chart.shape) == 1:
        places = {(int(i),) for i in np.linspace(0, chart.shape[0] - 1, _ON_A_LINE).round()} | {chart.middle}
    else:
        edges = [(0, middle, n - 1) for n, middle in zip(chart.shape, chart.middle, strict=True)]
        between = [(n // 4, n - 1 - n // 4) for n in chart.shape]
        places = {*product(*edges), *product(*between)}
    return sorted(int(np.ravel_multi_index(p, chart.shape)) for p in places)


class Exact:
    """The losses in full precision at a spread of points, to compare a surface with.

    Args:
        chart: where.
        objective: in full precision.
        test: on other data.
    """

    def __init__(self, chart: Chart, objective: Objective, test: Objective | None) -> None:
        self.chart = chart
        self.objectives = {"loss": objective} | ({"test_loss": test} if test is not None else {})
        self.name = str(objective.dtype).removeprefix("torch.")
        self.order = spread(chart)
        self.units: list[Unit] = [(k,) for k in self.order]

    def wants(self, number: int) -> None:
        """Points do not depend on one another."""

    def __call__(self, unit: Unit) -> list[Record]:
        """Losses at a point, with their standard errors. Cost: one forward pass in full precision."""
        theta, buffers = self.chart.at(self.chart.place(unit[0]))
        found = {q: o.evaluate(theta, buffers).loss for q, o in self.objectives.items()}
        return [{"values": {q: [encoded(e.value), encoded(e.stderr), None] for q, e in found.items()}}]

    def deviations(self, piece: Slice, precision: str, records: Mapping[str, Record]) -> dict[str, Deviation]:
        """How far each loss of a surface is off, from what is recorded."""
        out = {}
        known = [(k, r["values"]) for k in self.order if "values" in (r := records.get(f"{self.name}:{k}", {}))]
        for quantity in self.objectives:
            if quantity not in piece.values or not known:
                continue
            values = np.asarray(piece.values[quantity], float)
            finite = values[np.isfinite(values)]
            exact, stderr = (np.array([number_or_nan(v[quantity][i]) for _, v in known]) for i in (0, 1))
            out[quantity] = Deviation.of(
                values.ravel()[[k for k, _ in known]], exact, stderr, [self.chart.place(k) for k, _ in known],
                float(np.ptp(finite)) if finite.size else 0.0, precision, self.name,
            )  # fmt: skip
        return out
