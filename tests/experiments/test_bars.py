"""The mathematics of the published bars, against references that share no code with it."""

import math
from collections import deque

import numpy as np
import pytest
import torch
from scipy import integrate, optimize
from torch import nn

import landscape as ls
from experiments.bars import class_outliers, diagonal_networks, edge_of_stability, random_axes, synthetic_spectrum
from experiments.common.work import Place
from landscape.measures import sam
from landscape.measures.perturbation.pair_metrics import geometry_of
from landscape.symmetry.mixing.mixtures import Mixing, Rows


def small_task(width=6, samples=4):
    """Data, u and v that nearly fit them, and a generator."""
    random = np.random.default_rng(0)
    x = random.standard_normal((samples, width))
    u, v = random.uniform(0.5, 1.5, (2, width))
    return x, x @ (u * v) + 0.1 * random.standard_normal(samples), u, v, random


def loss_of(x, y):
    return lambda beta: float(np.square(x @ beta - y).mean())


@pytest.mark.parametrize("rho", [0.02, 0.3])
def test_geodesic_sharpness_in_the_metric_mix_is_the_maximum_over_a_ball_of_predictors(rho):
    x, y, u, v, random = small_task()
    beta, loss = u * v, loss_of(x, y)
    best = max(
        -optimize.minimize(
            lambda b: loss(beta) - loss(beta * (1 + 2 * b)),
            start * rho / math.sqrt(2) / np.linalg.norm(beta * start),
            constraints={"type": "ineq", "fun": lambda b: rho**2 - 2 * np.square(beta * b).sum()},
            options={"ftol": 1e-15, "maxiter": 500},
        ).fun
        for start in random.standard_normal((6, len(beta)))
    )
    assert diagonal_networks.exact_mix(beta, x, y, rho) == pytest.approx(best, rel=1e-6)
    predictor = diagonal_networks.Predictor(torch.from_numpy(beta))
    objective = ls.Objective(predictor, nn.MSELoss(), (torch.from_numpy(x), torch.from_numpy(y)), dtype="float64")
    assert sam(objective, rho=math.sqrt(2) * rho).value == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("metric", ["inv", "mix"])
def test_the_closed_geodesics_are_those_of_the_toolkit_to_second_order(metric):
    x, y, u, v, random = small_task()
    width = len(u)
    network = diagonal_networks.Diagonal(torch.from_numpy(u), torch.from_numpy(v))
    objective = ls.Objective(network, nn.MSELoss(), (torch.from_numpy(x), torch.from_numpy(y)), dtype="float64")
    pairs = tuple(
        Mixing(f"{i}", 1, "general", (Rows("u", torch.tensor([[i]]), True), Rows("v", torch.tensor([[i]]), False)))
        for i in range(width)
    )
    space = geometry_of(objective, pairs, metric)
    for size in (1e-2, 1e-3):
        # A horizontal direction has the same relative change b of u and of v; its length is |z|.
        z = size * torch.from_numpy(random.standard_normal(2 * width))
        start = space.spread(space.horizontal(z))
        b = (start[:width] / network.u.detach()).numpy()
        np.testing.assert_allclose(b, (start[width:] / network.v.detach()).numpy(), rtol=1e-9, atol=1e-15)
        length = math.sqrt(2) * np.linalg.norm(b if metric == "inv" else u * v * b)
        assert float(space.horizontal(z).norm()) == pytest.approx(length, rel=1e-9)
        factor = np.exp(b) if metric == "inv" else np.sqrt(1 + 2 * b)
        reached = space.point(z).numpy()
        assert np.abs(reached - np.concatenate((u * factor, v * factor))).max() < 3 * np.abs(b).max() ** 3


def test_networks_are_trained_to_the_loss_and_no_further():
    x, y, _ = diagonal_networks.regression(3, 5)
    found = diagonal_networks.trained(x, y, [0.5, 1.0], 3)
    loss = np.square((found["u"] * found["v"]) @ x.T - y).mean(axis=1)
    assert (loss <= diagonal_networks.STOP).all()
    np.testing.assert_allclose(loss, found["loss"], rtol=1e-9)
    assert np.median(loss) > 0.5 * diagonal_networks.STOP  # the step before was above


def test_adaptive_sharpness_of_a_network_does_not_change_under_its_rescaling():
    x, y, u, v, random = small_task(width=5, samples=3)
    factor = random.uniform(0.5, 2.0, len(u))
    before, after = diagonal_networks.sharpness(u, v, x, y), diagonal_networks.sharpness(u * factor, v / factor, x, y)
    assert {k: pytest.approx(a, rel=1e-3) for k, a in before.items()} == after


def test_spikes_move_where_free_probability_says():
    # The Stieltjes transform of the bulk, integrated numerically, is 1 / spike at the eigenvalue.
    for spike in synthetic_spectrum.SPIKES:
        at = synthetic_spectrum.shifted(spike)
        transform = integrate.quad(lambda t, at=at: math.sqrt(4 / t - 1) / (2 * math.pi) / (at - t), 0, 4)[0]
        assert transform == pytest.approx(1 / spike, rel=1e-6)


def test_a_spiked_matrix_is_its_bulk_and_its_spikes():
    matrix = synthetic_spectrum.spiked(1, 400)
    np.testing.assert_array_equal(matrix, matrix.T)
    values = np.linalg.eigvalsh(matrix)[::-1]
    theory = [synthetic_spectrum.shifted(s) for s in synthetic_spectrum.SPIKES]
    np.testing.assert_allclose(values[:3], theory, rtol=0.1)
    assert values[3] < 4.3
    assert values[-1] >= 0


def test_a_smoothed_density_has_the_mean_of_its_eigenvalues():
    grid = np.linspace(-6, 12, 4000)
    density = synthetic_spectrum.smoothed(grid, np.full(len(grid), 0.4), np.array([0.0, 2.0, 4.0]))
    assert np.trapezoid(density, grid) == pytest.approx(1, rel=1e-6)
    assert np.trapezoid(density * grid, grid) == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("count", [1, 9, 10])
def test_outliers_are_counted_up_to_the_largest_ratio(count):
    values = np.concatenate((np.linspace(9, 5, count), np.linspace(1, 0.5, 200)))
    assert class_outliers.outliers(values) == (count, pytest.approx(values[count - 1] / values[count]))


def test_outliers_need_positive_eigenvalues():
    with pytest.raises(ValueError, match="expected 31 positive eigenvalues, found 5"):
        class_outliers.outliers(np.r_[np.ones(5), -np.ones(40)])


def test_a_step_in_the_span_of_the_inputs_is_the_same_step():
    torch.manual_seed(0)
    x, first = torch.randn(6, 20), nn.Linear(20, 4)
    y, layer = edge_of_stability.in_their_span(x, first)
    assert y.shape == (6, 6)
    for _ in range(3):
        a, b = first(x), layer(y)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        for out, own in ((a, first), (b, layer)):
            slopes = torch.autograd.grad(out.square().mean(), list(own.parameters()))
            with torch.no_grad():
                for weight, slope in zip(own.parameters(), slopes, strict=True):
                    weight -= 0.1 * slope


def test_an_oscillation_cancels_at_the_midpoint():
    network, place = nn.Linear(3, 1, bias=False), torch.tensor([1.0, 2.0, 3.0])
    swing, drift = torch.tensor([0.5, 0.0, -0.5]), torch.tensor([0.0, 0.1, 0.0])
    steps = deque(place + drift * t + swing * (-1) ** t for t in (-1, 0, 1))
    torch.testing.assert_close(edge_of_stability.at_midpoint(network, steps).weight[0], place)
    first = deque((place, place + 2 * drift))
    torch.testing.assert_close(edge_of_stability.at_midpoint(network, first).weight[0], place + drift)


def test_few_inputs_of_many_samples_keep_their_layer():
    x, first = torch.randn(20, 6), nn.Linear(6, 4)
    y, layer = edge_of_stability.in_their_span(x, first)
    assert y is x
    assert layer is first


def test_a_plateau_begins_where_the_edge_is_reached():
    run = {"item": {"lr": 0.5}, "steps": [0, 40, 80, 120], "lambda_max": [1.0, 3.9, 4.2, 3.8]}  # the edge is at 4
    values = edge_of_stability.relative(run)
    assert edge_of_stability.plateau(values) == pytest.approx([1.05, 0.95])
    assert edge_of_stability.plateau(values[:2]) == []
    assert edge_of_stability.relative(run, last=80) == values[:3]
    assert edge_of_stability.relative(run, after=80) == values[3:]


@pytest.mark.parametrize(("late", "holds"), [(1.03, True), (1.09, False)])
def test_what_comes_after_the_published_steps_is_judged_on_its_own(late, holds):
    steps = list(range(0, 3001, 40))
    values = [100 * (min(1.2, step / 400) if step <= 1000 else late) for step in steps]
    item = edge_of_stability.IMAGES | {"bar": "edge of stability"}
    runs = [{"item": item | {"seed": seed}, "steps": steps, "lambda_max": [v + seed for v in values]} for seed in range(3)]
    first, second = edge_of_stability.bar(runs, None).claims
    assert first.holds is False  # 1.2 times the edge, from the first value on
    assert second.holds is holds
    assert second.numbers["mean"]["value"] == pytest.approx(100 * late + 1)


def test_the_known_saddle_has_the_hessian_that_is_claimed(tmp_path):
    item = {"saddle": "known Hessian", "seed": 0}
    objective = random_axes.saddle(item, Place(tmp_path, None, "cpu"))
    h = torch.cat((torch.ones(random_axes.UPWARDS), -torch.ones(random_axes.DOWNWARDS))).double()
    v = torch.randn(objective.dim, dtype=torch.float64)
    torch.testing.assert_close(objective.hvp(v), h * v)


def test_a_published_tau_is_held_against_the_tau_of_one_more_experiment():
    taus = np.random.default_rng(0).normal(-0.3, 0.2, (300, 6))  # five data sets, and a sixth
    found = [(diagonal_networks.interval(own[:5].tolist())[0], own[5]) for own in taus]
    assert np.mean([known.low <= other <= known.high for known, other in found]) == pytest.approx(0.95, abs=0.03)
    known, shift = diagonal_networks.interval([-0.6, -0.2, -0.4, 0.0, -0.2])
    assert (known.low, known.high) == pytest.approx((-0.969, 0.409), abs=0.005)  # -0.28 -+ 2.776 * 0.228 * sqrt(1.2)
    assert shift > known.high - known.value
    assert diagonal_networks.met(-0.7, known) is None  # 0 is in there, too
    assert diagonal_networks.met(-1.0, known) is False
    assert diagonal_networks.met(-0.7, diagonal_networks.interval([-0.6, -0.62, -0.7, -0.65, -0.68])[0]) is True


def test_taus_may_be_of_one_data_set():
    known, shift = diagonal_networks.interval([-0.5])
    assert (known.low, known.high, shift) == (-math.inf, math.inf, math.inf)
    assert diagonal_networks.met(-0.7, known) is None
