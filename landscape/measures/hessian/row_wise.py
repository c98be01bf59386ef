"""Curvature with one coefficient for each row of a pair: what no matrix between two linear maps can move."""

from collections.abc import Hashable, Mapping, Sequence
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from landscape.measures.paired.paired_traces import trace_to, trace_work
from landscape.measures.registry import measure
from landscape.measures.running.coordinates import Coordinates
from landscape.measures.running.shared_computations import eigenvalue_of, extremes_work
from landscape.measures.traced_network import known_symmetries, symmetries_for
from landscape.network.parameters import Layout
from landscape.objective import Objective
from landscape.results import Estimate, Spent
from landscape.symmetry.families import Family
from landscape.symmetry.mixing.mixtures import Mixing

# What takes each group of weights to itself; the proof is at `row_trace`.
_SURVIVES: tuple[Family, ...] = ("layer", "node", "pair", "norm-out", "norm-in")
_coordinates: WeakKeyDictionary[Objective, Tensor | Coordinates] = WeakKeyDictionary()


def _trace_work(objective: Objective, settings: Mapping[str, Any]) -> Mapping[Hashable, Spent]:
    """That of `adaptive_trace` where no weights are in a pair."""
    return trace_work(_kind(objective))(objective, settings)


def _eigenvalue_work(objective: Objective, settings: Mapping[str, Any]) -> Mapping[Hashable, Spent]:
    """A Lanczos run; that of `adaptive_lambda_max` where no weights are in a pair."""
    return extremes_work(_kind(objective))(objective, settings)


@measure(
    "row_trace",
    unit="loss",
    invariant_to=_SURVIVES,
    reference="this project; adaptive_trace of Andriushchenko et al. 2023, arXiv:2302.07011, for the pairs of da Silva et al. "
    "2025, arXiv:2505.05409",
    work=_trace_work,
)
def row_trace(
    objective: Objective,
    *,
    probes: int = 64,
    relative_error: float = 0.0,
    exact: bool = False,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Trace of the Hessian in units of rows: sum over groups S of w_S^T H_SS w_S, a group being a row of a pair, or one weight.

    A pair is two linear maps with nothing between them, such as the queries and keys of a head. Its channels may be mixed by
    any invertible matrix, which keeps the function and moves every elementwise measure. The groups of weights are: the h
    weights of each row that such a matrix acts on (one input of the queries, keys or values; one output of the projection; the
    biases of a map), rows that share a weight together, and every other weight alone. Where the network has no pair this is
    `adaptive_trace`, to the last digit.

    Proof that it does not move. Multiply every group S by its own number u_S. The second derivative of the loss in these
    numbers, at u = 1, is B^T H B, where column S of B is w_S with zeros elsewhere; the measure is its trace. A rescaling of
    layers, of neurons, of what a normalization reads or writes, or a matrix between a pair, changes the weights by a linear map
    T that takes each group to itself, so that T (u w) = u (T w). And T keeps the loss at every point: L(u (T w)) =
    L(T (u w)) = L(u w). As a function of u the loss is the same before and after, and so are all its derivatives in u.

    Args:
        objective: the network on its data.
        probes: number of random vectors, at least 2.
        relative_error, exact: as for `trace`.
        generator: generator of the probes; default seed 0.

    Returns:
        Kind "t", or as for `trace`; unit of the loss; `data_stderr` is the sampling error. From a number of probes the
        estimate itself is invariant: they are random signs u of the groups, and u (T w) = T (u w). To a relative error it is
        so within its interval, since which pairs and products take least may change with the weights.

    Raises:
        NotDefined: the network cannot be traced, so that its pairs are not known.

    Cost: one product with B^T H B per probe, as for `adaptive_trace`, whose products it shares where there is no pair.

    Reference: the pairs are those of da Silva, Dangel, Oore 2025, arXiv:2505.05409, definition 3.1. Their metrics move under
    neuron-wise rescaling; see `geodesic_trace_inv`. A rotation of a residual stream does move the row-wise trace.

    Example:
        A linear layer without a pair: L = mean (w . x)^2 has H = 2 mean x x^T, and 9 * 4 + 16 * 1 = 52.
        >>> from torch import nn
        >>> net = nn.Linear(2, 1, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> row_trace(Objective(net, nn.MSELoss(), (x, torch.zeros(2, 1)))).value
        52.0
    """
    return trace_to(objective, probes, generator, _in_rows(objective), relative_error=relative_error, exact=exact)


@measure(
    "row_lambda_max",
    unit="loss",
    invariant_to=_SURVIVES,
    reference="this project; adaptive_lambda_max of Kwon et al. 2021, arXiv:2102.11600, for the pairs of da Silva et al. 2025, "
    "arXiv:2505.05409",
    work=_eigenvalue_work,
)
def row_lambda_max(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Largest eigenvalue of the Hessian in units of rows, B^T H B: one coefficient a row of a pair, and a weight in none.

    The largest growth of the loss, to second order, if each row of a pair and each other weight changes in proportion to
    itself: max over ||u|| = 1 of the second derivative of L(w + B u). B, the groups and the proof that nothing moves it are
    those of `row_trace`: the matrix B^T H B itself does not change. Where there is no pair it is `adaptive_lambda_max`.

    Args:
        objective: the network on its data.
        generator: generator of the Lanczos start vector; default seed 0.

    Returns:
        Kind "residual", unit of the loss.

    Raises:
        NotDefined: as for `row_trace`.

    Cost: as for `adaptive_lambda_max`, whose Lanczos run it shares where there is no pair.
    """
    return eigenvalue_of(objective, 0, generator, _in_rows(objective))


def in_rows(objective: Objective, mixings: Sequence[Mixing]) -> Tensor | Coordinates:
    """The matrix B of these pairs; |w|, the units of the elementwise measures, where no two weights are in one group.

    B has one column for each group: the group's weights, and zeros elsewhere.
    """
    groups = row_groups(objective.layout, mixings)
    if groups is None:
        return objective.theta.abs()
    theta, ids, count = objective.theta, groups.to(objective.device), int(groups.max()) + 1

    def spread(u: Tensor) -> Tensor:
        return u[..., ids] * theta

    def gather(g: Tensor) -> Tensor:
        return g.new_zeros(*g.shape[:-1], count).index_add_(-1, ids, g * theta)

    return Coordinates(count, spread, gather, ("rows", sha256(groups.numpy().tobytes()).hexdigest()), f"{count} rows")


def row_groups(layout: Layout, mixings: Sequence[Mixing]) -> Int[Tensor, " P"] | None:
    """Number of each weight's group, from 0; None if every weight is alone.

    Rows that share a weight are one group, since each pair's matrix acts within it: a map that reads one pair and writes
    another is one group as a whole.
    """
    start = {entry.name: entry.start for entry in layout}
    first, second = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for rows in (rows for mixing in mixings if mixing.family == "pair" for rows in mixing.rows):
        if rows.name in start:
            index = start[rows.name] + rows.index.cpu().numpy()
            first.append(np.repeat(index[:, 0], index.shape[1] - 1))
            second.append(index[:, 1:].ravel())
    a, b = np.concatenate(first), np.concatenate(second)
    if not len(a):
        return None
    links = coo_matrix((np.ones(len(a), np.int8), (a, b)), (layout.size, layout.size))
    return torch.from_numpy(connected_components(links, directed=False)[1]).long()


def _in_rows(objective: Objective) -> Tensor | Coordinates:
    """`in_rows` of the pairs in the network, found once."""
    if objective not in _coordinates:
        _coordinates[objective] = in_rows(objective, known_symmetries(objective).mixings)
    return _coordinates[objective]


def _kind(objective: Objective) -> str:
    """Key of the computations: "rows", or that of the elementwise measures, with which they are then shared."""
    pairs = symmetries_for(objective) is not None and isinstance(_in_rows(objective), Coordinates)
    return "rows" if pairs else "adaptive"
