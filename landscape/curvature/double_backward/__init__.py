"""Replacements for operations whose double backward in PyTorch is slow, missing or wrong.

Inside the contexts below, every call of such an operation, by a module or directly, is replaced by one that computes the same
value and the same derivatives. Calls inside PyTorch's own functions, such as `multi_head_attention_forward`, are not replaced.
An operation without a replacement, or with an option that the replacement does not support, remains PyTorch's own.

`twice_differentiable()` replaces operations whose second derivative is missing or wrong (see `lacking`); use it around every
pass that is differentiated. `written_out()` replaces operations that PyTorch composes of many small ones, for speed. Its graphs
can be differentiated twice; a third derivative is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from landscape.curvature.double_backward.attention import attention, softmax
from landscape.curvature.double_backward.convolution import convolution
from landscape.curvature.double_backward.missing_derivatives import (
    cdist,
    embedding,
    embedding_bag,
    hardsigmoid,
    multi_margin_loss,
    multilabel_margin_loss,
    pdist,
    weight_norm,
)
from landscape.curvature.double_backward.normalization import batch_norm, layer_norm
from landscape.curvature.double_backward.pointwise import gelu, relu, silu, tanh

REPLACEMENTS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.conv1d: convolution, torch.conv2d: convolution, torch.conv3d: convolution,
    F.relu: relu, torch.relu: relu, Tensor.relu: relu,
    F.gelu: gelu, F.silu: silu, torch.tanh: tanh, Tensor.tanh: tanh,
    F.layer_norm: layer_norm, F.batch_norm: batch_norm,
    F.softmax: softmax, torch.softmax: softmax, Tensor.softmax: softmax,
    F.scaled_dot_product_attention: attention,
}  # fmt: skip


LACKING: Mapping[Callable[..., Any], Callable[..., Any]] = {
    F.hardsigmoid: hardsigmoid, torch._weight_norm: weight_norm,
    torch.cdist: cdist, F.pdist: pdist,
    F.embedding: embedding, F.embedding_bag: embedding_bag,
    F.multi_margin_loss: multi_margin_loss, F.multilabel_margin_loss: multilabel_margin_loss,
}  # fmt: skip


class twice_differentiable(TorchFunctionMode):  # a context, used like a function
    """Replace operations whose second derivative is missing or wrong, inside the block.

    Cost: some microseconds for each operation of a forward pass.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        ours = LACKING.get(func)
        if ours is not None:
            result = ours(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs) if kwargs else func(*args)


class written_out(TorchFunctionMode):  # a context, used like a function
    """Replace the operations in `REPLACEMENTS`, on inputs of at least `smallest` values, inside the block."""

    def __init__(self, smallest: int = 0) -> None:
        super().__init__()
        self.smallest = smallest

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        ours = REPLACEMENTS.get(func)
        if ours is not None and args and isinstance(args[0], Tensor) and args[0].numel() >= self.smallest:
            result = ours(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)
