"""PAC-Bayes flatness: the noise on the weights at which the training accuracy drops."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from landscape.errors import UsageError
from landscape.linalg.probes import default_generator
from landscape.machine import progress
from landscape.measures.registry import ELEMENTWISE, PLAIN, NotDefined, measure
from landscape.objective import Objective
from landscape.results import Estimate, Spent

_REFERENCE = "Jiang et al. 2020, arXiv:1912.02178; Dziugaite et al. 2020, arXiv:2010.11924"
# Bisection ends at this width of log sigma, far below the Monte Carlo error of any affordable number of draws.
_WIDTH = 1e-3
# Half the step of the finite difference for the slope of the drop; wide enough to average over single changed predictions.
_STEP = 0.2


def _work(objective: Objective, settings: Mapping[str, Any]) -> dict[Hashable, Spent]:
    return {object(): Spent(forwards=18 * settings["draws"])}


def counts_hits(objective: Objective) -> bool:
    """Whether the accuracy is the share of right classes, which a constant added to all outputs does not change."""
    return objective.metric is None


@measure(
    "pac_bayes",
    unit="1 / weight^2",
    invariant_to=PLAIN,
    reference=_REFERENCE,
    work=_work,
    default=False,
    only_if=counts_hits,
)
def pac_bayes(
    objective: Objective, *, drop: float = 0.1, draws: int = 16, generator: torch.Generator | None = None
) -> Estimate:
    """PAC-Bayes sharpness 1 / sigma^2: sigma is the noise on all weights that lowers the mean training accuracy by 0.1.

    sigma solves E_z[accuracy(w + sigma z)] = accuracy(w) - drop with z standard normal. The wider the minimum, the larger
    sigma. Rescaling can make sigma arbitrarily small.

    Args:
        objective: the network on its data.
        drop: drop of the accuracy, in (0, 1); 0.1 in Jiang et al.
        draws: number of draws of z, the same at every sigma; at least 2.
        generator: generator of the draws; default seed 0.

    Returns:
        Kind "log t", with the Monte Carlo error of the draws. The error of log sigma is the error of the mean drop divided by
        its slope; the interval is Student's for log sigma, converted to 1 / sigma^2. `reason` has sigma itself.

    Raises:
        UsageError: a drop outside (0, 1), or fewer than 2 draws.
        NotDefined: the task has no accuracy, or no noise lowers it that much.

    Cost: about 18 forward passes per draw, by bisection.

    Accuracy: bisection finds sigma to 0.1 %, in addition to its Monte Carlo error. The accuracy of n samples is a step function
    with steps of 1 / n.

    Reference: Jiang et al. 2020, arXiv:1912.02178 (pacbayes-flatness), following Dziugaite and Roy 2017, arXiv:1703.11008.
    Deviation: biases and norm layers have noise, too.
    """
    return _sharpness(objective, torch.ones_like(objective.theta), drop, draws, default_generator(generator))


@measure(
    "pac_bayes_magnitude",
    unit="1",
    invariant_to=ELEMENTWISE,
    reference=_REFERENCE,
    work=_work,
    default=False,
)
def pac_bayes_magnitude(
    objective: Objective, *, drop: float = 0.1, draws: int = 16, generator: torch.Generator | None = None
) -> Estimate:
    """Magnitude-aware PAC-Bayes sharpness 1 / sigma^2: the noise on each weight is sigma times its size.

    As `pac_bayes` with w + sigma |w| z. A rescaling of the network scales noise and weights alike.

    Args: as for `pac_bayes`.

    Returns: as for `pac_bayes`, without a unit.

    Raises: as for `pac_bayes`.

    Cost: as for `pac_bayes`.

    Reference: Jiang et al. 2020, arXiv:1912.02178 (pacbayes-mag-flatness). Deviation: no constant is added to |w|, because it
    would break the invariance.
    """
    return _sharpness(objective, objective.theta.abs(), drop, draws, default_generator(generator))


def _sharpness(objective: Objective, scale: Tensor, drop: float, draws: int, generator: torch.Generator) -> Estimate:
    """1 / sigma^2 for noise sigma * scale * z."""
    if not 0 < drop < 1:
        raise UsageError(f"expected a drop of the accuracy between 0 and 1, found {drop:g}", fix="0.1 is common")
    if draws < 2:
        raise UsageError(f"expected at least 2 draws, found {draws}", fix="an interval needs two")
    centre = objective.evaluate().accuracy
    if centre is None:
        raise NotDefined("expected a task with an accuracy, found none", fix="give the task a metric")
    theta, state = objective.theta, generator.get_state()

    with progress.stage("PAC-Bayes", 18 * draws) as advance:

        def drops(log_sigma: float) -> np.ndarray:
            """Drop of the accuracy for every draw; the draws are the same for every sigma."""
            generator.set_state(state)
            out = np.empty(draws)
            for i in range(draws):
                z = torch.randn(objective.dim, generator=generator).to(theta)
                reached = objective.evaluate(theta + math.exp(log_sigma) * scale * z).accuracy
                # If the loss overflows, the accuracy counts as 0.
                right = 0.0 if reached is None or math.isnan(reached.value) else reached.value
                out[i] = centre.value - right
                advance(1)
            return out

        low, high = _bracket(lambda s: float(drops(s).mean()) > drop, drop, centre.value)
        while high - low > _WIDTH:
            middle = (low + high) / 2
            low, high = (low, middle) if drops(middle).mean() > drop else (middle, high)
        middle = (low + high) / 2
        rise = (drops(middle + _STEP).mean() - drops(middle - _STEP).mean()) / (2 * _STEP)
        noise = drops(middle).std(ddof=1) / math.sqrt(draws)
    sigma = math.exp(middle)
    if not rise > 0:
        return Estimate(
            sigma**-2,
            None,
            "log t",
            draws,
            reason=f"sigma = {sigma:.4g}; no error, because the drop does not increase with sigma",
        )
    relative = noise / rise
    half = relative * float(stdtrit(draws - 1, 0.975))
    return Estimate(sigma**-2, 2 * relative * sigma**-2, "log t", draws, reason=f"sigma = {sigma:.4g} ± {half * sigma:.2g}")


def _bracket(too_much: Any, drop: float, accuracy: float) -> tuple[float, float]:
    """Values of log sigma with a smaller and a larger drop, a factor of 2 apart."""
    at = math.log(0.1)
    step = -math.log(2) if too_much(at) else math.log(2)
    for _ in range(20):
        if too_much(at + step) != (step < 0):
            return (at + step, at) if step < 0 else (at, at + step)
        at += step
    raise NotDefined(
        f"expected noise that lowers the accuracy of {accuracy:.3g} by {drop:g}, found none", fix="choose a smaller drop"
    )
