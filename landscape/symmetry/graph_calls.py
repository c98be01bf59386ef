"""One walk through a network's graph for all rules: its calls, what is written by hand (RMSNorm, GELU) as a single one."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, fx

from landscape.network.graph import Graph, bound_arguments, where
from landscape.symmetry.hand_written import hand_written


@dataclass(frozen=True)
class Leaf:
    """A parameter or buffer, or a view of one.

    Attributes:
        name: of the tensor.
        shape: of the view.
        parameter: False for a buffer.
        index: for each entry of the view, its element of the flattened tensor; None for the tensor itself.
    """

    name: str
    shape: torch.Size
    parameter: bool
    index: Int[Tensor, "..."] | None = None

    @property
    def producer(self) -> str:
        """Name of its layer in reports."""
        layer, _, attribute = self.name.rpartition(".")
        return layer if layer and attribute in {"weight", "bias"} else self.name

    def elements(self) -> Int[Tensor, "..."]:
        """`index` as an explicit tensor."""
        return torch.arange(self.shape.numel()).view(self.shape) if self.index is None else self.index


@dataclass(frozen=True)
class GraphCall:
    """A call: operation, arguments by name, shapes of the results, and the calling layer."""

    op: Any
    args: dict[str, Any]
    shapes: list[torch.Size]
    where: str

    @property
    def name(self) -> str:
        """Name of the operation, without its overload."""
        return str(getattr(self.op, "overloadpacket", self.op)).removeprefix("aten.")

    @property
    def place(self) -> str:
        """The operation and its layer, for reasons."""
        return f"{self.name} in {self.where}"

    @property
    def first(self) -> Any:
        """The first argument."""
        return next(iter(self.args.values()))

    @property
    def shape(self) -> torch.Size:
        """Shape of the first result."""
        return self.shapes[0]


def walk(
    graph: Graph,
    *,
    given: Callable[[torch.Size], Any],
    follow: Callable[[Any, dict[str, Any], list[torch.Size], str], Any],
    end: Callable[[list[Any]], None],
    constant: Callable[[Tensor], Any] | None = None,
) -> None:
    """Follow values through a graph, from its inputs to its outputs.

    Args:
        graph: of the network.
        given: shape -> the value of an input or a constant. A parameter or buffer is a `Leaf`.
        follow: the fields of a `GraphCall` -> the value, or the list of values, that the call returns.
        end: called with the values that the network returns, nested lists flattened.
        constant: tensor -> the value of a constant, if another one than that of an input.
    """
    values: dict[fx.Node, Any] = {}

    def look_up(argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda node: values[node])

    written = hand_written(graph)
    for node in graph.nodes:
        if node in written.parts or node.op == "get_attr":
            values[node] = None
        elif node.op == "placeholder":
            fixed = graph.constants.get(node.name) if constant is not None else None
            values[node] = _placeholder(graph, node, given) if constant is None or fixed is None else constant(fixed)
        elif node.op == "output":
            end(values_in(look_up(node.args)))
        elif node.target is operator.getitem:
            values[node] = look_up(node.args[0])[node.args[1]]
        else:
            op, args = written.call(node, look_up) or (node.target, bound_arguments(node, look_up))
            shapes = [v.shape for v in values_in(node.meta.get("val")) if isinstance(v, Tensor)]
            values[node] = follow(op, args, shapes, where(node))


def _placeholder(graph: Graph, node: fx.Node, given: Callable[[torch.Size], Any]) -> Any:
    """A parameter, a buffer, a constant or an input."""
    name = graph.leaves.get(node.name)
    if name is not None:
        return Leaf(name, graph.tensors[name].shape, name in graph.parameters)
    value = node.meta.get("val")
    return given(value.shape) if isinstance(value, Tensor) else value


def values_in(value: Any) -> list[Any]:
    """A value, or the elements of nested lists, in order."""
    if isinstance(value, (list, tuple)):
        return [leaf for v in value for leaf in values_in(v)]
    return [value]
