"""The check of a sharded network's gradient: it is the derivative of the loss, which one divided or unreduced is not."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from landscape.errors import NumericalError

# Agreement of the gradient with one difference of losses along it, relative.
_AGREE = 0.02
# Agreement of many differences with the gradients between them; and how much these may differ among themselves to tell.
_MANY_AGREE, _APART = 0.05, 0.2
# Rounding error of a loss, in units of the last place of a loss of 1 or of itself: outputs are of order 10.
_ROUNDING = 16
# A line is long enough where the loss changes by so many rounding errors; it is made longer by this factor until then, up to a
# step as long as the weights, or of so much a weight if they are smaller (a LoRA's B alone begins at 0). With 0.01 a weight
# saturated losses of B could not be told, and those of fitted outputs did not leave the rounding of these.
_SEEN, _LONGER, _FARTHEST = 200, 8.0, 1.0
# Intervals of the line, at first and at most.
_FEWEST, _MOST = 8, 64


def check_gradient(
    theta: Tensor, value: Callable[[Tensor], float], gradient: Callable[[Tensor], Tensor], dots: Callable[..., list[float]]
) -> None:
    """The loss is finite, and the gradient is its derivative along itself.

    First one central difference of losses is compared with the gradient, within a step in which the loss changes little. That
    does not tell a wrong gradient from a kink of a rectifier between the two points, or from the rounding of a loss that is
    small beside the outputs. So what fails is looked at along a longer line: whatever the kinks, the loss at the end of an
    interval is the loss at its beginning plus the integral of the slope. The sum of the misses over the intervals, by the
    trapezoidal rule, falls as they are halved if the gradient is right, and does not if it is off by a factor.

    Rounding is taken to be that of a loss of 1, as outputs may be of order 10 where the loss is almost 0. A loss so small that
    it never changes by that much along the line is judged by the rounding of itself: right if one length of the line says so.

    Args:
        theta: this process's part of the point.
        value, gradient: of such a part.
        dots: inner products of pairs of parts, over all processes.

    Raises:
        NumericalError: the loss or the gradient is not finite, or the gradient is another one.

    Cost: a gradient and two to four losses; for a network that the first comparison does not pass, 9 to 65 of each in addition;
        so many for some lengths of the line, at most, where the loss stays small along it.
    """
    centre, slope = value(theta), gradient(theta)
    square = dots((slope, slope))[0]
    if not math.isfinite(centre) or not math.isfinite(square):
        raise NumericalError(f"expected a finite loss and gradient, found {centre:.4g} and {square**0.5:.4g}")
    if square == 0:
        return
    eps = float(torch.finfo(theta.dtype).eps)
    rounding = _ROUNDING * eps * max(1.0, abs(centre))
    # Steps to a loss of 0, or to the origin if that is nearer: a gradient that all but vanishes would take the weights too far.
    weights, count = dots((theta, theta), (torch.ones_like(theta),) * 2)
    longest = max(weights**0.5, _FARTHEST * count**0.5) / square**0.5
    far = min(max(abs(centre), 1e-30) / square, longest)
    found = []
    for change in (eps ** (1 / 3), eps ** (1 / 2)):  # the loss should change by this much of itself: kinks, or rounding
        step = change * far
        ends = [value(theta + sign * step * slope) for sign in (1, -1)]
        found.append((ends[0] - ends[1]) / (2 * step) / square)
        if abs(found[-1] - 1) <= _AGREE and rounding <= _AGREE * step * square:
            return
    line = _Line(theta, slope, value, lambda t: dots((gradient(t), slope))[0])
    if not _right_along(line, eps, step, longest):
        raise NumericalError(
            f"expected the gradient to be the derivative of the loss, found {found[0]:.4g} times it along the gradient",
            fix="check that every process has the same loss and data, and that set_gradient_divide_factor is not changed",
        )


class _Line(NamedTuple):
    """The line theta + t slope.

    Attributes:
        theta, slope: this process's parts.
        value: the loss at a part of a point.
        slope_at: the slope along the line at a part of a point.
    """

    theta: Tensor
    slope: Tensor
    value: Callable[[Tensor], float]
    slope_at: Callable[[Tensor], float]

    def at(self, t: float) -> Tensor:
        """The point."""
        return self.theta + t * self.slope


def _right_along(line: _Line, eps: float, step: float, longest: float) -> bool:
    """Whether slopes along a line through theta add up to the differences of the losses; see `check_gradient`.

    Args:
        line: on both sides of theta.
        eps: of the dtype.
        step, longest: half the length of the line, at first and at most, in units of `slope`.
    """
    tried: list[tuple[float, list[float]]] = []  # half of the length, and the losses at the ends
    seen = False
    while not seen and math.isfinite(step) and step <= longest:
        ends = [line.value(line.at(sign * step)) for sign in (-1, 1)]
        if not math.isfinite(ends[1] - ends[0]):
            break
        tried.append((step, ends))
        seen = abs(ends[1] - ends[0]) >= _SEEN * _rounding(eps, 1.0, *ends)
        step *= _LONGER
    if not tried:
        return False
    small = [] if seen else [(s, e) for s, e in tried if abs(e[1] - e[0]) >= _SEEN * _rounding(eps, *e)]
    if not small:
        step, ends = tried[-1]
        return _adds_up(line, step, ends, _rounding(eps, 1.0, *ends))
    return any(_adds_up(line, s, e, _rounding(eps, *e)) for s, e in small)


def _rounding(eps: float, *losses: float) -> float:
    """Rounding error of the largest of these losses."""
    return _ROUNDING * eps * max(map(abs, losses))


def _adds_up(line: _Line, step: float, ends: list[float], rounding: float) -> bool:
    """`_right_along` for half a length of the line, and the losses at its ends, with a rounding error of a loss."""
    values, slopes = dict(zip((-1.0, 1.0), ends, strict=True)), {}
    count = _FEWEST
    while True:
        places = [2 * i / count - 1 for i in range(count + 1)]
        for t in places:
            if t not in slopes:
                at = line.at(t * step)
                values[t] = values[t] if t in values else line.value(at)
                slopes[t] = line.slope_at(at)
        width = 2 * step / count
        rises = [width * (slopes[a] + slopes[b]) / 2 for a, b in pairwise(places)]
        misses = sum(abs(values[b] - values[a] - rise) for (a, b), rise in zip(pairwise(places), rises, strict=True))
        apart = sum(width * abs(slopes[b] - slopes[a]) / 2 for a, b in pairwise(places))
        size = sum(map(abs, rises))
        if not math.isfinite(size):
            return False
        noise = max(_FEWEST, count // 4) * rounding  # of many intervals few have the largest error
        if misses <= _MANY_AGREE * size + noise and (apart <= _APART * size or count == _MOST):
            return True
        if misses > 2 * apart + _MANY_AGREE * size + noise or count == _MOST:  # more than the slopes differ
            return False
        count *= 2
