"""A network as a list of ATen calls: leaving out decompositions that change nothing gives the same list."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from landscape.network.graph import graph_of


class Around(nn.Module):
    """An operation between two linear layers."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.norm, self.b, self.operation = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3), operation

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.operation(self.norm(self.a(x))).relu())


def listed(nodes: list[fx.Node]) -> list[tuple[str, ...]]:
    """Names, operations and arguments."""
    return [(n.op, n.name, str(n.target), str(n.args), str(n.kwargs)) for n in nodes]


OPERATIONS = {
    "none of its own": lambda h: h,
    "softmax of a transpose": lambda h: (h[:, :2].T.softmax(0) @ h).mean(0).expand(2, 4),
    "in place": lambda h: h.mul_(2),
    "written into a view": lambda h: h.index_put_((torch.tensor([0]),), torch.zeros(1, 4)),
    "views of a composite": lambda h: h.unflatten(1, (2, 2)).flatten(1).contiguous(),
    "dropout in eval mode": lambda h: nn.functional.dropout(h, 0.5, training=False),
}


@pytest.mark.filterwarnings("ignore")  # what PyTorch says of its own code
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_calls_are_those_after_all_decompositions(name: str) -> None:
    model, x = Around(OPERATIONS[name]).eval(), torch.randn(2, 4)
    with torch.no_grad():
        whole = torch.export.export(model, (x,), strict=False).run_decompositions({})
    graph = graph_of(model, x)
    assert listed(graph.nodes) == listed(list(whole.graph.nodes))
    assert set(graph.leaves.values()) == {n for n, _ in model.named_parameters()}
    assert not any(n.target._schema.is_mutable for n in graph.nodes if isinstance(n.target, torch._ops.OpOverload))
