"""The end of what can be differentiated."""

import functools
from collections.abc import Callable
from typing import Any

import torch


def last(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a backward pass refuse to be differentiated.

    PyTorch's `once_differentiable` gives no error to `torch.autograd.grad(..., inputs)`, which does not come by the node that
    would raise it: the derivative would lack a part and nobody would know.
    """

    @functools.wraps(backward)
    def guarded(ctx: Any, *cotangents: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("expected a graph that is differentiated twice, found that a third derivative is asked for")
        return backward(ctx, *cotangents)

    return guarded
