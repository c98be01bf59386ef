"""The heads of a network's attention layers: which weights the layer's output depends on through each head alone.

Heads are found by tracing, not by name. The network runs with a stand-in for attention that keeps apart what each head reads,
once with each head alone and once with none. The weights of the layer that then have a derivative belong to the head: its rows
of the query, key and value projections, wherever a layer stores them, and its columns of the output projection if the layer has
that.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from landscape.curvature.engine import Engine
from landscape.network.parameters import Layout

# Scores are cut at this magnitude in the stand-in for softmax, since a mask adds minus infinity, or nearly, to some.
_MOST = 1e4


@dataclass(frozen=True, eq=False)
class Head:
    """One head of an attention layer.

    Attributes:
        layer: name of the module in which attention is computed; "" for the network itself.
        number: of the head in its layer, from 0.
        weights: (n,) positions in the flat vector of weights, increasing.
        shared: how many of them other heads have too: keys and values of grouped queries, norms of queries and keys.
    """

    layer: str
    number: int
    weights: Int[Tensor, " n"]
    shared: int


def attention_heads(engine: Engine, theta: Tensor) -> tuple[list[Head], list[str]]:
    """The heads of every attention layer, and the layers whose heads cannot be told apart.

    Args:
        engine: network and data, of which two samples are used.
        theta: (P,) weights.

    Returns:
        Heads in the order of the modules, and one line for each layer that has attention of an unknown kind.

    Cost: a gradient of two samples for each head of the layer with the most heads, and one more.
    """
    batch = engine.batches[0].first(2)
    with engine.derivatives(theta):
        leaves = engine.leaves(theta)
        return _found(engine.model, lambda: engine.forward(leaves, batch, fold=False), engine.layout, leaves)


def _found(
    model: nn.Module, run: Callable[[], object], layout: Layout, named: dict[str, Tensor]
) -> tuple[list[Head], list[str]]:
    """`attention_heads` of a network that `run` runs with the weights `named` in their places."""
    owned = _owned(model, layout)
    joint = {name: m for name, m in model.named_modules() if isinstance(m, nn.MultiheadAttention) and owned.get(name)}
    first = _traced(model, run, owned, None)
    unread = [f"{name or '(model)'}: {why}" for name, why in first.unread.items()]
    layers = {name: count for name, count in first.heads.items() if name not in joint and name not in first.unread}
    constant = _reached(first, layers, owned, named)
    members: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in layers}
    for h in range(max(layers.values(), default=0)):
        found = _reached(_traced(model, run, owned, h), {n: c for n, c in layers.items() if h < c}, owned, named)
        for name, reached in found.items():
            members[name][h] = {p: mask & ~constant[name][p] for p, mask in reached.items()}
    for name, m in joint.items():
        members[name] = _joint(m, name, layout)
    order = [name for name, _ in model.named_modules() if name in members]
    return [head for name in order for head in _heads(name, members[name], layout)], unread


def _owned(model: nn.Module, layout: Layout) -> dict[str, list[str]]:
    """For every module, the names of the varying weights in it; a tied weight counts under each of its names."""
    first = {id(p): name for name, p in model.named_parameters() if name in layout.names}
    out: dict[str, list[str]] = {}
    for name, m in model.named_modules():
        out[name] = list(dict.fromkeys(first[id(p)] for p in m.parameters() if id(p) in first))
    return out


@dataclass(eq=False)
class _Trace:
    """What a run with stand-ins showed: outputs and heads of each attention layer, and layers that were not understood."""

    outputs: dict[str, list[Tensor]]
    heads: dict[str, int]
    unread: dict[str, str]


class _OneHead(TorchFunctionMode):
    """Stand-ins for attention that let one head through, or none."""

    def __init__(self, head: int | None, seen: Callable[[int | None], None]) -> None:
        super().__init__()
        self.head, self.seen = head, seen

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            q, k, v = (args[i] if i < len(args) else kwargs[name] for i, name in enumerate(("query", "key", "value")))
            if q.ndim != 4:
                self.seen(None)
                return func(*args, **kwargs)
            self.seen(q.shape[1])
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
            mixed = sum(_generic(t).sum((2, 3), keepdim=True) / math.sqrt(t[0, 0].numel()) for t in (q, k, v))
            return self._alone(mixed + 0 * v.mean(2, keepdim=True) + 0 * q[..., :1])
        if func in (F.softmax, torch.softmax, Tensor.softmax) and isinstance(args[0], Tensor) and args[0].ndim == 4:
            scores = args[0]
            self.seen(scores.shape[1])
            return self._alone(scores.clamp(-_MOST, _MOST) / math.sqrt(scores.shape[-1]))
        return func(*args, **kwargs)

    def _alone(self, x: Tensor) -> Tensor:
        """x with all heads but one set to zero."""
        kept = torch.zeros(x.shape[1], dtype=x.dtype, device=x.device)
        if self.head is not None and self.head < len(kept):
            kept[self.head] = 1
        return x * kept[:, None, None]


def _generic(t: Tensor) -> Tensor:
    """t times fixed numbers that no structure in t cancels."""
    numbers = torch.arange(1, t.numel() + 1, dtype=torch.float64, device=t.device)
    return t * ((numbers * 0.7548776662466927) % 1 + 0.5).to(t.dtype).view(t.shape)


def _traced(model: nn.Module, run: Callable[[], object], owned: dict[str, list[str]], head: int | None) -> _Trace:
    """Run the network with one head alone."""
    found, inside = _Trace({}, {}, {}), list[str]()

    def seen(heads: int | None) -> None:
        name = next((n for n in reversed(inside) if owned[n]), None)
        if name is None:
            return
        if heads is None:
            found.unread[name] = "attention of tensors without a dimension of heads"
        elif found.heads.setdefault(name, heads) != heads:
            found.unread[name] = f"attention with {found.heads[name]} and with {heads} heads"

    def entered(name: str) -> Callable[..., None]:
        return lambda *_: inside.append(name)

    def left(name: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: Any, output: Any) -> None:
            inside.pop()
            if name in found.heads and name not in found.outputs:
                tensors = pytree.tree_leaves(output)
                found.outputs[name] = [t for t in tensors if isinstance(t, Tensor) and t.requires_grad]

        return leave

    with ExitStack() as stack:
        for name, m in model.named_modules():
            stack.callback(m.register_forward_pre_hook(entered(name), prepend=True).remove)
            stack.callback(m.register_forward_hook(left(name)).remove)
        stack.enter_context(_OneHead(head, seen))
        run()
    return found


def _reached(
    trace: _Trace, layers: dict[str, int], owned: dict[str, list[str]], named: dict[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """For every layer, which of its weights its output depends on."""
    out = {}
    for name in layers:
        leaves = [named[p] for p in owned[name]]
        value = sum((_generic(t).sum() for t in trace.outputs.get(name, [])), torch.zeros(()))
        if isinstance(value, Tensor) and value.requires_grad:
            grads = torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True)
        else:
            grads = tuple(torch.zeros_like(t) for t in leaves)
        out[name] = {p: g != 0 for p, g in zip(owned[name], grads, strict=True)}
    return out


def _joint(m: nn.MultiheadAttention, name: str, layout: Layout) -> dict[int, dict[str, Tensor]]:
    """Heads of PyTorch's own layer, whose attention is one function: equal parts of rows, and columns of the output."""
    prefix, members = f"{name}." if name else "", dict[int, dict[str, Tensor]]()
    for h in range(m.num_heads):
        masks = {}
        for part, p in m.named_parameters():
            if f"{prefix}{part}" not in layout.names or part == "out_proj.bias":
                continue
            mask, parts = torch.zeros(p.shape, dtype=torch.bool), 3 if part.startswith("in_proj") else 1
            by_head = mask.movedim(-1, 0) if part in ("out_proj.weight", "bias_k", "bias_v") else mask
            by_head.unflatten(0, (parts, m.num_heads, -1))[:, h] = True
            masks[f"{prefix}{part}"] = mask
        members[h] = masks
    return members


def _heads(name: str, members: dict[int, dict[str, Tensor]], layout: Layout) -> list[Head]:
    """The heads of a layer from the masks of their weights."""
    starts = {e.name: e.start for e in layout}
    positions = []
    for _, masks in sorted(members.items()):
        parts = [starts[p] + mask.reshape(-1).nonzero()[:, 0].cpu() for p, mask in masks.items()]
        positions.append(torch.cat(parts).sort().values if parts else torch.zeros(0, dtype=torch.long))
    counts = torch.zeros(layout.size, dtype=torch.long)
    for rows in positions:
        counts[rows] += 1
    return [Head(name, h, rows, int((counts[rows] > 1).sum())) for h, rows in enumerate(positions) if len(rows)]
