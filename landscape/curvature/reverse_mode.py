"""Reverse-mode derivatives of named tensors: gradients, vector-Jacobian and Jacobian-vector products."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from landscape.errors import NumericalError, is_out_of_memory


def grad(scalar: Tensor, leaves: dict[str, Tensor], create_graph: bool = False) -> dict[str, Tensor]:
    """Gradient of a scalar; zeros for leaves that it does not depend on."""
    if not scalar.requires_grad:
        raise NumericalError(
            "expected a loss that can be differentiated, found one that does not depend on the weights through autograd",
            fix="look for .detach(), .item(), argmax or torch.no_grad() in the model or the loss",
        )
    grads = torch.autograd.grad(scalar, list(leaves.values()), create_graph=create_graph, materialize_grads=True)
    return dict(zip(leaves, grads, strict=True))


def dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    """Inner product of two dictionaries of tensors with the same names."""
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def vjp(
    outputs: dict[str, Tensor], leaves: dict[str, Tensor], cotangents: dict[str, Tensor], create_graph: bool = False
) -> dict[str, Tensor]:
    """Vector-Jacobian product that keeps the graph; zeros for leaves without dependence (a linear model has no curvature)."""
    live = [name for name, t in outputs.items() if t.requires_grad]
    if not live:
        return {name: torch.zeros_like(t) for name, t in leaves.items()}
    paired: Tensor = _Paired.apply(len(live), *(outputs[n] for n in live), *(cotangents[n] for n in live))
    grads = torch.autograd.grad(
        paired, list(leaves.values()), retain_graph=True, create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(leaves, grads, strict=True))


class _Paired(torch.autograd.Function):
    """A scalar whose gradient with respect to the outputs is the cotangents, which it passes on as they are.

    The same as `grad_outputs` of `torch.autograd.grad`, which imports sympy to compare shapes: longer than a small network's
    whole spectrum.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> Tensor:
        for output, cotangent in zip(tensors[:count], tensors[count:], strict=True):
            if output.shape != cotangent.shape:
                raise RuntimeError(f"a cotangent of shape {tuple(cotangent.shape)} for an output of {tuple(output.shape)}")
        ctx.save_for_backward(*tensors[count:])
        return tensors[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_one: Tensor) -> tuple[Tensor | None, ...]:
        cotangents: tuple[Tensor, ...] = ctx.saved_tensors
        return (None, *cotangents, *(None for _ in cotangents))


def vjps(outputs: dict[str, Tensor], leaves: dict[str, Tensor], cotangents: dict[str, Tensor]) -> dict[str, Tensor]:
    """`vjp` for k cotangents at once, stacked along a first dimension like the results."""
    live = [name for name, t in outputs.items() if t.requires_grad]
    k = len(next(iter(cotangents.values())))
    if not live:
        return {name: t.new_zeros(k, *t.shape) for name, t in leaves.items()}
    grads = torch.autograd.grad(
        [outputs[n] for n in live],
        list(leaves.values()),
        [cotangents[n] for n in live],
        retain_graph=True,
        is_grads_batched=True,
        allow_unused=True,
    )
    pairs = zip(leaves.items(), grads, strict=True)
    return {name: t.new_zeros(k, *t.shape) if g is None else g for (name, t), g in pairs}


def pusher(output: Tensor, leaves: dict[str, Tensor]) -> Callable[[dict[str, Tensor]], Tensor]:
    """v -> J v with J = d output / d leaves, by reverse over reverse: J^T u is linear in u, and its gradient along v is J v."""
    dummy = torch.zeros_like(output, requires_grad=True)
    pulled = vjp({"output": output}, leaves, {"output": dummy}, create_graph=True)
    return lambda v: vjp(pulled, {"output": dummy}, v)["output"]


@contextmanager
def differentiable() -> Iterator[None]:
    """Convert PyTorch's errors while it differentiates to one line; a whole batch may fail where 8 samples did not."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        first = str(error).partition("\n")[0]
        raise NumericalError(
            f"expected a network that can be differentiated on these data, found {type(error).__name__}: {first}",
            fix="values and surfaces need no derivatives",
        ) from error
