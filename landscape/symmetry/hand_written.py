"""Find operations that are written out by hand, and stand for one call.

RMSNorm, as in Llama: x * rsqrt(mean(x^2) + eps), or x / sqrt(mean(x^2) + eps). GELU's approximation, as in GPT-2:
x * (1 + tanh(p(x))) with a polynomial p, times a number.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from landscape.network.graph import Graph, operation

_COPIES = {"to", "_to_copy", "clone", "type_as", "alias", "detach", "contiguous"}


@dataclass(frozen=True)
class HandWritten:
    """RMSNorm layers and gated activations in a graph.

    Attributes:
        norms: the product that ends each norm -> (x, eps).
        gates: the product that ends each x * (1 + tanh(p(x))) -> x. No factor of x passes it: tanh keeps none.
        parts: the calls in between, which nothing else reads.
    """

    norms: dict[fx.Node, tuple[fx.Node, float]] = field(default_factory=dict)
    gates: dict[fx.Node, fx.Node] = field(default_factory=dict)
    parts: set[fx.Node] = field(default_factory=set)

    def call(self, node: fx.Node, look_up: Callable[[Any], Any]) -> tuple[Any, dict[str, Any]] | None:
        """The call of `rms_norm` or `gelu` that this node stands for, None if it is not the end of one."""
        if node in self.gates:
            return torch.ops.aten.gelu.default, {"self": look_up(self.gates[node]), "approximate": "tanh"}
        if node not in self.norms:
            return None
        x, eps = self.norms[node]
        args = {"input": look_up(x), "normalized_shape": [node.meta["val"].shape[-1]], "weight": None, "eps": eps}
        return torch.ops.aten.rms_norm.default, args


def hand_written(graph: Graph) -> HandWritten:
    """All that is written by hand; the gain of an RMSNorm is a product of its own."""
    found = HandWritten()
    for node in graph.nodes:
        match = _match(node)
        if match is not None:
            x, eps, parts = match
            found.norms[node] = (x, eps)
            found.parts.update(parts)
            continue
        gate = _tanh_gate(node)
        if gate is not None:
            found.gates[node] = gate[0]
            found.parts.update(gate[1])
    return found


def _tanh_gate(node: fx.Node) -> tuple[fx.Node, list[fx.Node]] | None:
    """The input and inner calls of the x * (1 + tanh(p(x))) that this node ends."""
    if node.op != "call_function" or operation(node) != "mul":
        return None
    sides = [a for a in node.args if isinstance(a, fx.Node)]
    for scaled, gate in (sides, sides[::-1]) if len(sides) == 2 else ():
        parts: list[fx.Node] = []
        opened = _inside(gate, "add", parts)
        bent = opened and opened.args[1] == 1 and _inside(opened.args[0], "tanh", parts)
        if not bent:
            continue
        for x in _unscaled(scaled):
            inner = [*parts, *([] if x is scaled else [scaled])]
            if _polynomial(bent.args[0], x, inner) and (x is scaled or len(scaled.users) == 1):
                return x, inner
    return None


def _unscaled(node: fx.Node) -> list[fx.Node]:
    """A value, and what it is a multiple of by a number."""
    product = node.op == "call_function" and operation(node) == "mul" and not isinstance(node.args[1], fx.Node)
    return [node, node.args[0]] if product and isinstance(node.args[0], fx.Node) else [node]


def _polynomial(node: Any, x: fx.Node, parts: list[fx.Node]) -> bool:
    """Whether a value is a polynomial in x, with its calls noted as parts."""
    if node is x or isinstance(node, (int, float)):
        return True
    if not isinstance(node, fx.Node) or node.op != "call_function" or len(node.users) != 1:
        return False
    if operation(node) not in ("mul", "add", "pow") or (operation(node) == "pow" and isinstance(node.args[1], fx.Node)):
        return False
    parts.append(node)
    return all(_polynomial(a, x, parts) for a in node.args)


def _match(node: fx.Node) -> tuple[fx.Node, float, list[fx.Node]] | None:
    """The input, eps and inner calls of the norm that this node ends."""
    if node.op != "call_function" or operation(node) not in ("mul", "div"):
        return None
    sides = [a for a in node.args if isinstance(a, fx.Node)]
    if len(sides) != 2:
        return None
    for x, root in (sides, sides[::-1]) if operation(node) == "mul" else (sides,):
        parts: list[fx.Node] = []
        inner = _root(root, parts, "rsqrt" if operation(node) == "mul" else "sqrt")
        total = inner and _inside(inner, "add", parts)
        if not total or not isinstance(total.args[1], (int, float)):
            continue
        mean = _inside(total.args[0], "mean", parts)
        if not mean or len(mean.args) < 3 or not mean.args[2] or not _last(mean):
            continue
        square = _squared(mean.args[0], parts)
        if square is not None and _origin(square) is _origin(x):
            return x, float(total.args[1]), parts
    return None


def _root(node: Any, parts: list[fx.Node], name: str) -> Any:
    """The argument of the root, written as `rsqrt`, `sqrt` or a power."""
    if _inside(node, name, parts):
        return node.args[0]
    power = -0.5 if name == "rsqrt" else 0.5
    return node.args[0] if _inside(node, "pow", parts) and node.args[1] == power else None


def _squared(node: Any, parts: list[fx.Node]) -> Any:
    """The argument of the square, written as a power or as a product."""
    if isinstance(node, fx.Node) and operation(node) == "pow" and node.args[1] == 2 and _inside(node, "pow", parts):
        return node.args[0]
    if isinstance(node, fx.Node) and operation(node) == "mul" and node.args[0] is node.args[1] and _inside(node, "mul", parts):
        return node.args[0]
    return None


def _inside(node: Any, name: str, parts: list[fx.Node]) -> Any:
    """The node, noted as a part, if it calls this operation and only one node reads it."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or operation(node) != name or len(node.users) != 1:
        return None
    parts.append(node)
    return node


def _last(mean: fx.Node) -> bool:
    """Whether a mean is over the last axis."""
    dims = mean.args[1]
    dims = list(dims) if isinstance(dims, (list, tuple)) else [dims]
    source = mean.args[0]
    ndim = source.meta["val"].ndim if isinstance(source, fx.Node) else 0
    return len(dims) == 1 and isinstance(dims[0], int) and dims[0] % max(ndim, 1) == ndim - 1


def _origin(node: Any) -> Any:
    """The value that a chain of copies starts from."""
    while isinstance(node, fx.Node) and node.op == "call_function" and operation(node) in _COPIES:
        node = node.args[0]
    return node
