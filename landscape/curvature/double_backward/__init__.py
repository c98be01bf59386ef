"""Operations with another double backward than PyTorch's: because it is slow, or because it lacks one or has a wrong one.

Inside the contexts below every call of such an operation, by a module or by hand, is replaced (but those that functions of
PyTorch's own make inside, such as `multi_head_attention_forward`) by one that computes the same value and the same derivatives.
What has no replacement, or an option that the replacement does not know, is PyTorch's own as ever.

`twice_differentiable()` replaces what would have no second derivative, or a wrong one (see `lacking`): it belongs around
every pass that is differentiated. `written_out()` replaces what PyTorch puts together from many small operations: it is for
speed, for graphs that are differentiated twice and no more: a third time is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from landscape.curvature.double_backward.attention import attention, softmax
from landscape.curvature.double_backward.convolution import convolution
from landscape.curvature.double_backward.lacking import (
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
    """Replace the operations whose second derivative is lacking or wrong, while the block runs.

    Cost: some microseconds for each operation of a forward pass.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        ours = LACKING.get(func)
        if ours is not None:
            found = ours(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return func(*args, **kwargs) if kwargs else func(*args)


class written_out(TorchFunctionMode):  # a context, used like a function
    """Replace the operations above, on inputs of at least `smallest` values, while the block runs."""

    def __init__(self, smallest: int = 0) -> None:
        super().__init__()
        self.smallest = smallest

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        ours = REPLACEMENTS.get(func)
        if ours is not None and args and isinstance(args[0], Tensor) and args[0].numel() >= self.smallest:
            found = ours(*args, **kwargs)
            if found is not NotImplemented:
                return found
        return func(*args, **kwargs)
