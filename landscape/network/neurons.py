"""Filters and neurons: which weights produce one output, found by tracing how a forward pass uses them.

A layer's class does not determine where its outputs lie: a linear layer stores a neuron in a row, GPT-2's Conv1D in a column, a
joint projection in a third of its rows, experts in slices. The products that the weights enter do determine it.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from landscape.machine.dispatch_mode import DispatchMode

_aten = torch.ops.aten

# For each product, and each operand that may be a weight: the operand's position, that of the other operand, and the weight's
# dimensions whose indices name an output (the first of two indexes separate products).
_PRODUCTS: dict[Any, tuple[tuple[int, int, tuple[int, ...]], ...]] = {
    _aten.mm: ((0, 1, (0,)), (1, 0, (1,))),
    _aten.addmm: ((1, 2, (0,)), (2, 1, (1,))),
    _aten._addmm_activation: ((1, 2, (0,)), (2, 1, (1,))),
    _aten.bmm: ((0, 1, (0, 1)), (1, 0, (0, 2))),
    _aten.baddbmm: ((1, 2, (0, 1)), (2, 1, (0, 2))),
    _aten.mv: ((0, 1, (0,)),),
    _aten.addmv: ((1, 2, (0,)),),
    _aten.linear: ((1, 0, (0,)),),
    _aten.convolution: ((1, 0, (0,)),),
    _aten.embedding: ((0, 1, (0,)),),
    _aten._embedding_bag: ((0, 1, (0,)),),
    _aten._embedding_bag_forward_only: ((0, 1, (0,)),),
}
_LOOKUPS = {_aten.embedding, _aten._embedding_bag, _aten._embedding_bag_forward_only}
# Operations besides pointwise ones that return the elements of a weight, each in its place.
_KEEPS = {
    _aten.clone, _aten._to_copy, _aten._weight_norm_interface,
    _aten.fake_quantize_per_tensor_affine_cachemask, _aten.fake_quantize_per_channel_affine_cachemask,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Filters:
    """The filters, or neurons, of one weight tensor.

    Attributes:
        ids: same shape as the tensor; index of the filter of each weight, from 0. All filters have the same size.
        count: number of filters.
        groups: number of equal runs of filters that read separate inputs, as in a grouped convolution or in experts.
    """

    ids: Int[Tensor, "..."]
    count: int
    groups: int = 1

    def order(self) -> Int[Tensor, "count size"]:
        """Positions of each filter's weights in the flattened tensor, in ascending order."""
        return self.ids.reshape(-1).argsort(stable=True).view(self.count, -1)


def by_axes(shape: torch.Size, axes: tuple[int, ...], groups: int = 1) -> Filters:
    """One filter for each index along these axes; the first axis varies slowest."""
    ids = torch.zeros((), dtype=torch.long)
    for axis in axes:
        along = [shape[axis] if d == axis else 1 for d in range(len(shape))]
        ids = ids * shape[axis] + torch.arange(shape[axis]).view(along)
    return Filters(ids.expand(shape), math.prod(shape[a] for a in axes), groups)


def of_transposed(shape: torch.Size, groups: int) -> Filters:
    """Filters of a transposed convolution's weight (in, out / groups, ...): group of the input channel, then output channel."""
    group = torch.arange(shape[0]) // (shape[0] // groups)
    ids = group[:, None] * shape[1] + torch.arange(shape[1])
    return Filters(ids.view(*shape[:2], *(1 for _ in shape[2:])).expand(shape), groups * shape[1], groups)


@dataclass(frozen=True, eq=False)
class Use:
    """One product that elements of a weight enter: which elements (None for all, in order), and the output each contributes to.

    Attributes:
        filters: indices of the outputs; in the weight's shape, or one for each element.
        elements: positions in the flattened weight.
        axes: of the weight, whose indices number the outputs, if the use has this simple form.
        lookup: whether rows are looked up, as in an embedding.
    """

    filters: Filters
    elements: Int[Tensor, " n"] | None = None
    axes: frozenset[int] | None = None
    lookup: bool = False


def watched(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, list[Use]]:
    """How one pass uses each parameter, by name; empty if the network does not run, which is reported elsewhere.

    The pass has gradients enabled, on copies of weights and buffers, in the model's current mode.
    """

    def copy(t: Tensor) -> Tensor:
        return t.detach().clone(memory_format=torch.contiguous_format)

    parameters = {name: copy(p) for name, p in model.named_parameters()}
    for p in parameters.values():
        # Without a gradient PyTorch's attention takes a fused path in which products of weights are not visible.
        p.requires_grad_(p.is_floating_point() or p.is_complex())
    buffers = {name: copy(b) for name, b in model.named_buffers()}
    watch = _Watch(parameters, [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)])
    try:
        with torch.enable_grad(), watch:
            functional_call(model, parameters | buffers, args, dict(kwargs))
    except Exception:  # the user's code may raise anything
        return {}
    return watch.uses


def read_from(shape: torch.Size, uses: list[Use], usual: Filters) -> Filters | None:
    """The filters on which all uses of a weight agree; None if the uses contradict one another.

    The filters of a lookup table are its rows, whatever else the table is used for (for example, a tied output layer), as in
    Li et al. 2018. If only parts of a weight are used, filters along its axes are assumed.

    Args:
        shape: of the weight.
        uses: of the weight, or of parts of it.
        usual: the result if no use was observed.
    """
    if not uses:
        return usual
    if any(use.lookup for use in uses):
        return by_axes(shape, (0,))
    first = uses[0]
    if first.axes is not None and all(use.axes == first.axes for use in uses):
        return first.filters
    parts = [(_elements(use, shape), use.filters.ids.reshape(-1)) for use in uses]
    partitions = [_partition(places, ids, shape.numel()) for places, ids in parts]
    if all(bool((p >= 0).all()) and torch.equal(p, partitions[0]) for p in partitions):
        ids = torch.empty(shape.numel(), dtype=torch.long)
        ids[parts[0][0]] = parts[0][1]
        return _of_one_size(ids.view(shape), first.filters.groups)
    for n in range(len(shape), -1, -1):
        for axes in itertools.combinations(range(len(shape)), n):
            whole = by_axes(shape, axes)
            flat = whole.ids.reshape(-1)
            if all(
                torch.equal(_partition(places, flat[places], shape.numel()), found)
                for (places, _), found in zip(parts, partitions, strict=True)
            ):
                return whole
    return None


def _of_one_size(ids: Tensor, groups: int) -> Filters | None:
    """Filters with consecutive indices; None if their sizes differ."""
    _, ids, sizes = ids.unique(return_inverse=True, return_counts=True)
    return Filters(ids, len(sizes), groups) if bool((sizes == sizes[0]).all()) else None


def _elements(use: Use, shape: torch.Size) -> Tensor:
    return torch.arange(shape.numel()) if use.elements is None else use.elements


def _partition(places: Tensor, ids: Tensor, size: int) -> Tensor:
    """(size,) for every position the first position with the same index; -1 for positions that do not occur."""
    first = torch.full((int(ids.max()) + 1,), size, dtype=torch.long).scatter_reduce_(0, ids, places, "amin")
    return torch.full((size,), -1, dtype=torch.long).scatter_(0, places, first[ids])


class _Watch(DispatchMode):
    """Records the products of weights with other tensors.

    A view of a weight is recognised by its storage and strides; a copy, a cast or a pointwise function of weights alone is
    followed element by element. A product of weights with weights (LoRA's B A) defines no output and is not recorded, and
    neither is a backward pass inside the network.
    """

    supports_higher_order_operators = True  # for instance flexible attention; none of them is a product with a weight

    def __init__(self, parameters: dict[str, Tensor], inputs: list[Tensor]) -> None:
        super().__init__()
        self.uses: dict[str, list[Use]] = {}
        self._held: list[Any] = []  # references to storages, so that no address is reused
        # Storage -> the weight whose elements it holds, and the index of each element; None for all in order.
        self._known: dict[int, list[tuple[str, torch.Size, Tensor | None]]] = {}
        self._made: set[int] = set()  # storages of weights and of tensors computed from weights alone
        self._live: set[int] = set()  # storages of tensors that depend on the data
        for name, p in parameters.items():
            key = self._key(p)
            self._made.add(key)
            if p.ndim >= 2 and p.numel():
                self._known[key] = [(name, p.shape, None)]
        self._live.update(map(self._key, inputs))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [t for t in pytree.arg_tree_leaves(*args, **(kwargs or {})) if isinstance(t, Tensor)]
        keys = [self._key(t) for t in given]
        results = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
        operation = getattr(func, "overloadpacket", None)
        forward = torch._C._current_graph_task_id() == -1
        used = forward and self._product(operation, args)
        live = used or any(k in self._live for k in keys)
        if live:
            self._live.update(map(self._key, results))
        elif any(k in self._made for k in keys):
            self._made.update(map(self._key, results))
            if results and (operation in _KEEPS or torch.Tag.pointwise in getattr(func, "tags", ())):
                self._follow(given, results[0])
            elif operation is _aten.cat:
                self._join(args, results[0])
        return out

    def _key(self, t: Tensor) -> int:
        """Address of a tensor's storage; 0 without one, as for a sparse tensor."""
        try:
            storage = t.untyped_storage()
        except (NotImplementedError, RuntimeError):
            return 0
        self._held.append(storage)
        return int(storage._cdata)

    def _sources(self, t: Tensor) -> list[tuple[str, torch.Size, Tensor | None]]:
        return self._known.get(self._key(t), [])

    def _follow(self, given: list[Tensor], result: Tensor) -> None:
        """Follow elements into a result: inputs of the result's shape enter it element by element."""
        alike = [t for t in given if t.shape == result.shape]
        sources = [(name, shape, _elementwise(t, table)) for t in alike for name, shape, table in self._sources(t)]
        self._keep(result, sources)

    def _join(self, args: tuple[Any, ...], result: Tensor) -> None:
        tensors, dim = args[0], args[1] if len(args) > 1 else 0
        sources = []
        for i, t in enumerate(tensors):
            for name, shape, table in self._sources(t):
                rows = [torch.full(o.shape, -1) if i != j else _elementwise(t, table) for j, o in enumerate(tensors)]
                sources.append((name, shape, torch.cat(rows, dim)))
        self._keep(result, sources)

    def _keep(self, result: Tensor, sources: list[tuple[str, torch.Size, Tensor]]) -> None:
        """Record which elements a new tensor holds, in the order of its storage."""
        key = self._key(result)
        if not sources or not key or key in self._known:
            return
        entries: list[tuple[str, torch.Size, Tensor | None]] = []
        for name, shape, places in sources:
            table = torch.full((result.untyped_storage().nbytes() // result.itemsize,), -1)
            table.as_strided(result.shape, result.stride(), result.storage_offset()).copy_(places)
            entries.append((name, shape, table))
        self._known[key] = entries

    def _product(self, operation: Any, args: tuple[Any, ...]) -> bool:
        """Record a product of a weight with a tensor that is not made of weights; returns whether there was one."""
        used = False
        for place, other, dims in _PRODUCTS.get(operation, ()):
            weight, x = args[place], args[other]
            if self._key(weight) not in self._made or self._key(x) in self._made:
                continue
            used = True
            groups = int(args[8]) if operation is _aten.convolution else 1
            transposed = operation is _aten.convolution and bool(args[6])
            for name, shape, table in self._sources(weight):
                use = _use(weight, shape, table, dims, groups if transposed else 0, groups)
                self.uses.setdefault(name, []).append(Use(use.filters, use.elements, use.axes, operation in _LOOKUPS))
        return used


def _use(t: Tensor, shape: torch.Size, table: Tensor | None, dims: tuple[int, ...], transposed: int, groups: int) -> Use:
    """The outputs that an operand's elements contribute to; `transposed` is the groups of a transposed convolution, else 0."""
    places = _axes_of(t, shape) if table is None else None
    if places is not None and transposed <= 1:
        axes = tuple(a for d in ((1,) if transposed else dims) if (a := places[d]) is not None)
        if len(dims) > 1:
            groups = t.shape[dims[0]]
        return Use(by_axes(shape, axes, groups), None, frozenset(axes))
    elements = _elementwise(t, table)
    if transposed:
        numbers = of_transposed(t.shape, transposed).ids
    else:
        along = [t.shape[dims[-1]] if d == dims[-1] else 1 for d in range(t.ndim)]
        numbers = torch.arange(t.shape[dims[-1]]).view(along)
        if len(dims) > 1:  # a weight that enters several products has the same rows in each
            _, which = elements.flatten(1).amax(1).unique(return_inverse=True)
            numbers = which.view(-1, 1, 1) * t.shape[dims[-1]] + numbers
            groups = int(which.max()) + 1
    numbers = numbers.expand(t.shape).reshape(-1)
    elements = elements.reshape(-1)
    inside = elements >= 0
    numbers = numbers[inside]
    return Use(Filters(numbers, int(numbers.max()) + 1, groups), elements[inside])


def _elementwise(t: Tensor, table: Tensor | None) -> Tensor:
    """Index in the weight of every element of a view of its storage."""
    if table is None:
        table = torch.arange(t.untyped_storage().nbytes() // t.itemsize)
    return table.as_strided(t.shape, t.stride(), t.storage_offset())


def _axes_of(t: Tensor, shape: torch.Size) -> list[int | None] | None:
    """The weight's axis along each dimension of a view (None for length 1); None if the view is not a permutation."""
    strides = [math.prod(shape[a + 1 :]) for a in range(len(shape))]
    axes = {stride: a for a, stride in enumerate(strides) if shape[a] > 1}
    view_axes = [axes.get(s) if n > 1 else None for n, s in zip(t.shape, t.stride(), strict=True)]
    same = [n == shape[a] for n, a in zip(t.shape, view_axes, strict=True) if a is not None]
    long = sum(n > 1 for n in t.shape)
    return view_axes if t.storage_offset() == 0 and all(same) and len(same) == long == len(axes) else None
