"""The calls of a plain sequence, read off its layers, are those that torch.export traces, node by node."""

import pytest
import torch
from torch import Tensor, fx, nn

from landscape.measures.traced_network import found_symmetries
from landscape.network import graph as graphs
from landscape.network.graph import Graph, graph_of
from landscape.network.losses.next_token import NextTokenLoss
from landscape.network.operations.sequential import sequential_calls
from landscape.objective import Objective
from landscape.tasks import networks

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
NETWORKS = {
    "mlp": (networks.build("mlp"), IMAGES[:, :1, :8, :8].contiguous()),
    "mlp of vectors": (networks.build("mlp", batchnorm=True, dropout=0.1, activation="tanh"), IMAGES[:, 0, :8, :8].flatten(1)),
    "digits-cnn": (networks.build("digits-cnn", dropout=0.3), IMAGES[:, :1, :8, :8].contiguous()),
    "c1": (networks.build("c1"), IMAGES),
    "vgg9": (networks.build("vgg9"), IMAGES),
    "options": (
        nn.Sequential(
            nn.Conv2d(3, 6, (3, 1), stride=(1, 2), padding=1, dilation=2, groups=3),
            nn.Sequential(nn.GELU(), nn.Sequential(nn.Identity(), nn.MaxPool2d((2, 3), padding=1, ceil_mode=True))),
            nn.Flatten(),
            nn.Linear(6 * 16 * 6, 5, bias=False),
            nn.Sigmoid(),
        ),
        IMAGES,
    ),
}


def _rows(graph: Graph) -> list[tuple[object, ...]]:
    """Every node with its arguments by name of what they stand for, its shapes and its layer."""
    numbers = {node: i for i, node in enumerate(graph.nodes)}

    def told(value: object) -> object:
        return fx.node.map_arg(value, lambda n: (numbers[n], graph.leaves.get(n.name)))

    rows = []
    for node in graph.nodes:
        value = node.meta.get("val")
        shapes = [tuple(v.shape) for v in (value if isinstance(value, tuple | list) else [value]) if isinstance(v, Tensor)]
        place = graphs.where(node) if node.op == "call_function" else ""
        rows.append((node.op, node.target if node.op == "call_function" else "", told(node.args), node.kwargs, shapes, place))
    return rows


@pytest.mark.parametrize("name", NETWORKS)
def test_the_calls_are_those_of_export(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = NETWORKS[name]
    read = graph_of(network, x)
    monkeypatch.setattr(graphs, "sequential_calls", lambda *_: None)
    traced = graph_of(network, x)
    assert _rows(read) == _rows(traced)
    assert set(read.leaves.values()) == set(traced.leaves.values())
    assert read.parameters == traced.parameters
    assert all(isinstance(node.meta["val"], Tensor | tuple) for node in read.nodes if node.op != "output")
    assert read.tensors.keys() == traced.tensors.keys()
    assert not read.constants
    assert not traced.constants


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_everything_else_is_left_to_export() -> None:
    hooked = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    hooked[1].register_forward_hook(lambda _module, _inputs, output: output + 1)
    replaced = nn.Sequential(nn.Linear(4, 4))
    replaced[0].forward = lambda x: x  # type: ignore[method-assign]
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    layer = nn.Linear(4, 4)
    others = [
        hooked,
        replaced,
        tied,
        nn.Sequential(layer, nn.ReLU(), layer),
        nn.Sequential(Scaled(4, 4)),
        nn.Sequential(nn.Softmax(1)),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))),
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)),
    ]
    for network in others:
        assert sequential_calls(network.eval(), torch.randn(2, 4)) is None, network
    flattened = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
    assert sequential_calls(flattened, IMAGES) is not None
    assert sequential_calls(flattened, IMAGES.to(memory_format=torch.channels_last)) is None  # `view` would not do
    rectifier = nn.ReLU()  # without weights it may come twice
    twice = nn.Sequential(nn.Linear(4, 4), rectifier, nn.Linear(4, 4), rectifier).eval()
    calls = sequential_calls(twice, torch.randn(2, 4))
    assert calls is not None
    assert sum(node.op == "call_function" for node in calls.nodes) == 4


class Named(nn.Module):
    """Its output has the logits by name."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.net, self.key = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), key

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {self.key: self.net(x)}


@pytest.mark.parametrize("key", ["logits", "out"])
def test_logits_by_name_are_picked_and_their_symmetries_found(key: str) -> None:
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    found = found_symmetries(Objective(Named(key), nn.CrossEntropyLoss(), (x, y)))
    assert found.reason is None
    assert found.counts["node"] == 6


def test_a_language_model_that_is_a_sequence_is_traced() -> None:
    ids = torch.arange(24).view(4, 6) % 7
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 7))
    found = found_symmetries(Objective(model, NextTokenLoss(), (ids, ids)))
    assert found.reason is None
    assert found.counts["node"] == 5 + 6  # of the embedding, and of the hidden layer


def test_a_weight_that_is_no_parameter_is_left_to_export() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    weight = network[0].weight.detach().clone()
    del network[0].weight
    network[0].weight = weight
    assert sequential_calls(network, torch.randn(2, 4)) is None


def test_a_hook_of_all_modules_is_left_to_export() -> None:
    network, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), torch.randn(2, 4)
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: output.tanh())
    try:
        assert sequential_calls(network, x) is None
    finally:
        handle.remove()
    assert sequential_calls(network, x) is not None
