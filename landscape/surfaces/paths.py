"""Paths between minima."""

from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape import progress
from landscape.errors import MismatchError, UsageError
from landscape.losses import standard_error
from landscape.objective import Objective
from landscape.results import Barrier, Evaluation, Slice
from landscape.surfaces.grid import Recorder, Span, coordinates

BatchNorm = Literal["recalibrate", "interpolate", "eval"]

_WORDS = {
    "recalibrate": "re-estimated at each point, own at both ends",
    "interpolate": "statistics interpolated",
    "eval": "statistics of the start; the end has its own",
}


def interpolation(
    start: Objective,
    end: Objective,
    *,
    span: Span = (0.0, 1.0),
    grid: int = 31,
    test: Objective | None = None,
    batchnorm: BatchNorm = "recalibrate",
) -> Slice:
    """Loss on the straight line between two networks: f(a) = L((1 - a) theta_0 + a theta_1), and its barrier.

    The barrier is sup f over [0, 1] less the mean of f(0) and f(1); of an accuracy, that mean less the infimum. Both networks
    are evaluated on the data of `start`. Both ends are exact: at a = 0 and a = 1 each network has its own buffers to the bit.

    Args:
        start: a = 0; its data are used all along, and BatchNorm is re-estimated from them: training data.
        end: a = 1; the same architecture.
        span, grid: as in `line`; default 31 points from one end to the other.
        test: an Objective of the same architecture on test data, evaluated at the same points with the same statistics.
        batchnorm: running statistics between the ends, where the network has any: "recalibrate" re-estimates them at every
            point (`landscape.recalibration`), "interpolate" takes them on the line between the ends' (beyond the ends a
            variance is cut at zero), "eval" keeps the start's. With the last two the statistics do not belong to the weights,
            and much of the barrier may be due to that. Other buffers are interpolated.

    Returns:
        Slice with a Barrier for each quantity where 0 and 1 are on the grid. The provenance names the statistics; with
            "recalibrate" it has the loss of both ends under re-estimated statistics too, to see the step that keeping their own
            leaves at the ends.

    Raises:
        MismatchError: the two networks differ in their parameters.
        UsageError: an unknown `batchnorm`.

    Cost: one forward pass a point; with "recalibrate" and BatchNorm one more on the data of `start`, or many: see there.

    Accuracy: a barrier's standard error is that of the mean over samples of (loss at the top - mean loss of the ends), each
        sample with itself. It is the doubt from having these samples; the supremum is over the grid.

    Reference: Goodfellow, Vinyals, Saxe 2015, arXiv:1412.6544; Frankle et al. 2020, arXiv:1912.05671, section 2, for the
        barrier (30 points; on error rates there); Keskar et al. 2017, arXiv:1609.04836, figure 3.
    """
    if batchnorm not in get_args(BatchNorm):
        raise UsageError(f"expected batchnorm recalibrate, interpolate or eval, found {batchnorm!r}", fix="choose one of them")
    if [(e.name, e.shape) for e in start.layout] != [(e.name, e.shape) for e in end.layout]:
        raise MismatchError(
            "expected two networks of one architecture, found different parameters", fix="compare like with like"
        )
    theta0, theta1 = start.theta, end.theta.to(start.theta)
    buffers0, buffers1 = start.buffers, {n: b.to(start.theta) for n, b in end.buffers.items()}
    normalized = any(name.endswith("running_var") for name in buffers0)

    def buffers_at(a: float, point: Float[Tensor, " P"]) -> dict[str, Tensor]:
        if a in (0.0, 1.0):
            return buffers0 if a == 0.0 else buffers1
        between = {n: _interpolated(n, buffers0[n], buffers1[n], a) for n in buffers0}
        if batchnorm == "eval":
            return between | {n: b for n, b in buffers0.items() if n.endswith(("running_mean", "running_var"))}
        return between | start.recalibrated(point) if batchnorm == "recalibrate" else between

    at = coordinates(span, grid)
    recorder = Recorder((len(at),))
    evaluations: dict[str, list[Evaluation]] = {"": [], "test_": []}
    with progress.stage("interpolation", len(at)) as advance:
        for i, a in enumerate(float(x) for x in at):
            # lerp with a weight of exactly 1 returns its end to the bit, which 0 * theta0 + 1 * theta1 would not for infinities
            point = torch.lerp(theta0, theta1, a)
            buffers = buffers_at(a, point)
            for prefix, objective in (("", start), ("test_", test)):
                if objective is not None:
                    evaluations[prefix].append(objective.evaluate(point, buffers))
                    recorder.put((i,), evaluations[prefix][-1], prefix)
            advance(1)
    provenance: dict[str, Any] = {
        "samples": start.samples,
        "weights": start.dim,
        "dtype": str(start.dtype).removeprefix("torch."),
        "distance": float((theta1 - theta0).norm()),
    }
    if normalized:
        provenance["batchnorm"] = _WORDS[batchnorm]
        if batchnorm == "recalibrate":
            ends = [start.evaluate(theta, start.recalibrated(theta)).loss.value for theta in (theta0, theta1)]
            provenance["loss_of_ends_recalibrated"] = ends
    title = "Loss on the line between two minima" + (f", BatchNorm {batchnorm}d" if normalized and batchnorm != "eval" else "")
    if normalized and batchnorm == "eval":
        title += ", BatchNorm of the start"
    barriers = {
        name: b for name in recorder.values if (b := _barrier(name, at, recorder.values[name], evaluations)) is not None
    }
    return Slice(
        ("from one minimum (0) to the other (1)",), (np.asarray(at),), recorder.values, recorder.stderr, None,
        title, provenance, barriers,
    )  # fmt: skip


def _interpolated(name: str, a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """One buffer on the way; a running variance never below zero."""
    mixed = torch.lerp(a, b, t)
    return mixed.clamp_min(0.0) if name.endswith("running_var") else mixed


def _barrier(quantity: str, at: np.ndarray, values: np.ndarray, evaluations: dict[str, list[Evaluation]]) -> Barrier | None:
    """The barrier of one quantity, with its error from the samples' own differences; None if an end is not on the grid."""
    kind = quantity.removeprefix("test_")
    points = evaluations["test_" if quantity != kind else ""]
    first, last = (np.flatnonzero(at == end) for end in (0.0, 1.0))
    if not len(first) or not len(last):
        return None
    i, j = int(first[0]), int(last[0])
    ends = float((values[i] + values[j]) / 2)
    lost = i + np.flatnonzero(~np.isfinite(values[i : j + 1]))
    if len(lost):
        return Barrier(np.inf, None, float(at[lost[0]]), ends)
    sign = -1.0 if kind == "accuracy" else 1.0
    heights = sign * (values[i : j + 1] - ends)
    top = i + int(np.argmax(heights))
    each = [points[k].each for k in (top, i, j)]
    stderr = None
    if all(kind in e for e in each):
        difference = sign * (each[0][kind] - (each[1][kind] + each[2][kind]) / 2)
        counted = ~np.isnan(difference)
        stderr = standard_error(
            torch.from_numpy(difference[counted]), torch.from_numpy(each[0]["weight"][counted]), float(heights[top - i])
        )
    return Barrier(float(heights[top - i]) + 0.0, stderr, float(at[top]), ends)
