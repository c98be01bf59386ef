"""The rounds of a surface with a tolerance. Every list of points is decided once, by the first process of the run."""

from collections.abc import Callable, Sequence
from typing import Any

from landscape.errors import MalformedError
from landscape.surfaces.axes.chart import Chart
from landscape.surfaces.refining.known_values import Known
from landscape.surfaces.refining.next_points import Tolerance, first_points, next_points
from landscape.surfaces.running.measurement import Extremes, Losses, Some
from landscape.surfaces.running.point_loop import recheck, survey
from landscape.surfaces.running.run_directory import Run, agreed

_KINDS = ("points", "held out", "extremes")


def refined(
    part: Losses | Extremes,
    chart: Chart,
    run: Run,
    tolerance: Tolerance,
    needed: Sequence[int],
    seen: Callable[[], None] | None = None,
) -> Known:
    """Compute the points of a part that interpolation would miss by more than the tolerance.

    Args:
        part: losses or eigenvalues.
        chart, run: the grid; where values and lists of points are kept.
        needed: points that are computed in any case.
        seen: called after each chunk of work.

    Raises:
        UsageError: losses without a standard error to measure the tolerance in; a saved point differs from its value now.
        NumericalError: every point of the first lattice failed.
    """
    rounds: list[dict[str, list[int]]] = []
    while True:
        count = sum(len(one["points"]) for one in rounds)
        known = Known.of(chart, part.name, rounds, run.journal.records) if rounds else None

        def choose(known: Known | None = known) -> dict[str, Any]:
            if known is None:
                return dict(zip(_KINDS, (first_points(chart, needed), [], []), strict=True))
            return dict(zip(_KINDS, next_points(known, tolerance, part.together), strict=True))

        chosen = _stored(run, f"{part.name}-after-{count}-points", choose, chart.size)
        if known is not None and not chosen["points"]:
            return known
        some = Some(part, chosen["points"])
        if not rounds:
            recheck(some, run.journal, chart)
        survey(some, run.journal, seen)
        rounds.append(chosen)


def _stored(run: Run, name: str, choose: Callable[[], dict[str, Any]], size: int) -> dict[str, list[int]]:
    """Lists of points, as the first process of the run decided them.

    Raises:
        MalformedError: the file is damaged.
    """
    found = choose() if run.folder is None else agreed(run.folder, name, choose)
    lists = [found.get(kind) for kind in _KINDS]
    if not all(isinstance(one, list) and all(isinstance(k, int) and 0 <= k < size for k in one) for one in lists):
        raise MalformedError(f"expected lists of points in {name}.json, found {found}", fix=f"delete {run.folder}")
    return found
