"""Values of a network that depend on no parameter, such as the angles of a rotary embedding: computed where a rule asks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from landscape.symmetry.graph_calls import Leaf


def value_of(value: Any, made: Mapping[int, tuple[Any, ...]], tensors: Mapping[str, Tensor]) -> Tensor | None:
    """A value of which only the inputs of the network are not known, with random numbers for these; None if it has none.

    Args:
        value: what the rules follow, or a buffer.
        made: id of such a value -> its tensor, or the operation, the arguments, and which of several results it is.
        tensors: the network's parameters and buffers.
    """
    for whole in (False, True):  # inputs may be numbers, or indices
        try:
            return _computed(value, made, tensors, whole, torch.Generator().manual_seed(0))
        except Exception:  # whatever an operation makes of random arguments
            continue
    return None


def _computed(
    value: Any, made: Mapping[int, tuple[Any, ...]], tensors: Mapping[str, Tensor], whole: bool, rng: torch.Generator
) -> Any:
    if isinstance(value, Leaf):
        return tensors[value.name].detach().cpu().reshape(-1)[value.elements()].reshape(value.shape)
    if not hasattr(value, "codes"):
        return value
    how = made.get(id(value), ())
    if len(how) == 1:
        return how[0]
    if not how:
        return torch.randint(0, 2, value.shape, generator=rng) if whole else torch.rand(value.shape, generator=rng)
    op, args, which = how
    result = op(
        **pytree.tree_map(lambda v: _computed(v, made, tensors, whole, rng), args, is_leaf=lambda v: hasattr(v, "codes"))
    )
    return result if which is None else result[which]
