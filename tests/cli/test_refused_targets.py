"""A target that matrices cannot reach before rounding changes the function: the nearest value, and what to ask for instead."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from landscape import Objective
from landscape.cli.moves.move_targets import solved
from landscape.errors import UsageError
from landscape.reparam import find_symmetries


def cancelling(size: float) -> tuple[nn.Module, Tensor]:
    """Two linear maps of which the second one takes away all but one part in `size` of what the first one gives."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 3, bias=False))
    large, x = torch.randn(3), torch.randn(40, 4)
    with torch.no_grad():
        net[0].weight += size * torch.outer(large, torch.randn(4))
        net[1].weight -= torch.outer(net[1].weight @ large, large) / (large @ large)
    return net, x


def refusal(size: float, target: str) -> UsageError:
    net, x = cancelling(size)
    objective = Objective(net, nn.CrossEntropyLoss(), (x, torch.arange(40) % 3), dtype="float32")
    terminal: Any = SimpleNamespace(note=print, line=print)
    task: Any = SimpleNamespace(model=net)
    symmetries = find_symmetries(net, x[:2])
    with pytest.raises(UsageError) as caught:
        solved(terminal, task, objective, symmetries, "pair", target, None, 0)
    return caught.value


def test_the_first_comparison_fails() -> None:
    refused = refusal(1e6, "adaptive_trace=1e9")
    assert ": no value was reached, and condition number 1 changes the outputs" in str(refused)


@pytest.mark.parametrize(("target", "advice"), [("adaptive_trace=1e30", "smaller"), ("adaptive_trace=1e-9", "larger")])
def test_the_advice_is_towards_what_was_reached(target: str, advice: str) -> None:
    refused = refusal(300.0, target)
    assert "before rounding of the weights changes the function" in str(refused)
    assert f"choose a {advice} target, or --dtype float64" in str(refused)
