"""GELU's approximation written out, as in GPT-2, is read as one activation; what only looks like it is not."""

import math

import pytest
import torch
from torch import Tensor, nn

from landscape.reparam import find_symmetries

K = math.sqrt(2 / math.pi)
GELUS = {
    "power": lambda x: 0.5 * x * (1.0 + torch.tanh(K * (x + 0.044715 * torch.pow(x, 3.0)))),
    "behind": lambda x: x * 0.5 * (1.0 + torch.tanh(K * (x + 0.044715 * torch.pow(x, 3.0)))),
    "products": lambda x: 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x))),
    "gate first": lambda x: (1.0 + torch.tanh(K * (x + 0.044715 * x**3))) * (0.5 * x),
}
# x^2 passes a factor's square on, and so do products whose gate reads something else: a symmetry may be hidden there.
OTHERS = {
    "squared relu": lambda x: torch.relu(x) ** 2,
    "another's gate": lambda x: x * (1.0 + torch.tanh(x.flip(1) ** 3)),
}


class Net(nn.Module):
    """One hidden layer with an activation of its own."""

    def __init__(self, activation) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.activation = nn.Linear(3, 4), nn.Linear(4, 2), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


@pytest.mark.parametrize("activation", GELUS.values(), ids=GELUS)
def test_a_written_gelu_is_that_of_pytorch_and_read_like_it(activation):
    x = torch.randn(50, 3)
    assert torch.allclose(activation(x), nn.functional.gelu(x, approximate="tanh"), atol=1e-6)
    found = find_symmetries(Net(activation), x)
    assert len(found) == 0
    assert found.unread + found.unread_factors == ()


@pytest.mark.parametrize("activation", OTHERS.values(), ids=OTHERS)
def test_what_may_hide_a_symmetry_counts_as_not_read(activation):
    found = find_symmetries(Net(activation), torch.randn(5, 3))
    assert found.unread + found.unread_factors


def test_no_factor_passes_a_written_gelu():
    """The null space of the Jacobian in the logarithms of the weights has no direction: there is nothing to be found."""
    model = Net(GELUS["power"]).double()
    x, rows = torch.randn(60, 3, dtype=torch.float64), []
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        named = {n: torch.randn(p.shape, generator=g, dtype=p.dtype) for n, p in model.named_parameters()}
        jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(named)
        rows.append(torch.cat([(j * named[n]).reshape(-1, named[n].numel()) for n, j in jacobian.items()], 1))
    assert torch.linalg.svdvals(torch.cat(rows))[-1] > 1e-6
