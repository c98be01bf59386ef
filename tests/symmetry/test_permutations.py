"""Permutations of hidden channels and of heads, and signs where the nonlinearity is odd, move no measure.

They only rename and reflect weights: H becomes P H P^T with a signed permutation P, and all norms and sizes stay. So they are
no family that could fake a number, and `find_symmetries` looks for none of them. Measures that draw directions agree within
their errors.
"""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from test_hidden_moves import Net, attention, softmax_of
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.measures import measure_all
from landscape.objective import Objective

EXACT = (
    "lambda_max", "lambda_min", "adaptive_lambda_max", "row_lambda_max", "layer_relative_lambda_max", "gauss_newton_lambda_max",
    "empirical_fisher_lambda_max", "first_order_adaptive_linf", "adaptive_worst_l2_m", "sam_linf", "critical_sharpness",
    "fisher_rao", "frobenius_product",
)  # fmt: skip
SAMPLED = ("trace", "adaptive_trace", "row_trace", "fisher_trace")


def of_tanh() -> Net:
    layers = {"a": nn.Linear(4, 5), "b": nn.Linear(5, 4), "c": nn.Linear(4, 3)}
    return Net(lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x))))), **layers)


def reflected(m: Net) -> None:
    """Hidden units in another order, some with their signs changed."""
    for layer, after in ((m.a, m.b), (m.b, m.c)):
        order = torch.randperm(len(layer.bias))
        sign = torch.randint(0, 2, order.shape).double() * 2 - 1
        layer.weight.copy_(sign[:, None] * layer.weight[order])
        layer.bias.copy_(sign * layer.bias[order])
        after.weight.copy_(after.weight[:, order] * sign)


def of_heads() -> Net:
    """Two heads and a GELU behind them; one set of classes for the mean over positions."""
    inner = attention(softmax_of(lambda m, q, k: q @ k.mT))
    return Net(lambda m, x: m.c(F.gelu(m.b(m.inner(x)))).mean(1), inner=inner, b=nn.Linear(4, 5), c=nn.Linear(5, 3))


def exchanged(m: Net) -> None:
    """The heads and the channels in them in another order, and the hidden units behind them."""
    inside = torch.randperm(3)
    order, sign = torch.cat([3 + inside, inside]), torch.tensor([-1.0, 1.0, -1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
    for layer in (m.inner.q, m.inner.k, m.inner.v):
        layer.weight.copy_(sign[:, None] * layer.weight[order])
        layer.bias.copy_(sign * layer.bias[order])
    m.inner.o.weight.copy_(m.inner.o.weight[:, order] * sign)
    hidden = torch.randperm(5)
    m.b.weight.copy_(m.b.weight[hidden])
    m.b.bias.copy_(m.b.bias[hidden])
    m.c.weight.copy_(m.c.weight[:, hidden])


@pytest.mark.parametrize(
    ("build", "change", "shape"), [(of_tanh, reflected, (4,)), (of_heads, exchanged, (4, 6))], ids=["odd units", "heads"]
)
def test_a_permutation_moves_no_measure(
    build: Callable[[], Net], change: Callable[[Net], None], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = build().double().eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        change(other)
    x, y = torch.randn(9, *shape, dtype=torch.float64), torch.randint(0, 3, (9,))
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=1e-12, atol=1e-12)
        assert max((p - q).abs().max() for p, q in zip(model.parameters(), other.parameters(), strict=True)) > 0.1
    first, second = (_measured(net, x, y) for net in (model, other))
    for name in EXACT:
        assert second[name].value == pytest.approx(first[name].value, rel=1e-6), name
    for name in SAMPLED:
        one, two = first[name], second[name]
        error = math.hypot(one.stderr, two.stderr)
        assert error > 0, name
        assert abs(one.value - two.value) < 5 * error, name


def _measured(net: nn.Module, x: Tensor, y: Tensor) -> dict:
    objective = Objective(net, nn.CrossEntropyLoss(), [(x, y)], dtype="float64")
    return {name: m.estimate for name, m in measure_all(objective, [*EXACT, *SAMPLED], seed=0).items()}
