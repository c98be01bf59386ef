"""How the values of a surface are computed: precision, points per evaluation, deviation from full precision."""

from dataclasses import dataclass, replace

from landscape.objective import Objective
from landscape.results import Slice
from landscape.surfaces.axes.chart import Chart
from landscape.surfaces.running.measurement import Losses
from landscape.surfaces.running.point_loop import survey
from landscape.surfaces.running.precision import Exact, in_precision
from landscape.surfaces.running.run_directory import Run
from landscape.surfaces.running.settings import settled, words


@dataclass(frozen=True, eq=False)
class Drawn:
    """The losses of a surface as drawn, and in full precision at some points if the precision is lower.

    Attributes:
        objective: the objective whose values are drawn.
        losses: losses at every point.
        exact: losses in full precision at some points; None if `losses` are in full precision.
        precision: precision of the losses, if it is not the full one.
    """

    objective: Objective
    losses: Losses
    exact: Exact | None
    precision: str

    @classmethod
    def of(
        cls, objective: Objective, test: Objective | None, precision: str | None, chart: Chart, run: Run, recalibrates: bool
    ) -> "Drawn":
        """The losses of a surface that is computed in `run`.

        Args:
            objective, test, precision, chart: those of the surface.
            run: stores the number of points per evaluation.
            recalibrates: whether BatchNorm statistics are re-estimated at every point.

        Raises:
            UsageError: the network does not support that precision.
        """
        own = in_precision(objective, precision)
        other = None if test is None else in_precision(test, precision)
        size = settled(run, [own, *([] if other is None else [other])], chart.size, recalibrates)
        exact = None if own is objective else Exact(chart, objective, test)
        return cls(own, Losses(chart, own, other, size), exact, precision or "")

    def named(self, empty: Slice) -> Slice:
        """A slice without values, with the way they are computed in title and provenance."""
        title = empty.title if self.exact is None else f"{empty.title}, {self.precision}"
        return replace(
            empty, title=title, provenance=empty.provenance | {"evaluation": words(self.losses.together, self.objective)}
        )  # fmt: skip

    def compared(self, found: Slice, run: Run) -> Slice:
        """A finished slice with its deviation from full precision. Cost: 9 to 13 points in full precision, if needed."""
        if self.exact is None:
            return found
        survey(self.exact, run.journal)
        deviations = self.exact.deviations(found, self.precision, run.journal.records)
        title = found.title
        if "loss" in deviations:
            title = title.removesuffix(self.precision) + deviations["loss"].short
        return replace(found, deviations=deviations, title=title)
