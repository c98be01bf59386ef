"""Paths between minima: the straight line or a trained curve."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError, hinting
from landscape.objective import Objective
from landscape.results import DONE, FAILED, INTERPOLATED, MISSING, Barrier, Slice
from landscape.surfaces.axes.chart import Chart, Span, coordinates
from landscape.surfaces.axes.same_network import check_same_network
from landscape.surfaces.batchnorm_statistics import BatchNorm, is_normalized, on_path
from landscape.surfaces.checks.check_path import check_path
from landscape.surfaces.refining.next_points import Tolerance
from landscape.surfaces.running.measurement import Extremes, Losses, errors_of_means
from landscape.surfaces.running.run_directory import Run, digest
from landscape.surfaces.running.settings import settled_products
from landscape.surfaces.running.sharing import shared_folder
from landscape.surfaces.running.value_sources import Drawn
from landscape.surfaces.slice_values import Seen, identity, prepare, provenance, surveyed, varied

if TYPE_CHECKING:
    from landscape.surfaces.axes.curve import Curve

_OF_BARRIERS = ("loss", "accuracy")
_GAPS = ((FAILED, "failed"), (MISSING, "missing"))
_WORDS = {
    "recalibrate": "re-estimated at each point, both ends too",
    "interpolate": "statistics interpolated",
    "eval": "statistics of the start; the end has its own",
}


@hinting
def interpolation(
    start: Objective,
    end: Objective,
    *,
    span: Span = (0.0, 1.0),
    grid: int = 31,
    test: Objective | None = None,
    batchnorm: BatchNorm = "recalibrate",
    curve: "Curve | None" = None,
    curvature: bool = False,
    precision: str | None = None,
    tolerance: float | None = None,
    run: str | Path | None = None,
    seen: Seen | None = None,
) -> Slice:
    """Loss on the straight line between two networks, f(a) = L((1 - a) theta_0 + a theta_1), or on a curve, and its barrier.

    The barrier is sup f over [0, 1] minus the mean of f(0) and f(1); for an accuracy, that mean minus the infimum. Both
    networks are evaluated on the data of `start`. At a = 0 and a = 1 each network has its own weights to the bit, and its own
    buffers unless BatchNorm statistics are re-estimated.

    Args:
        start: network at a = 0. All points use its data, also for re-estimating BatchNorm statistics, so these should be
            training data.
        end: network at a = 1, of the same architecture.
        span, grid: as for `line`; default 31 points from one end to the other.
        test: an Objective of the same architecture on test data, evaluated at the same points with the same statistics.
        batchnorm: running statistics of BatchNorm: "recalibrate" re-estimates them at every point, including both ends
            (`landscape.values.recalibration`); "interpolate" interpolates linearly between the ends (beyond the ends variances
            are cut at zero); "eval" uses those of the start except at the end. With the last two the statistics do not match
            the weights, and this may cause much of the barrier. Other buffers are interpolated.
        curve: a path between the two from `train_curve`; default the straight line.
        curvature, precision, tolerance, run, seen: as for `line`.

    Returns:
        Slice with its check (`landscape.results.PathCheck`), and a Barrier for each quantity if 0 and 1 are on the grid; it has
            a reason instead of a height if points in between failed. The provenance names the statistics. With "recalibrate" it
            also has the loss of both ends with their stored statistics ("loss_of_ends_as_stored"); if it differs, the stored
            statistics are stale.

    Raises:
        MismatchError: the two networks differ in their parameters.
        UsageError: an unknown `batchnorm`, or weights that are held differ.

    Cost: one forward pass per point. "recalibrate" with BatchNorm adds one or more passes on the data of `start`, see there. A
        few passes for the check; with `curvature` products per point, as for `line`.

    Accuracy: a barrier's standard error is that of the mean over samples of (loss at the top - mean loss of the ends), with
        paired samples. It is the sampling error; the supremum is taken over the grid.

    Reference: Goodfellow, Vinyals, Saxe 2015, arXiv:1412.6544; Frankle et al. 2020, arXiv:1912.05671, section 2, for the
        barrier (30 points; on error rates there); Keskar et al. 2017, arXiv:1609.04836, figure 3.
    """
    check_same_network(start, end)
    if curve is not None and not (span[0] >= 0 and span[1] <= 1):
        raise UsageError(
            f"expected a span inside 0 1, the ends of the curve, found {span[0]:g} to {span[1]:g}", fix="pass --span 0 1"
        )
    if start.group.size > 1:  # processes divide the points, not the samples
        with shared_folder(start.group, run) as place:
            tested, watch = None if test is None else test.alone(), seen if start.group.rank == 0 else None
            return interpolation(
                start.alone(), end.alone(), span=span, grid=grid, test=tested, batchnorm=batchnorm, curve=curve,
                curvature=curvature, precision=precision, tolerance=tolerance, run=place, seen=watch,
            )  # fmt: skip
    prepare(start)
    theta0, theta1 = start.theta, end.theta.to(start.theta)

    def straight(t: float) -> Float[Tensor, " P"]:
        # lerp with a weight of exactly 1 returns its end to the bit, which 0 * theta0 + 1 * theta1 would not for infinities
        return torch.lerp(theta0, theta1, t)

    point: Callable[[float], Tensor] = straight if curve is None else curve.point
    name = "from one minimum (0) to the other (1)" if curve is None else f"along the {curve.kind} curve, minima at 0 and 1"
    chart = Chart(
        (name,), (coordinates(span, grid),), lambda place: point(place[0]), on_path(start, end, batchnorm), (0.0,),
        ends=((1.0,),),
    )  # fmt: skip
    shape = {} if curve is None else {"curve": digest(curve.control)}
    ends = {"end": digest(theta1, *end.buffers.values())}
    allowed = None if tolerance is None else Tolerance(tolerance)
    inputs = identity(start, test, batchnorm, (span,), (grid,)) | varied(curvature, precision, allowed) | ends | shape
    title = f"Loss on {'the line' if curve is None else f'a trained {curve.kind} curve'} between two minima"
    facts: dict[str, Any] = provenance(start, test) | {"distance": float((theta1 - theta0).norm())}
    normalized = is_normalized(start)
    if normalized:
        title += ", BatchNorm of the start" if batchnorm == "eval" else f", BatchNorm {batchnorm}d"
        facts["batchnorm"] = _WORDS[batchnorm]
    kept = Run(None if run is None else Path(run), inputs)
    with kept.computing():
        drawn = Drawn.of(start, test, precision, chart, kept, normalized and batchnorm == "recalibrate")
        parts: list[Losses | Extremes] = [drawn.losses]
        if curvature:
            parts.append(Extremes(chart, settled_products(start, kept), kept, warm=allowed is None))
        empty = Slice(chart.axes, chart.coordinates, {}, {}, None, title, facts, path=True)
        compared = () if drawn.exact is None else drawn.exact.order
        found = surveyed(drawn.named(empty), chart, parts, kept, seen, allowed, compared)
        kept.drop_all_vectors()
        found = drawn.compared(found, kept)
        heights = {q: _barrier(q, found, chart, drawn.losses) for q in found.values if q.endswith(_OF_BARRIERS)}
        barriers = {q: barrier for q, barrier in heights.items() if barrier is not None}
        check = check_path(start, end, curve, found, batchnorm, drawn.objective)
        if check.own_ends is not None:
            found = replace(found, provenance=found.provenance | {"loss_of_ends_as_stored": list(check.own_ends)})
    return replace(found, barriers=barriers, check=check)


def _barrier(quantity: str, piece: Slice, chart: Chart, losses: Losses) -> Barrier | None:
    """The barrier of one quantity, with its error from paired differences of samples; None if an end is not on the grid."""
    kind = quantity.removeprefix("test_")
    at, values = piece.coordinates[0], piece.values[quantity]
    first, last = (np.flatnonzero(at == end) for end in (0.0, 1.0))
    if not len(first) or not len(last):
        return None
    i, j = int(first[0]), int(last[0])
    ends = float((values[i] + values[j]) / 2)
    between = piece.status[quantity][i : j + 1]
    gaps = [f"{n} of {len(between)} points {word}" for state, word in _GAPS if (n := int((between == state).sum()))]
    if gaps:  # the highest point may be among them
        return Barrier(math.nan, None, math.nan, ends, " and ".join(gaps))
    lost = i + np.flatnonzero(~np.isin(between, (DONE, INTERPOLATED)))
    if len(lost):
        return Barrier(np.inf, None, float(at[lost[0]]), ends)
    objective = losses.objectives["test_" if quantity != kind else ""]
    if kind == "accuracy" and (between == INTERPOLATED).any():
        return Barrier(math.nan, None, math.nan, ends, "accuracies are interpolated, without a bound: leave the tolerance out")
    sign = -1.0 if kind == "accuracy" else 1.0
    heights = sign * (values[i : j + 1] - ends)
    computed = between != INTERPOLATED
    while not computed[top := int(np.argmax(heights))]:  # the highest point is computed
        heights[top] = sign * (objective.evaluate(*chart.at(chart.place(i + top))).loss.value - ends)
        computed[top] = True
    top += i
    each = [objective.evaluate(*chart.at(chart.place(k))).each for k in (top, i, j)]
    stderr = None
    if all(kind in e for e in each):
        (stderr,) = errors_of_means((each[0][kind] - (each[1][kind] + each[2][kind]) / 2)[None], each[0]["weight"])
    return Barrier(float(heights[top - i]) + 0.0, stderr, float(at[top]), ends)
