"""The check of a sharded network's gradient: kinks and rounding are not taken for a mistake, and a mistake is found."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

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


def test_one_that_is_constant_or_not_finite():
    theta = torch.ones(3)
    check_gradient(theta, lambda t: 1.0, torch.zeros_like, dots)
    with pytest.raises(NumericalError, match="expected a finite loss and gradient, found nan"):
        check_gradient(theta, lambda t: math.nan, torch.ones_like, dots)
    with pytest.raises(NumericalError, match="expected the gradient to be the derivative"):  # a loss that ignores the weights
        check_gradient(theta, lambda t: 1.0, torch.ones_like, dots)
