"""Gathers that can be differentiated twice, and layers that are run again instead of keeping their gathered weights.

A gather's derivative is a sum over processes that is scattered, and that sum's derivative is a gather. A layer is a node of the
graph that keeps its inputs and this process's part of its weights. Its first derivative gathers the weights, runs the layer
again and scatters the gradient; the derivative of that gathers weights and vector, runs it again and differentiates twice. So a
process holds the whole weights of one layer at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from landscape.sharded.wrapped_modules import Wrapped


class Gathered(torch.autograd.Function):
    """Whole weights from this process's part: all-gather; backward: reduce-scatter; backward of that: all-gather."""

    @staticmethod
    def forward(ctx: Any, owner: Wrapped, part: Tensor) -> tuple[Tensor, ...]:
        ctx.owner = owner
        return tuple(owner.whole(part)[0])

    @staticmethod
    def backward(ctx: Any, *wholes: Tensor) -> Any:
        return None, Scattered.apply(ctx.owner, *wholes)


class Scattered(torch.autograd.Function):
    """This process's part of the sum of whole tensors over the processes: reduce-scatter; backward: all-gather."""

    @staticmethod
    def forward(ctx: Any, owner: Wrapped, *wholes: Tensor) -> Tensor:
        ctx.owner = owner
        return owner.summed(wholes)

    @staticmethod
    def backward(ctx: Any, part: Tensor) -> Any:
        return None, *Gathered.apply(ctx.owner, part)


class LayerCall:
    """One call of a layer: its arguments apart from the tensors to differentiate by, and how its output is put together.

    Args:
        owner: the layer.
        forward: its forward function, without hooks.
        args, kwargs: of the call.
    """

    def __init__(self, owner: Wrapped, forward: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.owner, self._forward = owner, forward
        self._given, self._spec = pytree.tree_flatten((args, kwargs))
        self._at = [i for i, t in enumerate(self._given) if isinstance(t, Tensor) and t.requires_grad]
        self.inputs = [self._given[i] for i in self._at]
        for i in self._at:
            self._given[i] = None
        self._output: tuple[list[Any], Any] | None = None

    def __call__(self, part: Tensor) -> Any:
        """The layer's output at this process's part of its weights, as a node of the graph."""
        tensors = iter(Layer.apply(self, part, *self.inputs))
        self.inputs = []  # the node keeps them
        assert self._output is not None
        leaves, spec = self._output
        return pytree.tree_unflatten([next(tensors) if leaf is _TENSOR else leaf for leaf in leaves], spec)

    def run(self, moving: Sequence[Tensor], held: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
        """The tensors of the output that have derivatives."""
        given = list(self._given)
        for i, x in zip(self._at, inputs, strict=True):
            given[i] = x
        args, kwargs = pytree.tree_unflatten(given, self._spec)
        with self.owner.holding(moving, held):
            leaves, spec = pytree.tree_flatten(self._forward(*args, **kwargs))
        smooth = [isinstance(t, Tensor) and t.is_floating_point() for t in leaves]
        if self._output is None:
            self._output = [_TENSOR if s else t for t, s in zip(leaves, smooth, strict=True)], spec
        return [t for t, s in zip(leaves, smooth, strict=True) if s]

    def pulled(self, part: Tensor, inputs: Sequence[Tensor], upper: Sequence[Tensor]) -> list[Tensor]:
        """Gradient in the weights, of the sum over processes this one's part, and in the inputs. One gather, one scatter."""
        moving, held = self.owner.whole(part, frozen=True)
        leaves = [t.detach().requires_grad_() for t in (*moving, *inputs)]
        count = len(moving)
        del moving
        with torch.enable_grad():
            outputs = self.run(leaves[:count], held, leaves[count:])
            found = _grads(outputs, leaves, upper)
        del outputs, held
        return [self.owner.summed(found[:count]) if count else part.new_zeros(0), *found[count:]]

    def pulled_twice(
        self, part: Tensor, inputs: Sequence[Tensor], upper: Sequence[Tensor], along: Tensor, along_inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """Gradient of <`pulled`, along> in weights, inputs and `upper`. One gather of weights and vector, one scatter."""
        moving, direction, held = self.owner.whole(part, along, frozen=True)
        leaves = [t.detach().requires_grad_() for t in (*moving, *inputs, *upper)]
        count, inner = len(moving), len(moving) + len(inputs)
        del moving
        with torch.enable_grad():
            outputs = self.run(leaves[:count], held, leaves[count:inner])
            slopes = _grads(outputs, leaves[:inner], leaves[inner:], create_graph=True)
            found = _grads(slopes, leaves, (*direction, *along_inputs))
            del slopes, direction, outputs, held
        return [self.owner.summed(found[:count]) if count else part.new_zeros(0), *found[count:]]


_TENSOR = object()


class Layer(torch.autograd.Function):
    """A layer as one node: output from weights and inputs."""

    @staticmethod
    def forward(ctx: Any, call: LayerCall, part: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.save_for_backward(part, *inputs)
        moving, held = call.owner.whole(part, frozen=True)
        return tuple(call.run(moving, held, inputs))

    @staticmethod
    def backward(ctx: Any, *upper: Tensor) -> Any:
        part, *inputs = ctx.saved_tensors
        return None, *LayerGradient.apply(ctx.call, len(inputs), part, *inputs, *upper)


class LayerGradient(torch.autograd.Function):
    """The gradient of a layer as one node, from weights, inputs and the gradient of its output."""

    @staticmethod
    def forward(ctx: Any, call: LayerCall, count: int, part: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call, ctx.count = call, count
        ctx.save_for_backward(part, *tensors)
        return tuple(call.pulled(part, tensors[:count], tensors[count:]))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, along: Tensor, *along_inputs: Tensor) -> Any:
        part, *tensors = ctx.saved_tensors
        found = ctx.call.pulled_twice(part, tensors[: ctx.count], tensors[ctx.count :], along, along_inputs)
        return None, None, *found


def _grads(
    outputs: Sequence[Tensor], leaves: Sequence[Tensor], upper: Sequence[Tensor], create_graph: bool = False
) -> list[Tensor]:
    """Gradients of <outputs, upper>; zeros for leaves without dependence."""
    live = [i for i, t in enumerate(outputs) if t.requires_grad]
    if not live or not leaves:
        return [torch.zeros_like(t) for t in leaves]
    found = torch.autograd.grad(
        [outputs[i] for i in live], list(leaves), [upper[i] for i in live], create_graph=create_graph, materialize_grads=True
    )
    return list(found)
