"""PAC-Bayes flatness: how much noise the weights stand before the training accuracy drops."""

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
from landscape.measures.registry import NotDefined, measure
from landscape.objective import Objective
from landscape.results import Estimate, Spent

_REFERENCE = "Jiang et al. 2020, arXiv:1912.02178; Dziugaite et al. 2020, arXiv:2010.11924"
# Bisection ends at this width of log sigma, far below the Monte Carlo error of any affordable number of draws.
_WIDTH = 1e-3
# Half the step over which the slope of the drop is read: wide enough to average over single predictions that flip.
_STEP = 0.2


def _work(objective: Objective, settings: Mapping[str, Any]) -> dict[Hashable, Spent]:
    return {object(): Spent(forwards=18 * settings["draws"])}


@measure("pac_bayes", unit="1 / weight^2", invariant_to=(), reference=_REFERENCE, work=_work, default=False)
def pac_bayes(
    objective: Objective, *, drop: float = 0.1, draws: int = 16, generator: torch.Generator | None = None
) -> Estimate:
    """PAC-Bayes sharpness 1 / sigma^2: sigma is the noise on all weights that lowers the mean training accuracy by 0.1.

    sigma solves E_z[accuracy(w + sigma z)] = accuracy(w) - drop with z standard normal: a true standard deviation, of every
    weight. The wider the minimum, the larger sigma. Rescaling makes it as small as one likes.

    Args:
        objective: the network on its data.
        drop: of the accuracy, in (0, 1); 0.1 in Jiang et al.
        draws: of z, the same at every sigma, at least 2.
        generator: of the draws; default seed 0.

    Returns:
        Kind "log t" with the Monte Carlo error of the draws: the error of log sigma is that of the mean drop over its slope;
        the interval is Student's for log sigma, carried to 1 / sigma^2. sigma itself is in `reason`.

    Raises:
        UsageError: a drop outside (0, 1), fewer than 2 draws.
        NotDefined: the task has no accuracy, or no noise lowers it by so much.

    Cost: some 18 forward passes a draw, by bisection.

    Accuracy: sigma to 0.1 % beside its Monte Carlo error; the accuracy of n samples is a staircase with steps of 1 / n.

    Reference: Jiang et al. 2020, arXiv:1912.02178 (pacbayes-flatness), following Dziugaite and Roy 2017, arXiv:1703.11008.
    Departure: biases and norm layers have noise too.
    """
    return _sharpness(objective, torch.ones_like(objective.theta), drop, draws, default_generator(generator))


@measure(
    "pac_bayes_magnitude",
    unit="1",
    invariant_to=("layer", "node"),
    reference=_REFERENCE,
    work=_work,
    default=False,
)
def pac_bayes_magnitude(
    objective: Objective, *, drop: float = 0.1, draws: int = 16, generator: torch.Generator | None = None
) -> Estimate:
    """Magnitude-aware PAC-Bayes sharpness 1 / sigma^2: the noise on each weight is sigma times its own size.

    As `pac_bayes` with w + sigma |w| z. Noise, like weights, follows a rescaling of the network.

    Args: as for `pac_bayes`.

    Returns: as `pac_bayes`, without a unit.

    Raises: as `pac_bayes`.

    Cost: as `pac_bayes`.

    Reference: Jiang et al. 2020, arXiv:1912.02178 (pacbayes-mag-flatness). Departure: no constant is added to |w|; it would
    break the invariance.
    """
    return _sharpness(objective, objective.theta.abs(), drop, draws, default_generator(generator))


def _sharpness(objective: Objective, scale: Tensor, drop: float, draws: int, generator: torch.Generator) -> Estimate:
    """1 / sigma^2 for noise sigma * scale * z."""
    if not 0 < drop < 1:
        raise UsageError(f"expected a drop of the accuracy between 0 and 1, found {drop:g}", fix="0.1 is the custom")
    if draws < 2:
        raise UsageError(f"expected at least 2 draws, found {draws}", fix="an interval needs two")
    centre = objective.evaluate().accuracy
    if centre is None:
        raise NotDefined("expected a task with an accuracy, found none", fix="give the task a metric")
    theta, state = objective.theta, generator.get_state()

    with progress.stage("PAC-Bayes", 18 * draws) as advance:

        def drops(log_sigma: float) -> np.ndarray:
            """Fall of the accuracy for every draw, the same draws each time."""
            generator.set_state(state)
            out = np.empty(draws)
            for i in range(draws):
                z = torch.randn(objective.dim, generator=generator).to(theta)
                reached = objective.evaluate(theta + math.exp(log_sigma) * scale * z).accuracy
                # A loss that overflows has no accuracy to speak of: everything is lost.
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
            sigma**-2, None, "log t", draws, reason=f"sigma = {sigma:.4g}; the drop has no slope to read an error from"
        )
    relative = noise / rise
    half = relative * float(stdtrit(draws - 1, 0.975))
    return Estimate(sigma**-2, 2 * relative * sigma**-2, "log t", draws, reason=f"sigma = {sigma:.4g} ± {half * sigma:.2g}")


def _bracket(too_much: Any, drop: float, accuracy: float) -> tuple[float, float]:
    """log sigma below and above the drop, a factor 2 apart."""
    at = math.log(0.1)
    step = -math.log(2) if too_much(at) else math.log(2)
    for _ in range(20):
        if too_much(at + step) != (step < 0):
            return (at + step, at) if step < 0 else (at, at + step)
        at += step
    raise NotDefined(
        f"expected noise that lowers the accuracy of {accuracy:.3g} by {drop:g}, found none", fix="choose a smaller drop"
    )
