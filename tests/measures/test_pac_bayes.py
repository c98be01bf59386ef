"""PAC-Bayes sharpness against networks whose accuracy under noise is known in closed form."""

import math

import pytest
import torch
from scipy.stats import norm
from torch import nn

from landscape.errors import UsageError
from landscape.measures import NotDefined, pac_bayes, pac_bayes_magnitude
from landscape.objective import Objective


def classifier() -> tuple[Objective, torch.Tensor]:
    """Sample n is right while w_n0 x > w_n1 x: forty independent pairs of weights, each seen by one sample alone."""
    torch.manual_seed(0)
    n = 40
    model = nn.Linear(n, 2, bias=False)
    with torch.no_grad():
        model.weight[0] = 1 + torch.rand(n)
        model.weight[1] = -0.5 + 0.2 * torch.rand(n)
    return Objective(model, nn.CrossEntropyLoss(), (torch.eye(n), torch.zeros(n, dtype=torch.long)), dtype="float64"), model


def sigma_of(drop: float, w: torch.Tensor, scale: torch.Tensor) -> float:
    """The sigma at which the mean over samples of P(w_n0 + s_0 z_0 < w_n1 + s_1 z_1) is `drop`."""
    from scipy.optimize import brentq

    gap, noise = (w[0] - w[1]).numpy(), scale.square().sum(0).sqrt().numpy()
    return brentq(lambda s: norm.cdf(-gap / (s * noise)).mean() - drop, 1e-3, 1e3)


@pytest.mark.slow
@pytest.mark.parametrize("function", [pac_bayes, pac_bayes_magnitude])
def test_intervals_cover_the_closed_form(function):
    objective, model = classifier()
    w = model.weight.detach().double()
    truth = sigma_of(0.1, w, torch.ones_like(w) if function is pac_bayes else w.abs()) ** -2
    hits, runs = 0, 40
    for seed in range(runs):
        estimate = function(objective, generator=torch.Generator().manual_seed(seed))
        low, high = estimate.interval()
        hits += low <= truth <= high
    assert hits >= 0.88 * runs, hits  # 40 draws of a 95 % interval: below 36 hits once in 50
    assert estimate.reason.startswith("sigma = ")


def test_more_draws_narrow_it_about_the_truth():
    objective, model = classifier()
    w = model.weight.detach().double()
    estimate = pac_bayes(objective, draws=128)
    assert estimate.value == pytest.approx(sigma_of(0.1, w, torch.ones_like(w)) ** -2, rel=0.1)
    few = [pac_bayes(objective, generator=torch.Generator().manual_seed(seed)).stderr for seed in range(5)]
    assert estimate.stderr < 0.6 * sum(few) / 5  # 1 / sqrt(8) of it, but for the noise of an error from 16 draws


def test_what_cannot_be_had_is_said():
    torch.manual_seed(0)
    flat = Objective(nn.Linear(3, 2), nn.MSELoss(), (torch.randn(5, 3), torch.randn(5, 2)))
    with pytest.raises(NotDefined, match="expected a task with an accuracy"):
        pac_bayes(flat)
    objective, _ = classifier()
    with pytest.raises(NotDefined, match=r"lowers the accuracy of 1 by 0\.9"):
        pac_bayes(objective, drop=0.9)
    with pytest.raises(UsageError, match="between 0 and 1, found 2"):
        pac_bayes(objective, drop=2.0)
    with pytest.raises(UsageError, match="at least 2 draws, found 1"):
        pac_bayes(objective, draws=1)
    assert not math.isnan(pac_bayes(objective).value)
