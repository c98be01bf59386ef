"""Whether a network's outputs are affine in every weight tensor, the others held: then no output curves along one of them.

Proof. Follow each value through the network; the claim is that near almost every theta it is an affine function of each weight
tensor W by itself. Weights and inputs are. A linear operation (sum, mean, padding, a view) keeps the claim. So does a
piecewise linear one (ReLU, a maximum, a pooling): away from the kinks, a null set, it is linear. A product of two values (a
linear map, a convolution, a gain) keeps it where no weight tensor enters both: as a function of W one of the two is constant.
So d2 output / dW2 = 0 for the block of every weight tensor, and the diagonal block of H - G, which is the sum over outputs of
d loss / d output times it, vanishes with all its entries: diag H = diag G. Anything else that a weight enters (a softmax, a
GELU, a division by a norm), or a tensor that is used twice in a row, ends the claim. So does everything with complex values,
whose size is a norm, and every operation with a choice of how to reduce, which may multiply.

Reference: Botev, Ritter, Barber 2017, arXiv:1706.03662, for the layers of a fully connected network.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from landscape.machine.dispatch_mode import DispatchMode
from landscape.symmetry.operation_kinds import AVERAGES, MAXIMA, RECTIFYING, SHAPE_ONLY

_PIECEWISE = frozenset(
    """
    hardtanh relu6 hardsigmoid hardshrink softshrink max min amax amin maximum minimum aminmax sort topk median msort cummax
    cummin fmax fmin
    """.split()  # noqa: SIM905  # a list of quoted names is harder to read
).union(RECTIFYING - {"prelu", "rrelu"}, MAXIMA)
# Linear in everything that they are given, or in all but the positions.
_LINEAR = frozenset(
    """
    add sub rsub neg positive sum mean cumsum nansum trace cat stack clone contiguous copy _to_copy lift_fresh lift_fresh_copy
    _unsafe_view _reshape_copy view_copy index index_select gather take embedding constant_pad_nd pad reflection_pad1d
    reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d roll flip repeat tril triu
    masked_fill where scatter scatter_add index_add index_put index_copy slice_scatter select_scatter diagonal_scatter
    as_strided_scatter im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle fill masked_select diag_embed block_diag
    unfold_copy
    """.split()  # noqa: SIM905  # as above
).union(AVERAGES)
# Linear in these arguments by position, of which no two may depend on the same tensor; the ones behind are added.
_PRODUCTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mul": ((0, 1), ()),
    "mm": ((0, 1), ()),
    "bmm": ((0, 1), ()),
    "mv": ((0, 1), ()),
    "dot": ((0, 1), ()),
    "ger": ((0, 1), ()),
    "matmul": ((0, 1), ()),
    "prelu": ((0, 1), ()),
    "_prelu_kernel": ((0, 1), ()),
    "linear": ((0, 1), (2,)),
    "addmm": ((1, 2), (0,)),
    "addmv": ((1, 2), (0,)),
    "baddbmm": ((1, 2), (0,)),
    "addcmul": ((1, 2), (0,)),
    "convolution": ((0, 1), (2,)),
    "mkldnn_convolution": ((0, 1), (2,)),
    "_trilinear": ((0, 1, 2), ()),
    "_embedding_bag": ((0,), ()),
    "native_batch_norm": ((0, 1), (2,)),
    "cudnn_batch_norm": ((0, 1), (2,)),
    "_native_batch_norm_legit": ((0, 1), (2,)),
    "_native_batch_norm_legit_no_training": ((0, 1), (2,)),
    "_batch_norm_no_update": ((0, 1), (2,)),
    "div": ((0,), ()),
}
# Flags of training among the arguments of a normalization: there its statistics depend on what it is given.
_TRAINING = {"native_batch_norm": 5, "cudnn_batch_norm": 5, "_native_batch_norm_legit": 5}


class AffineTensors(DispatchMode):
    """Watches a forward pass, and notes what keeps its outputs from being affine in every weight tensor.

    Args:
        weights: the tensors that vary, by name; each must own its memory.

    Attributes:
        broken: what ended the claim; empty if it holds for all values of the pass.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.broken: list[str] = []
        # By the memory that values lie in, the weights that they depend on: a view has the memory of what it shows.
        self._on: dict[int, frozenset[str]] = {_place(t): frozenset({name}) for name, t in weights.items()}
        self._held: list[Tensor] = list(weights.values())  # so that no memory is used for another value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = [self._of(a) for a in args]
        every = frozenset().union(*before, *(self._of(a) for a in kwargs.values()))
        results = func(*args, **kwargs)
        mutates = func._schema.is_mutable
        inputs = {_place(t) for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        outputs = [t for t in pytree.tree_leaves(results) if isinstance(t, Tensor)]
        if every and not self._keeps(func, args, before, every, outputs, inputs, mutates):
            self.broken.append(str(func).removeprefix("aten."))
        for t in outputs:
            self._held.append(t)
            if t.is_floating_point() or t.is_complex():
                self._on[_place(t)] = self._on.get(_place(t), frozenset()) | every
        if mutates:
            for t in pytree.tree_leaves((args, kwargs)):
                if isinstance(t, Tensor) and t.is_floating_point():
                    self._on[_place(t)] = self._on.get(_place(t), frozenset()) | every
        return results

    def _of(self, value: Any) -> frozenset[str]:
        """The weights on which a value depends; indices and masks are constant away from the kinks."""
        leaves = [t for t in pytree.tree_leaves(value) if isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())]
        return frozenset().union(*(self._on.get(_place(t), frozenset()) for t in leaves))

    def _keeps(
        self,
        func: Any,
        args: Any,
        before: list[frozenset[str]],
        every: frozenset[str],
        outputs: list[Tensor],
        inputs: set[int],
        mutates: bool,
    ) -> bool:
        """Whether an operation keeps the claim for what it returns."""
        tensors = [t for t in (*pytree.tree_leaves(args), *outputs) if isinstance(t, Tensor)]
        if any(t.is_complex() for t in tensors):
            return False  # |z| is a norm of two real values; products mix them
        if any(a.name in ("reduce", "reduction") for a in func._schema.arguments):
            return False  # "multiply" and "prod" multiply what is already there
        name = str(getattr(func, "overloadpacket", func)).removeprefix("aten.").rstrip("_")
        if not mutates and outputs and all(_place(t) in inputs for t in outputs):
            return True  # a view
        if all(not (t.is_floating_point() or t.is_complex()) for t in outputs):
            return True  # a comparison or an index
        if name in SHAPE_ONLY or name in _LINEAR or name in _PIECEWISE:
            return True
        if name not in _PRODUCTS:
            return False
        if name in _TRAINING and args[_TRAINING[name]]:
            return False
        factors, summands = _PRODUCTS[name]
        if name == "convolution" and len(args) < 3:
            return False
        parts = [before[i] for i in factors if i < len(before)]
        allowed = frozenset().union(*parts, *(before[i] for i in summands if i < len(before)))
        return allowed == every and sum(map(len, parts)) == len(frozenset().union(*parts))


def _place(t: Tensor) -> int:
    return t.untyped_storage().data_ptr() if t.numel() else -1


def breaks(run: Callable[[dict[str, Tensor]], Tensor], weights: dict[str, Tensor]) -> list[str]:
    """The operations that keep a network's outputs from being affine in every weight tensor; empty if they are.

    Args:
        run: weights -> outputs, on a few samples.
        weights: the tensors that vary, by name.

    Cost: one forward pass of these samples.
    """
    own = {name: t.detach().clone() for name, t in weights.items()}
    watch = AffineTensors(own)
    with torch.no_grad(), watch:
        run(own)
    return list(dict.fromkeys(watch.broken))
