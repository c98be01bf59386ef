"""Critical sharpness: from the smallest step along a direction that raises the loss."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError
from landscape.measures.registry import PLAIN, NotDefined, measure
from landscape.measures.running.shared_computations import loss_rounding
from landscape.objective import Objective
from landscape.results import Estimate, Spent

# Doublings or halvings of the first step before the search is given up: a factor of 10^12.
_MOST = 40
# A change of the loss below this many rounding errors says nothing about its sign.
_CLEAR = 4


@measure(
    "critical_sharpness",
    unit="loss / weight^2",
    invariant_to=PLAIN,
    reference="arXiv:2601.16979",
    work=lambda objective, settings: {"critical_sharpness": Spent(forwards=settings["halvings"] + 4, gradients=1)},
    default=False,
)
def critical_sharpness(objective: Objective, *, halvings: int = 4, generator: torch.Generator | None = None) -> Estimate:
    """Critical sharpness 2 / eta_c: eta_c is the smallest step against the gradient that raises the loss.

    eta_c = min {eta > 0: L(w - eta g) > L(w)} with the gradient g. On a quadratic it is g^T H g / g^T g, which is at most
    lambda_max. Gradient descent of learning rate eta lowers the loss as long as the critical sharpness is below 2 / eta.

    Args:
        objective: the network on its data.
        halvings: bisections of the bracket, which is [eta, 2 eta] at first.
        generator: not used; nothing here is random.

    Returns:
        Kind "bracket": 2 / eta_c lies within `stderr`; `n` is the number of forward passes.

    Cost: one gradient, and halvings + 2 forward passes if the first step is at most a factor of 2 below eta_c; each doubling or
        halving of it that is needed beyond that is one more, about two as a rule.

    Accuracy: the half-width is 2^-(halvings + 1), 3 % for four, of the value. It is a bound where the loss along the direction
    falls and then rises once within the bracket; a rise and fall at steps shorter than those tried is not seen.

    Reference: arXiv:2601.16979. Deviation: their direction is the optimizer's update; see `critical_sharpness_along`.

    Example:
        L = 4 w^2 has curvature 8, which is g^T H g / g^T g for every w.
        >>> from torch import nn
        >>> net = nn.Linear(1, 1, bias=False)
        >>> data = (torch.full((1, 1), 2.0), torch.zeros(1, 1))
        >>> found = critical_sharpness(Objective(net, nn.MSELoss(), data), halvings=8)
        >>> round(found.value, 1), found.stderr < 0.02
        (8.0, True)
    """
    value, gradient = objective.value_and_gradient()
    square = float(gradient.double().square().sum())
    if not square > 0:
        raise NotDefined("the gradient is zero", fix="there is no direction to step along")
    first = first_step(value, -square)
    return critical_sharpness_along(objective, -gradient, slope=-square, start=first, value=value, halvings=halvings)


def first_step(value: float, slope: float) -> float:
    """A first step to try: sqrt(8) times that at which a straight line reaches zero; 1 if there is none.

    On a quadratic whose minimum is zero eta_c is 4 times that step, in the middle of the bracket [eta, 2 eta].
    """
    step = math.sqrt(8) * abs(value) / -slope if slope < 0 else 0.0
    return step if 0 < step < math.inf else 1.0


def critical_sharpness_along(
    objective: Objective,
    direction: Float[Tensor, " P"],
    *,
    slope: float,
    start: float,
    value: float | None = None,
    halvings: int = 4,
) -> Estimate:
    """2 / eta_c along any direction d, eta_c = min {eta > 0: L(w + eta d) > L(w)}.

    Args:
        objective: the network on its data.
        direction: (P,) d, such as an optimizer's update divided by its learning rate.
        slope: g^T d, the derivative of the loss along d; it must be negative.
        start: the first step tried. Near the last eta_c of a training run two passes bracket the new one.
        value: L(w), if it is known, as it is with a gradient; else it takes one more pass.
        halvings: bisections of the bracket.

    Returns:
        As `critical_sharpness`. Not converged if the loss does not rise within 2^40 times the first step, or if it changes by
        less than its rounding.

    Raises:
        NotDefined: the loss does not fall along d.
        UsageError: `start` is not positive and finite, or `halvings` is negative.
    """
    if not (0 < start < math.inf) or halvings < 0:
        raise UsageError(f"expected a first step > 0 and halvings >= 0, found {start} and {halvings}", fix="start at 1")
    if not slope < 0:
        raise NotDefined("the loss does not fall along this direction", fix="critical sharpness needs one along which it does")
    theta, tried = objective.theta, int(value is None)
    base = objective.value().value if value is None else value

    def rises(step: float) -> bool:
        nonlocal tried
        tried += 1
        return not objective.value(theta + step * direction).value <= base  # a loss that is not finite has risen

    low, high = (0.0, start) if rises(start) else (start, math.inf)
    for _ in range(_MOST):
        if low and high < math.inf:
            break
        step = high / 2 if high < math.inf else 2 * low
        low, high = (low, step) if rises(step) else (step, high)
    if not low or high == math.inf:
        return Estimate(
            math.nan, None, "bracket", tried, False, f"the loss {'rises' if not low else 'falls'} at every step tried"
        )
    for _ in range(halvings):
        step = (low + high) / 2
        low, high = (low, step) if rises(step) else (step, high)
    ends = 2 / high, 2 / low
    # Half-way to eta_c a quadratic has fallen by eta_c |slope| / 4, the most on the way.
    clear = low * -slope / 4 > _CLEAR * loss_rounding(objective) * max(abs(base), torch.finfo(objective.dtype).tiny)
    reason = None if clear else "the loss changes by no more than its rounding"
    return Estimate((ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2, "bracket", tried, clear, reason)
