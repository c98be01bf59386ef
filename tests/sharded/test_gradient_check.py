"""The check of a sharded network's gradient: kinks and rounding are not taken for a mistake, and a mistake is found."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kinked_worker import FACTORS, STEPS, fitted
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from landscape.errors import NumericalError
from landscape.sharded.gradient_check import check_gradient

HERE = Path(__file__).parent


@pytest.mark.slow  # a process that imports torch.distributed, and 270 networks
def test_right_networks_in_float32_pass_and_wrong_ones_do_not(tmp_path):
    """New, trained and fitted ones; a single difference of losses refuses about half of the right ones that are trained."""
    out = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, HERE / "kinked_worker.py", out, "18"], capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for case, passed in json.loads(out.read_text()).items():
        assert set(passed) == {case.endswith("right")}, case


def dots(*pairs: tuple[Tensor, Tensor]) -> list[float]:
    return [float(torch.dot(a.double(), b.double())) for a, b in pairs]


def kinked(theta: Tensor) -> Tensor:
    """A slope of 1 along the first axis, and of 3 beyond a kink that is nearer than any step."""
    return theta[0] + 2 * torch.relu(theta[0] - 1 - 1e-7) + 0.5 * theta.square().sum()


def gradient_of(loss, factor: float = 1.0):
    def gradient(theta: Tensor) -> Tensor:
        at = theta.clone().requires_grad_()
        return factor * torch.autograd.grad(loss(at), at)[0]

    return gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kink_beside_the_point_passes_and_a_factor_does_not(dtype):
    theta = torch.tensor([1.0, 0.5, -0.3], dtype=dtype)
    check_gradient(theta, lambda t: float(kinked(t)), gradient_of(kinked), dots)
    for factor in (-1.0, 0.5, 0.8, 1.25, 2.0, 8.0):
        with pytest.raises(NumericalError, match="expected the gradient to be the derivative of the loss"):
            check_gradient(theta, lambda t: float(kinked(t)), gradient_of(kinked, factor), dots)


def judged(theta: Tensor, loss, factor: float) -> bool:
    """Whether a gradient that is off by this factor passes."""
    try:
        check_gradient(theta, lambda t: float(loss(t)), gradient_of(loss, factor), dots)
    except NumericalError as error:
        if "expected the gradient to be the derivative of the loss" in str(error):
            return False
        raise
    return True


SMALL = {
    "softplus": (lambda t: torch.nn.functional.softplus(t).sum(), 0.3),
    "sigmoid at 0": (lambda t: torch.sigmoid(t.sum()), 0.0),
    "sigmoid at almost 0": (lambda t: torch.sigmoid(t.sum()), 1e-12),
    "rectified": (lambda t: torch.relu(torch.tanh(t)).sum(), 0.3),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-6, 1e-12])
@pytest.mark.parametrize("name", SMALL)
def test_a_small_loss_of_bounded_range_is_checked_and_so_is_one_at_the_origin(name, scale, dtype):
    """All of its range may lie within the rounding of a loss of 1."""
    loss, size = SMALL[name]
    theta = (size * torch.randn(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).to(dtype)
    passed = [factor for factor in (0.5, 0.8, 1.0, 1.2, 2.0, -1.0) if judged(theta, lambda t: scale * loss(t), factor)]
    assert passed == [1.0]


def test_a_loss_that_is_infinite_farther_off_is_checked_before():
    theta = torch.tensor([1.0, -0.5])
    loss = lambda t: 1e-4 * torch.where(t.abs().sum() < 1.6, torch.sigmoid(t.sum()), math.inf)  # noqa: E731 - the others are lambdas too
    assert [factor for factor in (0.5, 1.0, 2.0) if judged(theta, loss, factor)] == [1.0]


def test_one_that_cannot_be_told_passes():
    """Beside a constant of 1 the last place of the loss is all that changes."""
    theta = torch.ones(3)
    assert judged(theta, lambda t: 1 + 1e-9 * torch.tanh(t).sum(), 1.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("state", STEPS)
def test_rectified_networks_in_one_process(seed, state):
    """As the slow test above has them, not sharded."""
    net, x, y = fitted(seed, STEPS[state])
    theta = parameters_to_vector(net.parameters()).detach()

    def loss(t: Tensor) -> Tensor:
        parts, at = {}, 0
        for name, p in net.named_parameters():
            parts[name], at = t[at : at + p.numel()].view_as(p), at + p.numel()
        return torch.nn.functional.cross_entropy(torch.func.functional_call(net, parts, (x,)), y)

    for name, options in FACTORS.items():
        net.factor, net.inner = options.get("factor", 1.0), options.get("inner", False)
        assert judged(theta, loss, 1.0) == (name == "right"), name


def test_one_that_is_constant_or_not_finite():
    theta = torch.ones(3)
    check_gradient(theta, lambda t: 1.0, torch.zeros_like, dots)
    with pytest.raises(NumericalError, match="expected a finite loss and gradient, found nan"):
        check_gradient(theta, lambda t: math.nan, torch.ones_like, dots)
    with pytest.raises(NumericalError, match="expected the gradient to be the derivative"):  # a loss that ignores the weights
        check_gradient(theta, lambda t: 1.0, torch.ones_like, dots)
