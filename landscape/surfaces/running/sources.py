"""What the values of a surface come from: in which precision, how many points at once, and how far off that is."""

from dataclasses import dataclass, replace

from landscape.objective import Objective
from landscape.results import Slice
from landscape.surfaces.axes.chart import Chart
from landscape.surfaces.running.measurement import Losses
from landscape.surfaces.running.precision import Exact, in_precision
from landscape.surfaces.running.run_directory import Run
from landscape.surfaces.running.settings import settled, words
from landscape.surfaces.running.survey import survey


@dataclass(frozen=True, eq=False)
class Drawn:
    """The losses of a surface as they are drawn, and in full precision where that is another.

    Attributes:
        objective: whose values are drawn.
        losses: at every point.
        exact: in full precision at a spread of points; None where the others are that.
        precision: of the losses, where it is not the full one.
    """

    objective: Objective
    losses: Losses
    exact: Exact | None
    precision: str

    @classmethod
    def of(
        cls, objective: Objective, test: Objective | None, precision: str | None, chart: Chart, run: Run, recalibrates: bool
    ) -> "Drawn":
        """For a surface that is computed in `run`.

        Args:
            objective, test, precision, chart: of the surface.
            run: where the number of points at once is settled.
            recalibrates: whether BatchNorm's statistics are re-estimated at every point.

        Raises:
            UsageError: the network cannot compute in that precision.
        """
        own = in_precision(objective, precision)
        other = None if test is None else in_precision(test, precision)
        size = settled(run, [own, *([] if other is None else [other])], chart.size, recalibrates)
        exact = None if own is objective else Exact(chart, objective, test)
        return cls(own, Losses(chart, own, other, size), exact, precision or "")

    def named(self, empty: Slice) -> Slice:
        """A slice without values that says how they are computed."""
        title = empty.title if self.exact is None else f"{empty.title}, {self.precision}"
        return replace(
            empty, title=title, provenance=empty.provenance | {"evaluation": words(self.losses.together, self.objective)}
        )  # fmt: skip

    def compared(self, found: Slice, run: Run) -> Slice:
        """A finished slice that says how far off it is. Cost: 9 to 13 points in full precision, where that is another."""
        if self.exact is None:
            return found
        survey(self.exact, run.journal)
        deviations = self.exact.deviations(found, self.precision, run.journal.records)
        title = found.title
        if "loss" in deviations:
            title = title.removesuffix(self.precision) + deviations["loss"].short
        return replace(found, deviations=deviations, title=title)
