"""The tensor that the loss takes, among everything that a network returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from landscape.errors import UsageError

_NAMES = ("logits", "out")  # of Hugging Face's language models, of torchvision's segmentation networks


@dataclass(frozen=True)
class Following:
    """Logits (B, T, V) at a position, without the last and with the classes second: (B, V, T - 1), for the next tokens."""

    at: int | str | None = None


# Where the tensor is that the loss takes; see `found_at`.
Position = int | str | Following | None


def found_at(output: Any, takes: Callable[[Tensor], bool]) -> int | str | None:
    """Find the tensor that the loss takes in a network's output.

    Args:
        output: the network's return value.
        takes: whether the loss accepts a tensor.

    Returns:
        None for the output itself, "logits" or "out" for that attribute or key, otherwise the index of the tensor among all
        that are nested in the output.

    Raises:
        UsageError: the loss accepts none of the tensors, or several.
    """
    if isinstance(output, Tensor):
        return None
    name = next((name for name in _NAMES if isinstance(_named(output, name), Tensor)), None)
    if name is not None:
        return name
    leaves = _tensors(output)
    taken = [i for i, t in enumerate(leaves) if len(leaves) == 1 or (t.is_floating_point() and takes(t))]
    if len(taken) == 1:
        return taken[0]
    shapes = ", ".join(str(tuple(t.shape)) for t in leaves) or "none"
    many = f"{len(taken)} tensors that it takes" if taken else f"{type(output).__name__} with tensors of shape {shapes}"
    raise UsageError(
        f"expected the model to return one tensor that the loss takes, or an object with .logits, found {many}",
        fix="wrap the model in a module whose forward returns what the loss needs; a loss that the model computes itself is "
        "ModelLoss(lambda model, batch: model(**batch).loss)",
    )


def picked(output: Any, at: Position, samples: int | None = None) -> Tensor:
    """The tensor at that position; if `samples` is given, its first dimension must have that length."""
    if isinstance(at, Following):
        logits = picked(output, at.at, samples)
        if logits.ndim != 3:
            raise UsageError(
                f"expected logits (N, T, V) for the loss of the next token, found shape {tuple(logits.shape)}",
                fix="NextTokenLoss is for causal language models; a classifier takes torch.nn.CrossEntropyLoss()",
            )
        return logits[:, :-1].transpose(1, 2)
    tensor = output if at is None else _named(output, at) if isinstance(at, str) else _tensors(output)[at]
    if not isinstance(tensor, Tensor):
        raise UsageError(f"expected the model to return a tensor as before, found {type(output).__name__}")
    if samples == 1 and tensor.ndim == 0:  # `squeeze` was applied to a single sample
        tensor = tensor.reshape(1)
    if samples is not None and (tensor.ndim == 0 or len(tensor) != samples):
        raise UsageError(
            f"expected outputs with a first dimension of {samples} samples, found shape {tuple(tensor.shape)}",
            fix="the model must keep the samples on the first dimension of what it returns",
        )
    return tensor


def _named(output: Any, name: str) -> Any:
    """`output.name` or `output["name"]`; None without either."""
    return output.get(name) if isinstance(output, dict) else getattr(output, name, None)


def _tensors(output: Any) -> list[Tensor]:
    """All tensors nested in the output, in order; an object that is not a container is searched by its attributes."""
    leaves = pytree.tree_leaves(output)
    if len(leaves) == 1 and not isinstance(leaves[0], Tensor) and hasattr(leaves[0], "__dict__"):
        leaves = pytree.tree_leaves(vars(leaves[0]))
    return [t for t in leaves if isinstance(t, Tensor)]
