"""The context in which losses over a vocabulary and attention over long sequences are computed in blocks.

Unlike the other replacements, these are used for every graph of a gradient, whatever the method: the tensors that they avoid
would dominate the memory of the network. They are part of what the pre-flight checks test.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from landscape.curvature.double_backward.long_attention import long_attention
from landscape.curvature.double_backward.vocabulary import CLASSES, cross_entropy
from landscape.curvature.double_backward.vocabulary_head import Head

_MATMULS = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm}
# Functions that give the same elements in the same order another shape, or move and select dimensions, or return what they are
# given unless the dtype changes.
_SHAPES = {
    Tensor.view, Tensor.reshape, torch.reshape, Tensor.flatten, torch.flatten, Tensor.unflatten, torch.unflatten,
}  # fmt: skip
_VIEWS = {
    Tensor.transpose, torch.transpose, Tensor.swapaxes, torch.swapaxes, Tensor.permute, torch.permute,
    Tensor.movedim, torch.movedim, Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze,
    Tensor.narrow, torch.narrow, Tensor.select, torch.select,
    Tensor.mT.__get__, Tensor.T.__get__,  # type: ignore[attr-defined]  # properties of the class
}  # fmt: skip
_COPIES = {
    Tensor.contiguous, Tensor.clone, torch.clone, Tensor.float, Tensor.double, Tensor.to, Tensor.type_as, Tensor.view_as,
}  # fmt: skip


class _Logits(NamedTuple):
    """A tensor that consists of outputs of a linear layer.

    Attributes:
        head: the layer.
        rows: in the tensor's shape, the row of the layer's input behind every element; no stride along the outputs.
        versions: of the tensor and of the layer's tensors when it was made; others if one has been written to.
    """

    head: Head
    rows: Tensor
    versions: tuple[int | None, ...]


class in_blocks(TorchFunctionMode):  # a context, used like a function
    """Compute cross-entropy of many classes and attention over many keys in blocks, inside the block.

    A linear layer whose outputs reach the loss as they are, in whatever order, is differentiated together with it. Any other
    use of the outputs, such as a soft cap before the loss, has PyTorch's derivatives.

    Args:
        keep: the graph holds the probabilities of such a layer's outputs, so that its second derivatives need not recompute
            them.

    Attributes:
        used: whether anything has been computed in blocks.
    """

    def __init__(self, keep: bool = False) -> None:
        super().__init__()
        self.keep, self.used = keep, False
        self._logits = WeakTensorKeyDictionary()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        ours: Any = NotImplemented
        if func is F.scaled_dot_product_attention:
            ours = NotImplemented if _autocast(args, kwargs) else long_attention(*args, **kwargs)
        elif func is F.cross_entropy and not _autocast(args, kwargs):
            if "input" in kwargs:
                args, kwargs = (kwargs["input"],), {name: value for name, value in kwargs.items() if name != "input"}
            ours = functools.partial(cross_entropy, head=self._head(args[0]), keep=self.keep)(*args, **kwargs)
        if ours is not NotImplemented:
            self.used = True
            return ours
        out = func(*args, **kwargs)
        if (func is F.linear or func in _MATMULS) and len(args) > 1 and kwargs.keys() <= {"bias"}:
            self._note(func, out, *args, **kwargs)
        elif self._logits and (func in _VIEWS or func in _SHAPES or func in _COPIES or func is Tensor.__getitem__):
            self._follow(func, out, args, kwargs)
        return out

    def _note(self, func: Callable[..., Any], out: Any, x: Any, matrix: Any, bias: Tensor | None = None) -> None:
        """Remember a layer with many outputs."""
        if not isinstance(out, Tensor) or not isinstance(matrix, Tensor) or matrix.ndim != 2 or out.ndim < 2:
            return
        if out.shape[-1] < CLASSES or out.grad_fn is None:
            return
        if any(t.dtype != out.dtype for t in (x, matrix, bias) if t is not None):
            return  # cast on the way, as in autocast: the layer has been computed in another dtype
        weight = matrix if func is F.linear else matrix.mT
        rows = torch.arange(out.numel() // out.shape[-1], device=out.device).view(*out.shape[:-1], 1).expand(out.shape)
        head = Head(x.reshape(-1, x.shape[-1]), weight, bias)
        self._logits[out] = _Logits(head, rows, _versions(out, head))

    def _follow(self, func: Callable[..., Any], out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember what a rearrangement of such outputs consists of."""
        source = args[0] if args else None
        known = self._known(source)
        if known is None or source is None or not isinstance(out, Tensor) or out is source or out.grad_fn is None:
            return
        if func in _COPIES:
            if (out.dtype, out.shape, out.device) == (source.dtype, source.shape, source.device):
                self._logits[out] = _Logits(known.head, known.rows, _versions(out, known.head))
            return
        if func is Tensor.__getitem__ and not all(
            i is None or i is Ellipsis or isinstance(i, int | slice)
            for i in (args[1] if isinstance(args[1], tuple) else (args[1],))
        ):
            return
        try:  # without a copy, which would be as large as the logits
            rows = known.rows.view(out.shape) if func in _SHAPES else func(known.rows, *args[1:], **kwargs)
        except RuntimeError:  # the outputs were joined with other dimensions
            return
        outputs = len(known.head.weight)
        along = next((i for i in range(rows.ndim) if rows.shape[i] == outputs and rows.stride(i) == 0), None)
        if along is not None and rows.shape == out.shape:
            rows = rows.select(along, 0).contiguous().unsqueeze(along).expand(out.shape)
            self._logits[out] = _Logits(known.head, rows, _versions(out, known.head))

    def _known(self, t: Any) -> _Logits | None:
        """What is known of a tensor, unless it or its layer has been written to or a hook changes its gradient."""
        known: _Logits | None = self._logits.get(t) if isinstance(t, Tensor) else None
        return None if known is None or _versions(t, known.head) != known.versions or t._backward_hooks else known

    def _head(self, logits: Any) -> tuple[Head, Tensor] | None:
        """The layer that gives these logits, classes along dimension 1, and the row of its input behind each target."""
        known = self._known(logits)
        if known is None or known.rows.ndim < 2:
            return None
        rows = known.rows
        if rows.shape[1] != len(known.head.weight) or rows.stride(1) != 0:
            return None
        return known.head, rows.select(1, 0)


def _versions(out: Tensor, head: Head) -> tuple[int | None, ...]:
    """How often an output and the tensors of its layer have been written to."""
    return tuple(None if t is None or t.is_inference() else t._version for t in (out, *head))


def _autocast(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether PyTorch would choose the dtype of a function that is called with these arguments."""
    return any(isinstance(t, Tensor) and torch.is_autocast_enabled(t.device.type) for t in (*args[:1], *kwargs.values()))
