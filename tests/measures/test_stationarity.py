"""Whether a point is a minimum: known gradients and spreads, quadratics, saddles, networks that learn and that have learnt."""

import math

import pytest
import torch
from torch import nn

from landscape.cli.found_results import collect
from landscape.measures import sharpness, stationarity
from landscape.objective import Objective
from landscape.report import write_report
from landscape.results import Sharpness, Stationarity


def least_squares(offset: float, samples: int = 400):
    """L = mean (w x - y)^2 / 1 at `offset` from its minimum, in float64; x, y as numpy arrays too."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + torch.randn(
        samples, 1, generator=generator, dtype=torch.float64
    )
    model = nn.Linear(3, 1, bias=False).double()
    solution = torch.linalg.lstsq(x, y).solution.T
    model.weight.data.copy_(solution + offset)
    return model.requires_grad_(False), x, y


def test_numbers_are_those_of_all_samples_gradients():
    model, x, y = least_squares(0.3)
    objective = Objective(model, nn.MSELoss(), (x, y), dtype="float64")
    each = 2 * (x @ model.weight.T - y) * x  # (N, 3) gradients of (w x - y)^2
    g = each.mean(0)
    covariance = float(each.var(0, unbiased=False).sum())
    hessian = 2 * x.T @ x / len(x)
    found = stationarity(objective)
    assert found.gradient_norm == pytest.approx(float(g.norm()), rel=1e-9)
    # Four probes of three signs: the trace of the covariance holds within its cross terms.
    assert found.gradient_stderr == pytest.approx(math.sqrt(covariance / len(x)), rel=0.3)
    assert found.noise_scale == pytest.approx(covariance / float(g.square().sum()), rel=0.6)
    loss = float(((x @ model.weight.T - y) ** 2).mean())
    assert found.decrease == pytest.approx(float((g @ g) ** 2 / (2 * g @ hessian @ g)) / loss, rel=1e-6)


def test_a_minimum_of_least_squares_and_a_point_beside_it():
    model, x, y = least_squares(0.0)
    objective = Objective(model, nn.MSELoss(), (x, y), dtype="float64")
    names = ["lambda_max", "lambda_min", "trace"]
    at = sharpness(objective, names).minimum
    assert at is not None
    assert at.is_minimum
    assert at.line() is None
    assert at.gradient_norm < 1e-9
    assert at.negative_curvature == 0
    assert at.negative_trace is False
    off = sharpness(Objective(least_squares(1.0)[0], nn.MSELoss(), (x, y), dtype="float64"), names).minimum
    assert off is not None
    assert not off.is_minimum
    assert "the gradient norm, " in (off.line() or "")


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_verdict_knows_no_scale(scale):
    """Neither of the loss nor of the weights."""
    model, x, y = least_squares(1.0)
    whole = stationarity(Objective(model, nn.MSELoss(), (x, y), dtype="float64"))
    model.weight.data /= scale
    other = stationarity(Objective(model, nn.MSELoss(), (x * scale, y), dtype="float64"))
    scaled = stationarity(Objective(least_squares(1.0)[0], nn.MSELoss(), (x * scale**0.5, y * scale**0.5), dtype="float64"))
    for found in (other, scaled):
        assert found.noise_scale == pytest.approx(whole.noise_scale, rel=1e-5)
        assert found.decrease == pytest.approx(whole.decrease, rel=1e-5)
        assert not found.is_minimum


def test_a_saddle_has_no_gradient_and_is_no_minimum():
    """x w1 w2 = y at w = 0: the gradient vanishes and the Hessian has as much below zero as above."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=generator)
    y = x @ torch.tensor([[1.0], [1.0]])
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    for p in net.parameters():
        nn.init.zeros_(p)
    result = sharpness(Objective(net, nn.MSELoss(), (x, y), dtype="float64"), ["lambda_max", "lambda_min", "trace"])
    assert result.minimum is not None
    assert result.minimum.negative_curvature == pytest.approx(1, rel=1e-6)
    assert "lambda_min is -1e+02 % of lambda_max" in str(result) or "lambda_min is -100 % of lambda_max" in str(result)


def test_a_negative_trace_is_said():
    """A concave loss."""
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    net = nn.Linear(3, 1, bias=False)

    def loss(output, target):
        return 1 - ((output - target) ** 2).mean()

    result = sharpness(Objective(net, loss, (x, torch.zeros(50, 1)), dtype="float64"), ["trace", "lambda_max", "lambda_min"])
    assert result.minimum is not None
    assert result.minimum.negative_trace is True
    assert result.minimum.negative_curvature == math.inf
    assert "the trace is negative" in str(result)
    assert result.to_json()["minimum"]["negative_curvature"] is None


@pytest.fixture(scope="module")
def learning():
    """A network while it learns, and the same once it has learnt: gradient steps on mini-batches."""
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(3, 8, generator=generator)
    y = torch.randint(0, 3, (600,), generator=generator)
    x = centres[y] + torch.randn(600, 8, generator=generator)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    found = {}
    for _ in range(60):
        for part in torch.randperm(600, generator=generator).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[part]), y[part]).backward()
            optimizer.step()
            if "early" not in found:  # after the first step
                found["early"] = {k: v.clone() for k, v in net.state_dict().items()}
    found["late"] = {k: v.clone() for k, v in net.state_dict().items()}
    results = {}
    for name, weights in found.items():
        net.load_state_dict(weights)
        results[name] = sharpness(Objective(net, nn.CrossEntropyLoss(), (x, y)), ["lambda_max", "lambda_min", "trace"])
    return results


def test_a_network_that_learns_and_one_that_has_learnt(learning, tmp_path):
    early, late = learning["early"], learning["late"]
    assert not early.minimum.is_minimum
    assert late.minimum.is_minimum, late.minimum
    assert "not at a minimum: " in str(early)
    assert "not at a minimum: " in early._repr_html_()
    assert "not at a minimum" not in str(late)
    page = write_report(tmp_path / "r.html", title="t", sharpness=[early, late]).read_text()
    assert page.count("No minimum:") == 1
    for result in (early, late):
        again = Sharpness.from_json(result.to_json())
        assert again.minimum == result.minimum
        assert again.to_json() == result.to_json()


def test_documents_of_before_have_none(learning, tmp_path):
    import json

    old = learning["early"].to_json() | {"checkpoint": "a.pt", "sha256": "0" * 64}
    del old["minimum"]
    (tmp_path / "sharpness.json").write_text(json.dumps({"schema": 1, "results": [old]}))
    assert collect([tmp_path])[0]["sharpness"][0].minimum is None


def test_where_no_measure_takes_derivatives_none_is_taken(learning):
    objective = Objective(nn.Linear(2, 2), nn.CrossEntropyLoss(), (torch.randn(8, 2), torch.arange(8) % 2))
    assert sharpness(objective, ["logit_norm"]).minimum is None


def test_a_loss_that_does_not_come_apart_has_no_spread(learning):
    """The verdict is then of the curvature alone."""
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))

    def loss(output, target):
        return ((output.T @ output) - torch.eye(2)).square().mean().sqrt()

    result = sharpness(Objective(nn.Linear(3, 2), loss, [(x, torch.zeros(12))], dtype="float64"), ["lambda_max", "lambda_min"])
    assert result.minimum is not None
    assert result.minimum.gradient_stderr is None
    assert result.minimum.noise_scale is None
    assert result.minimum.gradient_norm > 0


def test_without_the_smallest_eigenvalue_a_minimum_is_not_told_from_a_saddle():
    assert Stationarity(1.0, 1.0, 100.0, 0.001).is_minimum is None
    assert Stationarity(1.0, 1.0, 100.0, 0.001).line() is None
    assert Stationarity(1.0, 1.0, 100.0, 0.001).to_json()["is_minimum"] is None
    assert Stationarity(1.0, 1.0, 100.0, 0.001, 0.0).is_minimum is True
    assert Stationarity(1.0, 1.0, 100.0, 0.001, None, True).is_minimum is False, "a negative trace is enough against one"


def test_json_says_what_it_means():
    document = Stationarity(2.0, 0.1, 5.0, -0.5, 0.3, False).to_json()
    assert document["is_minimum"] is False
    assert document["reasons"] == [
        "the gradient norm, 2, is 20 times its standard error over samples "
        "(a batch of 5 is enough for signal to equal noise), and the curvature along it is negative",
        "lambda_min is -30 % of lambda_max",
    ]
