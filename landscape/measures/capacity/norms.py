"""Products of the norms of the layers."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from operator import getitem
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from landscape.errors import UsageError
from landscape.measures.capacity import aten_operations as aten
from landscape.measures.capacity.path_norm import affine
from landscape.measures.registry import NotDefined, measure
from landscape.measures.traced_network import traced
from landscape.network.graph import Graph, live_arguments, operation
from landscape.network.parameters import Layout
from landscape.objective import Objective
from landscape.results import Estimate, Spent

_REFERENCE = "Bartlett, Foster, Telgarsky 2017, arXiv:1706.08498; Jiang et al. 2020, arXiv:1912.02178"

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

_PLAIN = {*aten.RECTIFIERS, *aten.COPIES, *aten.POOLINGS, *aten.REDUCTIONS, *aten.MOVES, *aten.BOUNDED}

_chains: WeakKeyDictionary[Objective, bool] = WeakKeyDictionary()


def is_chain(objective: Objective) -> bool:
    """Whether the network is a chain of layers, in which every layer-wise rescaling leaves a product of norms as it is.

    It is one if every operation reads one activation, if every weight that the product counts stands in the chain exactly
    once, and if the operations between are known. Then what one layer is multiplied by, the next one is divided by. A sum of
    activations (a residual stream) has several writers and readers of one scale; LayerNorm lets the layer before it have
    nearly any scale. False as well for a network that cannot be traced.
    """
    if objective not in _chains:
        try:
            graph = traced(objective)
            _chains[objective] = sorted(_chained(graph)) == sorted(_layers(objective))
        except (NotDefined, UsageError):
            _chains[objective] = False
    return _chains[objective]


_of_layers = partial(
    measure,
    unit="output / input",
    invariant_to=("layer",),
    reference=_REFERENCE,
    work=lambda objective, settings: {"layers": Spent()},
    default=False,
    only_if=is_chain,
)


@_of_layers("frobenius_product")
def frobenius_product(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Product over the layers of the Frobenius norms of their weights.

    prod over l of ||W_l||_F. A layer is every parameter with at least two dimensions, as the matrix (outputs, all else), with
    the outputs that the network makes of it (`Layout.of`): a convolution's kernel is (out, in k k), with groups a matrix of
    diagonal blocks. A bias is not counted. BatchNorm in eval mode is one more layer, diag(a) with
    a = gamma / sqrt(var + eps), so that a factor of a convolution which its statistics take up changes nothing. LayerNorm,
    GroupNorm and RMSNorm enter as diag(gamma), for their statistics come from the input.

    Invariant to layer-wise rescaling in a chain of layers only (see `is_chain`): there one layer's factor is the next one's
    divisor. With residual sums, shared weights or attention it is computed all the same and the claim is left out. Never
    invariant to neuron-wise rescaling.

    Args:
        objective: the network on its data, which are not used.
        generator: not used; nothing here is random.

    Returns:
        Kind "exact". inf, with a reason, where it exceeds float64.

    Raises:
        NotDefined: the network takes several arguments, has no layer, or uses a weight in two ways that contradict each
            other.

    Cost: no pass over the data.

    Reference: Bartlett et al. 2017, theorem 1.1 (the spectral norms, beside other factors); Jiang et al. 2020,
    who take its square or its logarithm.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 2, bias=False))
        >>> net[0].weight.data = torch.tensor([[3.0, 4.0]])
        >>> net[2].weight.data = torch.tensor([[1.0], [0.0]])
        >>> frobenius_product(Objective(net, nn.MSELoss(), (torch.ones(1, 2), torch.ones(1, 2)))).value
        5.0
    """
    return _product(objective, lambda w: float(w.norm()))


@_of_layers("spectral_product")
def spectral_product(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Product over the layers of the largest singular values of their weights.

    prod over l of ||W_l||_2, with the layers of `frobenius_product`. For a chain of fully connected layers it bounds the
    Lipschitz constant of the network; for convolutions it does not quite, since ||(out, in k k)||_2 may be smaller than the
    norm of the convolution, by at most the factor k.

    Args, Returns, Raises: as for `frobenius_product`.

    Cost: the eigenvalues of one matrix a layer, of the smaller of its two sides; no pass over the data.

    Accuracy: relative error about 1e-14 a layer.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
        >>> net[0].weight.data = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
        >>> net[2].weight.data = torch.tensor([[0.0, 5.0]])
        >>> round(spectral_product(Objective(net, nn.MSELoss(), (torch.ones(1, 2), torch.ones(1, 1)))).value, 9)
        15.0
    """
    return _product(objective, _spectral)


def _product(objective: Objective, norm: Callable[[Tensor], float]) -> Estimate:
    """Product over the layers of a norm of a matrix or, for a diagonal one, of a vector."""
    weights = _layers(objective)
    if not weights:
        raise NotDefined("expected a network with weight matrices, found none")
    value = math.prod(norm(w.detach().double()) for w in weights.values())
    return Estimate(value) if math.isfinite(value) else Estimate(math.inf, reason="exceeds the range of float64")


def _spectral(weight: Tensor) -> float:
    """Largest singular value of a block-diagonal matrix: that of its blocks, the largest."""
    if weight.ndim == 1:
        return float(weight.abs().max())
    short = weight if weight.shape[1] <= weight.shape[2] else weight.mT
    return float(torch.linalg.eigvalsh(short @ short.mT).max().clamp(min=0).sqrt())


def _layers(objective: Objective) -> dict[str, Tensor]:
    """`layers` of the objective's network.

    Raises:
        NotDefined: it takes several arguments, or the outputs of a weight are not known.
    """
    try:
        first = objective.subset(1)
        return layers(first.plain()[0], first.example)
    except UsageError as error:
        raise NotDefined(error.problem) from error


def layers(model: nn.Module, example: tuple[Any, ...] | Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """Every layer by the name of its weight or running variance: blocks (groups, out, in), or a vector if diagonal.

    Raises:
        NotDefined: the outputs of a weight are not known.
    """
    found: dict[str, Tensor] = {}
    diagonal: set[Tensor] = set()
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_var is not None:
            assert module.running_mean is not None  # PyTorch keeps both or none
            a, _ = affine(module.running_mean, module.running_var, weight, None, module.eps)
            found[f"{prefix}running_var"] = a
            diagonal |= set() if weight is None else {weight}
        elif weight is not None and isinstance(module, _NORMS):
            found[f"{prefix}weight"] = weight.flatten()
            diagonal.add(weight)
    own = dict(model.named_parameters())
    for e in Layout.of(model, example):
        p = own[e.name]
        if p.ndim < 2 or p in diagonal:
            continue
        if e.filters is None:
            raise NotDefined(f"expected weights whose outputs are known, found {e.name}, which is used in two ways")
        order = e.filters.order().to(p.device)
        found[e.name] = p.reshape(-1)[order].view(e.filters.groups, -1, order.shape[1])
    return found


def _chained(graph: Graph) -> list[str]:
    """Names of the layers along the chain, as `layers` calls them; a name that no layer has where it is not a chain."""
    found: list[str] = []
    live = [n for n in graph.nodes if n.op == "placeholder" and not _stored(graph, n)]
    seen = set(live)
    broken = ["not a chain"]
    if len(live) != 1:
        return broken
    for node in graph.nodes:
        carried = live_arguments(node, seen)
        if not carried or operation(node) in aten.QUESTIONS:
            continue
        if len(carried) != 1:
            return broken
        if node.op == "output":
            break
        layer = _layer(graph, node, carried[0])
        if layer is None:
            return broken
        found += layer
        seen.add(node)
    return found


def _layer(graph: Graph, node: fx.Node, x: fx.Node) -> list[str] | None:
    """The layer that a call applies, in a list that is empty if it has no weight; None for what a chain cannot hold."""
    name, others = operation(node), [n for n in node.all_input_nodes if n is not x]
    if name in aten.BATCH_NORM:
        return [graph.leaves.get(n.name, "") for n in others if "running_var" in graph.leaves.get(n.name, "")] or None
    sources = [_leaf(graph, n) for n in others]
    if None in sources:
        return None
    learned = [s for s in sources if s is not None and s in graph.parameters]
    matrices = [s for s in learned if graph.tensors[s].ndim >= 2]
    if name in aten.LINEAR:
        return matrices
    if name in _PLAIN or node.target is getitem:
        return [] if not learned or name == "prelu" else None
    if name in ("add", "sub"):
        return [] if not matrices else None
    return [] if name in ("mul", "div") and not learned and node.args[0] is x else None


def _leaf(graph: Graph, node: fx.Node) -> str | None:
    """Name of the parameter, buffer or constant behind a node, all of it, if there are only views between; else None."""
    shown = node.meta.get("val")
    while node.op == "call_function" and operation(node) in aten.MOVES and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    name = _stored(graph, node)
    whole = graph.tensors.get(name, graph.constants.get(name))
    return name if whole is not None and shown is not None and shown.numel() == whole.numel() else None


def _stored(graph: Graph, node: fx.Node) -> str:
    """Name of the tensor that a placeholder stands for; "" for an input, or for what is computed."""
    if node.name in graph.leaves:
        return graph.leaves[node.name]
    return node.name if node.name in graph.constants else ""
