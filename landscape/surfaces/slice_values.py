"""The values of a line, a plane or a path: what determines them, and their computation point by point."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from landscape.errors import NumericalError
from landscape.objective import Objective
from landscape.results import Slice
from landscape.surfaces.axes.chart import Chart, Span
from landscape.surfaces.refining.between_points import interpolated
from landscape.surfaces.refining.next_points import Tolerance
from landscape.surfaces.refining.rounds import refined
from landscape.surfaces.running.measurement import Extremes, Losses, filled
from landscape.surfaces.running.point_loop import recheck, survey
from landscape.surfaces.running.run_directory import Run

Seen = Callable[[Slice], None]

_SHOW = 3.0  # seconds between two previews of an unfinished slice


def identity(
    objective: Objective, test: Objective | None, batchnorm: str, spans: Sequence[Span], grids: Sequence[int]
) -> dict[str, Any]:
    """The inputs that determine a surface's values, apart from its axes, as text and digests."""
    parts = objective.fingerprints | ({} if test is None else {"test data": test.fingerprints["data"]})
    return parts | {
        "samples": objective.samples,
        "test samples": None if test is None else test.samples,
        "micro-batches": str(objective.batch_sizes),
        "span": [[float(x) for x in s] for s in spans],
        "grid": list(grids),
        "dtype": str(objective.dtype),
        "device": objective.device.type,
        "batchnorm": batchnorm,
    }


def provenance(objective: Objective, test: Objective | None) -> dict[str, Any]:
    """The provenance of a slice: samples, weights, dtype."""
    found = {
        "samples": objective.samples,
        **objective.varying,
        **objective.counted,
        "dtype": str(objective.dtype).removeprefix("torch."),
    }
    return found | ({} if test is None else {"test_samples": test.samples})


def varied(curvature: bool, precision: str | None, tolerance: Tolerance | None) -> dict[str, Any]:
    """What is measured, as inputs of a run; what is not asked for is left out."""
    return (
        {"curvature": curvature}
        | ({"precision": precision} if precision else {})
        | ({"tolerance": tolerance.errors, "seed of points held out": tolerance.seed} if tolerance else {})
    )


def prepare(objective: Objective) -> None:
    """Choose the batch sizes now, because the last bits of values depend on them: they must not depend on earlier calls.

    A network without second derivatives has a surface, too, so errors of the preflight check are ignored here. A problem with
    its values is reported at the first point.
    """
    with suppress(NumericalError):
        objective.preflight()


def surveyed(
    empty: Slice,
    chart: Chart,
    parts: Sequence[Losses | Extremes],
    run: Run,
    seen: Seen | None,
    tolerance: Tolerance | None = None,
    needed: Sequence[int] = (),
) -> Slice:
    """Compute the points of all parts and return them as a slice.

    Args:
        empty, chart, parts, run, seen: the slice without values, its grid, what is measured, where, and who is shown it.
        tolerance: how far off interpolated points may be; None computes all points.
        needed: points that are computed in any case.

    Raises:
        NumericalError: every point failed.
        UsageError: a saved point differs from its value now; losses without a standard error, with a tolerance.
    """

    def so_far() -> Slice:
        return filled(empty, chart, parts, run.journal.records)

    watched = None if seen is None else _rarely(lambda: seen(so_far()))
    if tolerance is not None:
        known = [refined(part, chart, run, tolerance, needed, watched) for part in parts]
        found = so_far()
        for one in known:
            found = interpolated(found, one, tolerance)
        return found
    recheck(parts[0], run.journal, chart)  # the first part is the loss: one cheap point shows a change of any input
    for part in parts:
        survey(part, run.journal, watched)
    found = so_far()
    if not found.values:
        reason = next((r["failed"] for r in run.journal.records.values() if "failed" in r), "no point")
        raise NumericalError(f"expected points that can be computed, found that all failed: {reason}")
    return found


def _rarely(show: Callable[[], None]) -> Callable[[], None]:
    """Call `show` every few seconds, and less often if it is slow, so that it takes at most a tenth of the time."""
    ready = time.monotonic() + 0.5

    def maybe() -> None:
        nonlocal ready
        started = time.monotonic()
        if started >= ready:
            show()
            ready = time.monotonic() + max(_SHOW, 10 * (time.monotonic() - started))

    return maybe
