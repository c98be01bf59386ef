"""Checks of a line or curve between two networks, printed and stored with it."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.objective import Objective
from landscape.results import DONE, NOT_FINITE, Derivatives, PathCheck, Slice
from landscape.surfaces.batchnorm_statistics import BatchNorm, is_normalized
from landscape.surfaces.checks.check_derivatives import Near, compared, in_float64, rounding_without_kinks, unmade
from landscape.surfaces.checks.check_slice import difference

if TYPE_CHECKING:
    from landscape.surfaces.axes.curve import Curve

_GOLDEN = 0.381966  # position of the derivatives in the span: an irrational fraction, so that no grid point or corner is there


def check_path(
    start: Objective,
    end: Objective,
    curve: "Curve | None",
    piece: Slice,
    batchnorm: BatchNorm,
    drawn: Objective | None = None,
) -> PathCheck:
    """Compare a finished path with its two networks, with recomputed values, and with Hessian-vector products.

    Args:
        start, end, curve, batchnorm: as for `landscape.surfaces.interpolation`.
        piece: the path.
        drawn: `start` in the precision of the path's values, if that differs.

    Returns:
        The check. It does not use the code that drew the path: its weights come from the control points, by de Casteljau's
        algorithm for a Bezier curve, or on the side of the polygon (a line is a polygon with one side).

    Cost: four evaluations (with their statistics). In float64, on at most 32 samples (4 of more for convolutions), also
        one product, two gradients and 5 evaluations; with kinks 2 more gradients.

    Accuracy: phi'' = c'^T H c' + g^T c''. With "recalibrate" both results are those of the loss normalized by the batch of all
        samples. With "interpolate" they are not compared, because products hold the statistics fixed.

    Reference: Farin 2002, Curves and Surfaces for CAGD, 5th edition, sections 4.2 and 5.3, for the algorithm and derivatives.
    """
    if curve is None:
        control, straight = torch.stack([start.theta, end.theta.to(start.theta)]).double(), True
    else:
        control, straight = curve.control.double(), curve.kind == "polygon"
    at, values, status = piece.coordinates[0], piece.values["loss"], piece.status["loss"]
    drawn = drawn or start
    stored = drawn.value().value, drawn.at(end.theta, {n: b.to(start.theta) for n, b in end.buffers.items()}).value().value
    recalibrated = batchnorm == "recalibrate" and is_normalized(start)
    own = _recalibrated_ends(start, end, drawn) if recalibrated else stored
    known = np.isin(status, (DONE, NOT_FINITE))
    exact = tuple(_equal(at, values, known, place, loss) for place, loss in zip((0.0, 1.0), own, strict=True))
    low, high = float(at[0]), float(at[-1])
    if max(low, 0.0) < min(high, 1.0):
        low, high = max(low, 0.0), min(high, 1.0)
    place, sides = low + _GOLDEN * (high - low), len(control) - 1
    if straight and sides > 1:
        place = (
            min(int(place * sides), sides - 1) + 0.5
        ) / sides  # in the middle of a side, since there is no derivative at a corner
    inside = np.flatnonzero((status == DONE) & (at != 0) & (at != 1))
    found, again = [], []
    for k in dict.fromkeys(inside[[len(inside) // 3, 3 * len(inside) // 4]].tolist() if len(inside) else ()):
        theta = _along(control, straight, float(at[k]))[0].to(start.theta)
        found.append(float(values[k]))
        again.append(drawn.evaluate(theta, _statistics(start, end, batchnorm, float(at[k]), theta)).loss.value)
    derivatives = _derivatives(start, end, control, straight, place, batchnorm)
    return PathCheck(
        own, (exact[0], exact[1]), difference(found, again), place, derivatives, "" if drawn is start else drawn.precision,
        stored if recalibrated else None,
    )  # fmt: skip


def _recalibrated_ends(start: Objective, end: Objective, drawn: Objective) -> tuple[float, float]:
    """The loss of both networks with BatchNorm statistics of the start's data, each with its other buffers."""
    last = start.at(end.theta, {n: b.to(start.theta) for n, b in end.buffers.items()})
    first, other = (drawn.evaluate(o.theta, o.buffers | o.recalibrated()).loss.value for o in (start, last))
    return first, other


def _equal(at: np.ndarray, values: np.ndarray, known: np.ndarray, place: float, loss: float) -> bool | None:
    """Whether the path's value at a place equals this loss to the bit; None if it has no value there."""
    here = np.flatnonzero((at == place) & known)
    return bool(np.array_equal(values[here[0]], loss, equal_nan=True)) if len(here) else None


def _along(
    control: Float[Tensor, "n P"], straight: bool, t: float
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"], Float[Tensor, " P"]]:
    """c(t), c'(t) and c''(t) of a polygon or a Bezier curve."""
    n = len(control) - 1
    if straight:
        side = min(max(int(n * t), 0), n - 1)
        a, b = control[side], control[side + 1]
        return (1 - (n * t - side)) * a + (n * t - side) * b, n * (b - a), torch.zeros_like(a)
    rows, first, second = control, control[0], control[0]
    while len(rows) > 1:
        if len(rows) == 3:
            second = n * (n - 1) * (rows[0] - 2 * rows[1] + rows[2])
        elif len(rows) == 2:
            first = n * (rows[1] - rows[0])
        rows = (1 - t) * rows[:-1] + t * rows[1:]
    return rows[0], first, second


def _mixed(start: Objective, end: Objective, names: list[str], t: float) -> dict[str, Tensor]:
    """Buffers interpolated linearly between the two networks; a variance is cut at zero."""
    first, last = start.buffers, end.buffers
    mixed = {n: (1 - t) * first[n] + t * last[n].to(first[n]) for n in names}
    return {n: b.clamp_min(0.0) if n.endswith("running_var") else b for n, b in mixed.items()}


def _settled(start: Objective, batchnorm: BatchNorm) -> list[str]:
    """The names of the buffers that are not interpolated: running statistics of BatchNorm, unless "interpolate"."""
    if batchnorm == "interpolate":
        return []
    return [f"{layer}.{name}".lstrip(".") for layer in start.batchnorms for name in ("running_mean", "running_var")]


def _statistics(start: Objective, end: Objective, batchnorm: BatchNorm, t: float, theta: Tensor) -> dict[str, Tensor]:
    """All buffers at an interior point of the path, according to `batchnorm`."""
    held = _settled(start, batchnorm)
    rest = _mixed(start, end, [n for n in start.buffers if n not in held], t)
    if batchnorm != "recalibrate" or not held:
        return rest
    moving = any(not torch.equal(b, end.buffers[n].to(b)) for n, b in start.buffers.items() if n not in held)
    return rest | (start.at(theta, rest) if moving else start).recalibrated(theta)


def _derivatives(
    start: Objective, end: Objective, control: Tensor, straight: bool, place: float, batchnorm: BatchNorm
) -> Derivatives:
    """Derivatives of the loss along the path at an interior point, or the reason why there are none."""
    try:
        found = _of_path(start, end, control, straight, place, batchnorm)
    except Exception as error:  # the user's model may raise anything
        return unmade(error)
    numbers = [found.loss, *found.values.values(), *found.products.values()]
    return (
        found
        if np.isfinite(numbers).all()
        else Derivatives(samples=found.samples, reason="could not be made: no finite number there")
    )


def _of_path(
    start: Objective, end: Objective, control: Tensor, straight: bool, place: float, batchnorm: BatchNorm
) -> Derivatives:
    """Derivatives of the loss along the path at an interior point."""
    precise, samples, under = in_float64(start, batchnorm == "recalibrate" and is_normalized(start))
    one, other = start.to("float64"), end.to("float64")
    settled = _settled(start, batchnorm)
    moving = [n for n, b in one.buffers.items() if n not in settled and not torch.equal(b, other.buffers[n].to(b))]

    def value(s: Tensor) -> float:
        t = place + float(s)
        return precise.evaluate(_along(control, straight, t)[0], _mixed(one, other, moving, t)).loss.value

    def slope(s: Tensor) -> Tensor:
        c, velocity, _ = _along(control, straight, place + float(s))
        return (precise.gradient(c) @ velocity.to(c)).reshape(1)

    reason = "the statistics vary along the path, but products with H hold them fixed" if moving else ""
    c, velocity, bend = _along(control, straight, place)
    here = precise.at(c)
    product = velocity @ here.hvp(velocity) + (here.gradient() @ bend if bool(bend.any()) else 0.0)
    length = float(c.norm()) / float(velocity.norm()) if bool(c.any()) and bool(velocity.any()) else 1.0
    # Stay within a side of a polygon, whose corners are half its length away.
    beside = min(1.0, 25.0 / (len(control) - 1)) if straight else 1.0
    near = Near(value, None if moving else slope, (length,))
    return compared(
        near,
        product.reshape(1, 1),
        samples=samples,
        under=under,
        reason=reason,
        beside=beside,
        rounding=rounding_without_kinks(precise),
    )
