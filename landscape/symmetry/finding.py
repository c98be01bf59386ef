"""Find a network's scaling symmetries by propagating one unknown scale for each channel through its graph."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from landscape.network.copying import uncompiled
from landscape.network.graph import Example, Graph, example_for, graph_of
from landscape.symmetry import weighted_rules, weightless_rules  # noqa: F401  # importing them enters their rules
from landscape.symmetry.calls import RULES, Call, Use, fixed
from landscape.symmetry.graph_calls import Leaf, walk
from landscape.symmetry.held_rows import free_mixings
from landscape.symmetry.mixing import mixed
from landscape.symmetry.scale_variables import PINNED, ZERO, Variables
from landscape.symmetry.symmetries import Pinned, Scaling, Symmetries, Unit


def find_symmetries(model: nn.Module, example: Example | None = None) -> Symmetries:
    """Find the changes of a network's weights that leave its function unchanged.

    Factors: a neuron's incoming weights and bias are multiplied by s > 0, and its outgoing weights divided by s; the positively
    homogeneous function between them passes the factor on (T_alpha of Dinh et al., for every neuron). Each activation has one
    unknown scale for each channel, and every operation has a rule that gives its output's scales from its input's. Summands
    must share a scale, so a residual stream has a single one; input, output, and every value that enters an operation that is
    not homogeneous have scale 1. BatchNorm with fixed statistics absorbs any scale of its input in them; its gamma and beta
    start a new scale. A second run with eps = 0 gives the scales that a normalization takes away nearly (`nearly`).

    Matrices and constants: every linear map starts new channels, and rules follow them. Channels that only linear maps, sums
    and products of two activations use may be mixed by one matrix (`mixings`); behind a LayerNorm or RMSNorm it must be
    orthogonal, behind a rotary embedding a factor and a rotation a pair. Constants that a softmax, a mean or a bias takes away
    are `shifts`, `trades`, `centrings` and `means`. What no rule reads is in `unread`, places behind which factors, matrices or
    constants were not followed in `unread_factors`, `unread_matrices` and `unread_constants`.

    The network is traced once in eval mode. Every change that is found keeps the function. Not found are negative factors and
    permutations (which move no measure), factors that must be inverse to each other (gains of normalized queries against those
    of keys, a tied table against the last gain; `unread_factors`), and directions that only these data leave free. On small
    networks the dimension of what is found is that of the null space of the Jacobian, but for gaps of known size
    (tests/symmetry/test_completeness.py).

    Args:
        model: any module that `torch.export` can trace; it is copied and left as it was.
        example: an input, (B, ...), a tuple of inputs or a dictionary of named ones; not needed for a network that begins
            with a Linear layer.

    Returns:
        Symmetries; printed, it lists every unit, and every layer without a symmetry with the reason.

    Raises:
        UsageError: an example is missing, or the network cannot be traced.

    Cost: one symbolic trace (seconds); memory of a few times the largest activation of two samples.

    Reference: factors: Dinh et al. 2017, arXiv:1703.04933, section 3; neuron-wise: Neyshabur et al. 2015, arXiv:1506.02617.
    Matrices between linear maps: da Silva, Dangel, Oore 2025, arXiv:2505.05409. Rotations of a residual stream: Ashkboos et al.
    2024, arXiv:2401.15024.

    Example:
        >>> print(find_symmetries(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))))
        scaling symmetries: 1 layer-wise, 3 neuron-wise
          0 (3 neurons):  × 0.weight, 0.bias  ÷ 2.weight
        cannot be scaled
          2: it is an output of the network
        shift: constants that the function ignores: 1
          2.weight, 2.bias: all outputs by one number, if the loss ignores that
    """
    trained = frozenset(name for name, p in uncompiled(model).named_parameters() if p.requires_grad)
    return symmetries_of(graph_of(model, example_for(model, example)), trained or None)


def symmetries_of(graph: Graph, trained: frozenset[str] | None = None, *, hold: bool = False) -> Symmetries:
    """The symmetries of a traced network; see `find_symmetries`.

    Args:
        graph: the traced network.
        trained: parameters that matrices may mix; by default all.
        hold: whether nothing may change the other parameters. Buffers, such as BatchNorm's running statistics,
            follow the weights. An element that is 0 stays 0 under every factor, and holds nothing.
    """
    exact, nearly = Variables(), Variables(nearly=True)
    ids, others = (_agree(graph, v, _interpret(graph, v)) for v in (exact, nearly))
    held = () if trained is None or not hold else tuple(graph.parameters - trained)
    _hold(graph, exact, ids, held)
    _hold(graph, nearly, others, held)
    found = _collect(graph, exact, ids)
    # Both runs number their variables alike: what is fixed only in the exact one needs an eps of 0.
    freed = (exact.labels == PINNED) & (nearly.labels != PINNED)
    more = _collect(graph, nearly, others, np.unique(nearly.labels[freed])) if freed.any() else None
    rest = mixed(graph, trained, frozenset(held))
    mixings, doubtful = free_mixings(rest.mixings, frozenset(held), graph.tensors)
    zeros = (f"{name}, a matrix of zeros that is held" for name in held if _no_matrix(graph.tensors[name]))
    factors = tuple(place for place in {**exact.unread, **nearly.unread} if place not in rest.contracted)
    return replace(
        found,
        mixings=mixings,
        shifts=rest.shifts,
        trades=rest.trades,
        centrings=rest.centrings,
        means=rest.means,
        nearly=more,
        unread=(*rest.unread, *doubtful, *zeros),
        unread_factors=factors,
        unread_matrices=rest.unread_matrices,
        unread_constants=rest.unread_constants,
    )


def _no_matrix(t: Tensor) -> bool:
    """Whether a matrix is 0, so that others may pass it; which ones is not worked out."""
    return t.ndim > 1 and not bool(t.any())


def _hold(graph: Graph, variables: Variables, ids: dict[str, tuple[Tensor, Tensor, float | None]], held: Iterable[str]) -> None:
    """Require the factor 1 for every element of these parameters, except where it is 0."""
    for name in held:
        if name in ids:
            num, den, _ = ids[name]
            zero = graph.tensors[name].detach().cpu() == 0
            if bool(zero.any()):
                num = num.expand(zero.shape).masked_fill(zero, ZERO)
            variables.equate(num, den, f"{name} is held")


def _interpret(graph: Graph, variables: Variables) -> list[Use]:
    """Propagate ids through the graph, call by call; returns the uses of the parameters."""
    uses: list[Use] = []

    def follow(op: Any, args: dict[str, Any], shapes: list[torch.Size], where: str) -> Any:
        call = Call(op, args, shapes, where, variables, uses)
        # Calls that only query a shape or a dtype have no effect on values.
        asks = call.name.startswith(("sym_", "_assert_tensor_metadata"))
        return None if asks else RULES.get(call.name, Call.unknown)(call)

    def end(results: list[Any]) -> None:
        outputs = [v for v in results if isinstance(v, (Tensor, Leaf))]
        Call("output", {}, [], "the network", variables, uses).pin(*outputs, reason="it is an output of the network")

    walk(graph, given=fixed, follow=follow, end=end, constant=_fixed_values)
    return uses


def _fixed_values(constant: Tensor) -> Tensor:
    """Ids of a constant: 0 has every scale."""
    return torch.where(constant.detach().cpu() == 0, ZERO, PINNED) if constant.is_floating_point() else fixed(constant.shape)


def _agree(graph: Graph, variables: Variables, uses: list[Use]) -> dict[str, tuple[Tensor, Tensor, float | None]]:
    """Ids (num, den) and eps of every leaf. Requiring the same factors in all uses of a tensor is sufficient."""
    by_name: dict[str, list[Use]] = {}
    for use in uses:
        by_name.setdefault(use.leaf.name, []).append(use)
    agreed: dict[str, tuple[Tensor, Tensor, float | None]] = {}
    shared: list[str] = []
    for name, group in by_name.items():
        first = group[0]
        free = len(group) > 1 and not all(variables.pinned(ids) for u in group for ids in (u.num, u.den))
        if len(group) == 1 and first.leaf.index is None:
            agreed[name] = (first.num, first.den, first.eps)
            continue
        reason = f"{name} has one set of values for all its uses ({', '.join(dict.fromkeys(u.where for u in group))})"
        if len({u.eps for u in group}) > 1:  # a running variance that is also used as a plain number
            for use in group:
                variables.equate(use.num, use.den, reason)
        zero = any(bool((ids < 0).any()) for u in group for ids in (u.num, u.den))  # compatible with every factor
        if not zero and all(u.leaf.index is None for u in group):
            for u in group[1:]:
                variables.equate(first.num, u.num, reason)
                variables.equate(first.den, u.den, reason)
            agreed[name] = (first.num, first.den, first.eps)
            shared += [name] if free else []
            continue
        shape = graph.tensors[name].shape
        num = _scattered(variables, [(u.leaf, u.num) for u in group], shape, reason)
        den = _scattered(variables, [(u.leaf, u.den) for u in group], shape, reason)
        agreed[name] = (num, den, first.eps)
        shared += [name] if free else []
    for name in shared:
        if all(variables.pinned(ids) for ids in agreed[name][:2]):
            variables.unread[f"scales of {name}, which is used in several places"] = None
    return agreed


def _scattered(variables: Variables, parts: list[tuple[Leaf, Tensor]], shape: torch.Size, reason: str) -> Tensor:
    """Ids of a tensor from those of its parts. An element in several parts equates their ids; one in no part is fixed."""
    whole = torch.full((shape.numel(),), ZERO)
    for leaf, ids in parts:
        index, given = leaf.elements().reshape(-1), ids.expand(leaf.shape).reshape(-1)
        free = whole[index] == ZERO
        whole[index[free]] = given[free]
        variables.equate(whole[index], given, reason)
    return whole.view(shape)


def _collect(
    graph: Graph, variables: Variables, ids: dict[str, tuple[Tensor, Tensor, float | None]], among: np.ndarray | None = None
) -> Symmetries:
    """Number the free classes (those in `among`) as neurons, and join the neurons of each layer to units."""
    labels = {name: (variables.label(num), variables.label(den), eps) for name, (num, den, eps) in ids.items()}
    used = [np.unique(side) for num, den, _ in labels.values() for side in (num, den)]
    free = np.setdiff1d(np.concatenate([*used, np.array([PINNED])]), [PINNED])
    free = free if among is None else np.intersect1d(free, among)
    number = np.zeros(len(variables.labels), dtype=np.int64)  # label -> neuron, 0 for none
    number[free] = np.arange(1, len(free) + 1)
    neurons_of = [np.setdiff1d(number[variables.labels[p.start : p.stop]], [0]) for p in variables.producers]
    unit_of = _joined(neurons_of, len(free))
    numbered = {name: (np.asarray(number[num]), np.asarray(number[den]), eps) for name, (num, den, eps) in labels.items()}
    touched = _touched(numbered, unit_of)
    names: dict[int, dict[str, bool]] = {}  # unit -> its producing layers in network order, and whether each is a gain
    for producer, neurons in zip(variables.producers, neurons_of, strict=True):
        if len(neurons):
            names.setdefault(int(unit_of[neurons[0]]), {})[producer.name] = producer.gain
    units = []
    for u, producers in names.items():
        up, down = touched.get(u, ({}, {}))
        multiplied, divided = (tuple(n for n in side if n in graph.parameters) for side in (up, down))
        buffers = tuple(n for n in {**up, **down} if n not in graph.parameters)
        if multiplied or divided:
            members = torch.from_numpy(np.flatnonzero(unit_of == u))
            normed = all(producers.values())
            units.append(Unit(" + ".join(producers), tuple(producers), members, multiplied, divided, buffers, normed))
    scalings = {
        name: Scaling(torch.as_tensor(num), torch.as_tensor(den), graph.tensors[name].shape, eps)
        for name, (num, den, eps) in numbered.items()
        if num.any() or den.any()
    }
    return Symmetries(tuple(units), _pinned(variables), scalings, len(free))


def _joined(neurons_of: list[np.ndarray], neurons: int) -> np.ndarray:
    """Unit of every neuron (entry 0, no neuron, is -1); producers that share a neuron form one unit."""
    rows = np.concatenate(
        [np.full(len(members), neurons + 1 + i) for i, members in enumerate(neurons_of)] or [np.zeros(0, dtype=int)]
    )
    columns = np.concatenate([*neurons_of, np.zeros(0, dtype=int)]).astype(int)
    n = neurons + 1 + len(neurons_of)
    _, unit = connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(n, n)), directed=False)
    return np.concatenate([[-1], unit[1 : neurons + 1]])


def _touched(
    numbered: Mapping[str, tuple[np.ndarray, np.ndarray, float | None]], unit_of: np.ndarray
) -> dict[int, tuple[dict[str, None], dict[str, None]]]:
    """Unit -> names of the tensors that its scale multiplies, and of those that it divides."""
    touched: dict[int, tuple[dict[str, None], dict[str, None]]] = {}
    for name, (num, den, _) in numbered.items():
        above, below = _pairs(np.atleast_1d(unit_of[num]), np.atleast_1d(unit_of[den]))
        differ = above != below  # the scale of a stream that a layer both reads and writes cancels
        for side, units in enumerate((above, below)):
            for u in np.unique(units[differ]):
                if u >= 0:
                    touched.setdefault(int(u), ({}, {}))[side][name] = None
    return touched


def _pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of values that meet in broadcasting; if no axis is shared, each distinct pair once."""
    rank = max(a.ndim, b.ndim)
    a, b = (x.reshape((1,) * (rank - x.ndim) + x.shape) for x in (a, b))
    if all(1 in lengths for lengths in zip(a.shape, b.shape, strict=True)):
        a, b = np.unique(a)[:, None], np.unique(b)
    both = np.broadcast_arrays(a, b)
    return both[0], both[1]


def _pinned(variables: Variables) -> tuple[Pinned, ...]:
    """Every layer that has outputs of fixed scale."""
    by_layer: dict[str, list[np.ndarray]] = {}
    for p in variables.producers:
        by_layer.setdefault(p.name, []).append(np.arange(p.start, p.stop))
    pinned = []
    for layer, ranges in by_layer.items():
        ids = np.concatenate(ranges)
        stuck = int((variables.labels[ids] == PINNED).sum())
        if stuck:
            pinned.append(Pinned(layer, stuck, len(ids), "; ".join(variables.why(ids)[:2])))
    return tuple(pinned)
