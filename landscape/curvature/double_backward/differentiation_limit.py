"""Guard for graphs that may be differentiated a fixed number of times."""

import functools
from collections.abc import Callable
from typing import Any

import torch


def last(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a backward pass refuse to be differentiated.

    PyTorch's `once_differentiable` raises no error in `torch.autograd.grad(..., inputs)`, which does not visit the node that
    would raise it; the derivative would silently miss a part.
    """

    @functools.wraps(backward)
    def guarded(ctx: Any, *cotangents: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("expected a graph that is differentiated twice, found a request for a third derivative")
        return backward(ctx, *cotangents)

    return guarded
