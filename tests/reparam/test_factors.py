"""theta' = D theta makes g' = D^-1 g and H' = D^-1 H D^-1, against dense float64 derivatives."""

import numpy as np
import pytest
import torch
from cases import CASES, Case
from reference import dense_hessian, dense_loss
from torch import Tensor, nn

from landscape.reparam import apply, factors, find_symmetries, scales_for, trace_blocks

SMALL = [case for case in CASES if case.name in {"mlp", "mlp-mse", "cnn-batchnorm", "residual", "attention"}]


def diagonal(model: nn.Module, named: dict[str, Tensor]) -> np.ndarray:
    """D as a vector."""
    assert {n: f.shape for n, f in named.items()} == {n: p.shape for n, p in model.named_parameters()}
    return torch.cat([f.reshape(-1) for f in named.values()]).numpy()


@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("node", [False, True], ids=["layer", "node"])
def test_gradient_and_hessian(case: Case, node: bool) -> None:
    model, loss, x, y = case.make(3)
    model, x, y = model.double(), x.double(), y.double() if y.is_floating_point() else y
    symmetries = find_symmetries(model, x)
    choices = [None] if node else [[unit.name] for unit in symmetries]
    before = dense_hessian(model, loss, x, y)
    function, theta = dense_loss(model, loss, x, y)
    gradient = torch.func.grad(function)(theta).numpy()
    for layers in choices:
        scales = scales_for(model, symmetries, 3.0, node=node, layers=layers)
        other = apply(model, symmetries, scales)
        d = diagonal(model, factors(model, symmetries, scales))
        assert not np.allclose(d, 1)
        function, moved = dense_loss(other, loss, x, y)
        np.testing.assert_allclose(moved.numpy(), d * theta.numpy(), rtol=1e-14)
        np.testing.assert_allclose(torch.func.grad(function)(moved).numpy(), gradient / d, rtol=1e-9, atol=1e-13)
        after = dense_hessian(other, loss, x, y)
        np.testing.assert_allclose(after, before / np.outer(d, d), rtol=1e-8, atol=1e-11 * np.abs(after).max())
        adaptive = [np.sum(t**2 * np.diag(h)) for t, h in ((theta.numpy(), before), (moved.numpy(), after))]
        assert adaptive[1] == pytest.approx(adaptive[0], rel=1e-9)


@pytest.mark.parametrize("name", ["mlp", "cnn-batchnorm", "residual"])
def test_trace_blocks_predict_the_trace(name: str) -> None:
    model, loss, x, y = next(case for case in CASES if case.name == name).make(4)
    model, x = model.double(), x.double()
    symmetries = find_symmetries(model, x)
    hessian = torch.from_numpy(np.diag(dense_hessian(model, loss, x, y)).copy())
    sizes = [p.numel() for p in model.parameters()]
    diagonals = {n: h.view(p.shape) for (n, p), h in zip(model.named_parameters(), hessian.split(sizes), strict=True)}
    for unit in symmetries:
        blocks = trace_blocks(symmetries, unit, diagonals)
        assert trace_blocks(symmetries, unit, {n: float(h.sum()) for n, h in diagonals.items()}) == pytest.approx(blocks)
        other = apply(model, symmetries, symmetries.layerwise({unit.name: 2.5}))
        assert np.trace(dense_hessian(other, loss, x, y)) == pytest.approx(blocks.at(2.5), rel=1e-9)
        assert blocks.at(1.0) == pytest.approx(float(hessian.sum()))
