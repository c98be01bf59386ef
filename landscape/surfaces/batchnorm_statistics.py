"""BatchNorm statistics at the points of a chart."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from landscape.errors import MismatchError, UsageError
from landscape.objective import Objective
from landscape.surfaces.axes.chart import Place, Statistics

BatchNorm = Literal["eval", "recalibrate", "interpolate"]

WORDS = {
    "eval": "statistics of the centre",
    "recalibrate": "re-estimated at each point",
    "interpolate": "statistics interpolated between the checkpoints",
}


def is_normalized(objective: Objective) -> bool:
    """Whether the network has BatchNorm layers with running statistics, which can be re-estimated."""
    return bool(objective.batchnorms)


def checked(batchnorm: str) -> None:
    """Raise UsageError for an unknown choice."""
    if batchnorm not in get_args(BatchNorm):
        raise UsageError(f"expected batchnorm recalibrate, interpolate or eval, found {batchnorm!r}", fix="choose one of them")


def on_plane(objective: Objective, ends: Sequence[Mapping[str, Tensor] | None], batchnorm: BatchNorm) -> Statistics:
    """Statistics on theta + sum_i a_i d_i.

    Args:
        objective: the network at the centre.
        ends: for each axis the buffers of the checkpoint that it points to; None if it points to none.
        batchnorm: "eval" uses those of the centre; "recalibrate" re-estimates them from the objective's data at every point,
            including the centre; "interpolate" uses b_0 + sum_i a_i (b_i - b_0), with variances cut at zero.

    Raises:
        UsageError: an unknown choice; "interpolate" along an axis that does not point to a checkpoint.
        MismatchError: "interpolate", and a checkpoint lacks a buffer of this network.
    """
    checked(batchnorm)
    if not is_normalized(objective) or batchnorm == "eval":
        return lambda place, theta: None
    if batchnorm == "recalibrate":
        return lambda place, theta: objective.recalibrated(theta)
    if any(end is None for end in ends):
        raise UsageError(
            "expected axes towards other checkpoints for batchnorm interpolate, found one without statistics at its end",
            fix="use recalibrate or eval",
        )
    own = objective.buffers
    for end in ends:
        if lacking := sorted(n for n in own if end is None or n not in end or end[n].shape != own[n].shape):
            raise MismatchError(
                f"expected checkpoints with the buffers of this network, found one without {lacking[0]}",
                fix="use batchnorm recalibrate or eval",
            )
    steps = [{n: end[n].to(b) - b for n, b in own.items()} for end in ends if end is not None]

    def interpolated(place: Place, theta: Tensor) -> dict[str, Tensor]:
        return {
            n: _variance(n, b + sum(a * step[n] for a, step in zip(place, steps, strict=True) if a)) for n, b in own.items()
        }

    return interpolated


def on_path(start: Objective, end: Objective, batchnorm: BatchNorm) -> Statistics:
    """Statistics on a path from `start` (place 0) to `end` (place 1).

    As `on_plane`. "recalibrate" re-estimates them at every point, including both ends: stored statistics at the ends next to
    re-estimated ones would cause a jump in the loss that does not come from the weights. With "interpolate" and "eval" each
    network has its own statistics at its end, to the bit; in between "eval" uses the running statistics of the start. Other
    buffers are interpolated.
    """
    checked(batchnorm)
    first, last = start.buffers, {n: b.to(start.theta) for n, b in end.buffers.items()}
    held = {f"{layer}.{name}".lstrip(".") for layer in start.batchnorms for name in ("running_mean", "running_var")}
    others = [n for n in first if n not in held and not torch.equal(first[n], last[n])]

    def at(place: Place, theta: Tensor) -> dict[str, Tensor]:
        (a,) = place
        ends = {0.0: first, 1.0: last}
        between = ends[a] if a in ends else {n: _variance(n, torch.lerp(first[n], last[n], a)) for n in first}
        if batchnorm == "recalibrate" and held:
            # Other buffers are interpolated before the statistics are re-estimated.
            there = start.at(theta, {n: between[n] for n in others}) if others else start
            return between | there.recalibrated(theta)
        if batchnorm == "eval" and a not in ends:
            return between | {n: b for n, b in first.items() if n in held}
        return between

    return at


def _variance(name: str, value: Tensor) -> Tensor:
    """An interpolated buffer; a running variance is cut at zero."""
    return value.clamp_min(0.0) if name.endswith("running_var") else value
