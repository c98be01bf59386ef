"""Networks that deceive a finder: nothing false is claimed of them, and what nobody has worked out is said."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.measures import MEASURES
from landscape.measures.running.marks import mark_of
from landscape.objective import Objective
from landscape.reparam import find_symmetries, move


class Net(nn.Module):
    """Layers by name, and the function that uses them."""

    def __init__(self, function: Callable[["Net", Tensor], Tensor], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def linear(*sizes: int, bias: bool = True) -> nn.Linear:
    return nn.Linear(*sizes, bias=bias)


def recurrent(net: nn.Module, x: Tensor) -> Tensor:
    state = torch.zeros(len(x), 4, dtype=x.dtype)
    for step in x.unbind(1):
        state = torch.relu(net.write(step) + net.again(state))
    return net.head(state)


# Shared weights, and readers whose input is not the same in all rows: what holds for one use must hold for all.
SOUND: dict[str, Callable[[], nn.Module]] = {
    "shared with a raw input": lambda: Net(
        lambda m, x: torch.tanh(m.b(m.a(x))) + torch.tanh(m.b(torch.relu(x))), a=linear(6, 6), b=linear(6, 3)
    ),
    "shared with another layer": lambda: Net(
        lambda m, x: torch.tanh(m.b(m.a(x))) + torch.tanh(m.b(m.c(x))), a=linear(6, 5), b=linear(5, 3), c=linear(6, 5)
    ),
    "twice in a row": lambda: Net(lambda m, x: torch.tanh(m.b(m.b(m.a(x)))), a=linear(6, 4), b=linear(4, 4)),
    "also squared": lambda: Net(lambda m, x: torch.tanh(m.b(m.a(x))) * (m.b.weight**2).sum(), a=linear(6, 5), b=linear(5, 3)),
    "tokens, then channels": lambda: Net(
        lambda m, x: torch.tanh(m.h(m.c(x.transpose(1, 2)).transpose(1, 2))).mean(1), c=linear(5, 5), h=linear(6, 3)
    ),
    "recurrent from zeros": lambda: Net(recurrent, write=linear(6, 4), again=linear(4, 4, bias=False), head=linear(4, 3)),
}


@pytest.mark.parametrize("name", SOUND)
def test_nothing_is_claimed_that_does_not_hold(name: str) -> None:
    torch.manual_seed(0)
    model, x = SOUND[name]().double(), torch.randn(3, 5, 6).double()
    symmetries = find_symmetries(model, x)
    for family in symmetries.families:
        outputs, moved = model(x).detach(), move(model, symmetries, family)(x).detach()
        if family == "shift":  # the outputs may all move by one constant
            outputs, moved = (y - y.mean(-1, keepdim=True) for y in (outputs, moved))
        assert float((moved - outputs).abs().max()) <= 1e-9 * float(outputs.abs().max()), family


def gate(m: nn.Module, x: Tensor) -> Tensor:
    q, k, v = m.q(x), m.k(x), m.v(x)
    return m.h(torch.tanh(q @ (k.transpose(1, 2) @ v)).mean(1))


def masked(m: nn.Module, x: Tensor) -> Tensor:
    return m.h(torch.tanh(F.scaled_dot_product_attention(m.q(x), m.k(x), m.v(x), attn_mask=m.mask)).mean(1))


def normed(m: nn.Module, x: Tensor) -> Tensor:
    q, k = (F.rms_norm(p(x), (6,), gain) for p, gain in ((m.q, m.q_gain), (m.k, m.k_gain)))
    return m.h(torch.tanh((q @ k.transpose(1, 2)).softmax(-1) @ x).mean(1))


# Symmetries exist here that no rule finds; the mark of every measure that does not survive them must say so.
SAID: dict[str, Callable[[], nn.Module]] = {
    "linear attention": lambda: Net(gate, q=linear(6, 4), k=linear(6, 4), v=linear(6, 4), h=linear(4, 3)),
    "queries times keys": lambda: Net(lambda m, x: torch.tanh((m.q(x) * m.k(x)).sum(-1)), q=linear(6, 4), k=linear(6, 4)),
    "rectified queries and keys": lambda: Net(
        lambda m, x: torch.tanh(torch.relu(m.q(x)) @ torch.relu(m.k(x)).transpose(1, 2)).mean(1), q=linear(6, 4), k=linear(6, 4)
    ),
    "squared relu": lambda: Net(lambda m, x: m.b(torch.relu(m.a(x)) ** 2).mean(1), a=linear(6, 5), b=linear(5, 3)),
    "exp": lambda: Net(lambda m, x: torch.tanh(m.b(torch.exp(m.a(x)))).mean(1), a=linear(6, 5), b=linear(5, 3)),
    "sine": lambda: Net(lambda m, x: m.b(torch.sin(m.a(x))).mean(1), a=linear(6, 5), b=linear(5, 3)),
    "low rank beside a trained base": lambda: Net(
        lambda m, x: m.h(torch.tanh(m.w(x) + m.b(m.a(x)))).mean(1),
        w=linear(6, 5), a=linear(6, 2), b=linear(2, 5), h=linear(5, 3),
    ),
    "GroupNorm": lambda: Net(
        lambda m, x: m.h(torch.tanh(m.n(m.c(x.transpose(1, 2)))).mean(-1)),
        c=nn.Conv1d(6, 4, 1), n=nn.GroupNorm(2, 4), h=linear(4, 3),
    ),
    "channels between tokens": lambda: Net(
        lambda m, x: torch.tanh(m.t(m.a(m.s(x.transpose(1, 2)).transpose(1, 2)).transpose(1, 2))).mean(1),
        s=linear(5, 4), a=linear(6, 6), t=linear(4, 3),
    ),
    "a gain after a sum": lambda: Net(
        lambda m, x: m.h(torch.tanh(m.c((m.a(x) + m.b(torch.tanh(x))) * m.gain))).mean(1),
        a=linear(6, 5), b=linear(6, 5), c=linear(5, 4), h=linear(4, 3), gain=nn.Parameter(torch.randn(5)),
    ),
    "even gains": lambda: Net(
        normed, q=linear(6, 6), k=linear(6, 6), h=linear(6, 3),
        q_gain=nn.Parameter(torch.ones(6)), k_gain=nn.Parameter(torch.ones(6)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_what_is_not_worked_out_is_said(name: str) -> None:
    torch.manual_seed(0)
    model, x = SAID[name]().double(), torch.randn(8, 5, 6).double()
    y = torch.randint(0, 3, (8,)) if model(x).shape[-1] == 3 else torch.randint(0, 5, (8,))
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y), dtype="float64")
    factors = name in ("rectified queries and keys", "squared relu")  # only factors are in doubt there
    for measure in ("trace",) if factors else ("adaptive_trace", "row_trace", "trace"):
        mark = mark_of(MEASURES[measure], objective)
        assert mark["unknown"], measure
    assert not mark_of(MEASURES["output_curvature"], objective)["unknown"]


def test_a_constant_in_each_row_of_a_learned_mask_is_found() -> None:
    torch.manual_seed(0)
    mask = nn.Parameter(torch.randn(5, 5))
    model = Net(masked, q=linear(6, 6), k=linear(6, 6), v=linear(6, 6), h=linear(6, 3), mask=mask).double()
    symmetries = find_symmetries(model, torch.randn(2, 5, 6).double())
    assert not symmetries.all_unread
    found = next(shift for shift in symmetries.shifts if "mask" in shift.rows)
    assert torch.equal(found.rows["mask"].sort()[0], torch.arange(25).view(5, 5))


def test_log_probabilities_ignore_a_constant_whatever_the_loss() -> None:
    torch.manual_seed(0)
    model, x = Net(lambda m, x: m.h(torch.tanh(x)).log_softmax(-1), h=linear(6, 3)).double(), torch.randn(8, 6).double()
    symmetries = find_symmetries(model, x)
    assert symmetries.families == ("shift",)
    assert torch.allclose(move(model, symmetries, "shift")(x), model(x), rtol=0, atol=1e-12)


def test_a_network_without_any_linear_map_is_read() -> None:
    class Powers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x @ self.w.exp())

    symmetries = find_symmetries(Powers(), torch.randn(2, 3))
    assert symmetries.families == ()
    assert symmetries.unread == ("exp in the network's own forward",)
