"""Path norm: the sum over all paths from input to output of the product of squared weights."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, fx

from landscape.measures.capacity import aten_operations as aten
from landscape.measures.registry import ELEMENTWISE, NotDefined, measure
from landscape.measures.traced_network import traced
from landscape.network.graph import Graph, bound_arguments, live_arguments, operation, where
from landscape.objective import Objective
from landscape.results import Estimate, Spent


@measure(
    "path_norm",
    unit="output^2 / input^2",
    invariant_to=ELEMENTWISE,
    reference="Neyshabur, Salakhutdinov, Srebro 2015, arXiv:1506.02617; Jiang et al. 2020, arXiv:1912.02178",
    work=lambda objective, settings: {"path norm": Spent(forwards=2 / objective.samples)},
    default=False,
)
def path_norm(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Sum over all paths from an input to an output of the product of the squared weights along the path.

    sum over paths p of prod over e in p of w_e^2. It equals the sum of the outputs of the network with all weights squared, on
    an input of ones, so that one pass replaces exponentially many paths. A bias is a weight from a constant 1. BatchNorm in
    eval mode is the affine map a x + c with a = gamma / sqrt(var + eps) and c = beta - a mean; a and c are squared. Rectifiers
    have slope 1 on every path. Constants of the architecture (1/k of a mean over k, a fixed factor) enter by their absolute
    value, not squared. Max pooling takes the largest of its sums.

    Each path contains one incoming and one outgoing weight of every neuron on it, so that rescaling by layers or by neurons
    leaves every term unchanged. The same holds for a factor of a convolution that BatchNorm's statistics absorb.

    Args:
        objective: the network on its data; only the shape of an input is used.
        generator: not used; nothing here is random.

    Returns:
        Kind "exact", the sum itself (Neyshabur et al. take its square root). inf, with a reason, if it exceeds float64.

    Raises:
        NotDefined: the network contains an operation other than linear maps, (leaky) rectifiers, poolings, sums,
            concatenations, copies and BatchNorm in eval mode, so that paths are not defined. The message names it.

    Cost: one trace of the network (about a second) and one forward pass of two samples, in float64 on the CPU.

    Accuracy: a sum of positive terms: relative error about 1e-15 times the depth.

    Reference: Neyshabur et al. 2015, with p = 2; Jiang et al. 2020, who fold BatchNorm into the layer before it. There a bias
    b before BatchNorm gives (a b + c)^2, here (a b)^2 + c^2.

    Example:
        Two inputs, two hidden units, one output: (1^2 + 2^2) 5^2 + (3^2 + 4^2) 6^2.
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
        >>> net[0].weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> net[2].weight.data = torch.tensor([[5.0, 6.0]])
        >>> path_norm(Objective(net, nn.MSELoss(), (torch.ones(1, 2), torch.ones(1, 1)))).value
        1025.0
    """
    value = _squared_network(traced(objective))
    # All terms are positive, so that nan can only come from inf * 0, after an overflow.
    if not value < inf:
        return Estimate(inf, reason="exceeds the range of float64")
    return Estimate(value)


def _squared_network(graph: Graph) -> float:
    """Sum of the outputs on one input of ones, with every weight squared."""
    values: dict[fx.Node, Any] = {}
    paths: set[fx.Node] = set()  # nodes that depend on the input
    weights: set[fx.Node] = set()  # nodes that depend on a parameter
    with torch.no_grad():
        for node in graph.nodes:
            sources = set(node.all_input_nodes)
            if node.op == "output":
                return _total(node, values)
            if sources & weights or graph.leaves.get(node.name) in graph.parameters:
                weights.add(node)
            if node.op == "placeholder":
                values[node], is_input = _placeholder(graph, node)
                paths |= {node} if is_input else set()
            elif not sources & paths:
                values[node] = _fixed(node, values)
            elif node.target is operator.getitem:
                paths.add(node)
                values[node] = values[node.args[0]][node.args[1]]  # type: ignore[index]  # getitem's arguments
            else:
                call = _Call(node, values, paths, weights)
                values[node] = call.result()
                if call.name not in (*_ZEROS, *aten.QUESTIONS):
                    paths.add(node)
    raise NotDefined("expected a network with an output, found none")


def _placeholder(graph: Graph, node: fx.Node) -> tuple[Any, bool]:
    """Value of a parameter, buffer or constant, or an input of ones; and whether it is an input."""
    known = graph.tensors.get(graph.leaves.get(node.name, ""), graph.constants.get(node.name))
    if known is not None:
        return _double(known), False
    shown = node.meta.get("val")
    return (torch.ones(shown.shape, dtype=torch.float64), True) if isinstance(shown, Tensor) else (shown, False)


def _fixed(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """A value that does not depend on the input, computed as in the network."""
    if node.op != "call_function":
        return None
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    return _double(node.target(*args, **kwargs))  # type: ignore[operator]  # of a call_function the target is a function


def _double(value: Any) -> Any:
    """A floating-point tensor in float64; any other value unchanged."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _total(node: fx.Node, values: dict[fx.Node, Any]) -> float:
    """Sum of the first sample's outputs."""
    outputs = node.all_input_nodes
    if len(outputs) != 1 or not isinstance(values[outputs[0]], Tensor):
        raise NotDefined(f"expected a network that returns one tensor, found {len(outputs)}")
    return float(values[outputs[0]][0].double().sum())


@dataclass(frozen=True)
class _Call:
    """An operation on activations, whose operands are sums over paths, weights, or constants of the architecture."""

    node: fx.Node
    values: dict[fx.Node, Any]
    paths: set[fx.Node]
    weights: set[fx.Node]

    @property
    def name(self) -> str:
        """Name of the operation."""
        return operation(self.node)

    def result(self) -> Any:
        """The operation applied to sums over paths."""
        rule = _RULES.get(self.name)
        if rule is None:
            raise self.undefined(self.name)
        return rule(self)

    def raw(self) -> dict[str, Any]:
        """Arguments by name; weights unchanged."""
        return bound_arguments(self.node, lambda a: fx.node.map_arg(a, self.values.__getitem__))

    def args(self) -> dict[str, Any]:
        """Arguments by name; weights squared, constants of the architecture by their absolute value."""
        return bound_arguments(self.node, lambda a: fx.node.map_arg(a, self._factor))

    def _factor(self, node: fx.Node) -> Any:
        """A node's value: a sum over paths unchanged, a weight squared, a constant's absolute value."""
        value = self.values[node]
        if node in self.paths or not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return value.square() if node in self.weights else value.abs()

    def constants(self) -> bool:
        """Whether an operand is a nonzero tensor that depends on neither input nor weights."""
        rest = set(self.node.all_input_nodes) - self.paths - self.weights
        tensors = [self.values[n] for n in rest if isinstance(self.values[n], Tensor)]
        return any(t.is_floating_point() and bool(t.any()) for t in tensors)

    def undefined(self, found: str) -> NotDefined:
        """The error that names the operation for which paths are not defined, and its place."""
        return NotDefined(
            f"expected linear maps, rectifiers, poolings and sums between input and output, found {found} in {where(self.node)}"
        )


def _first(call: _Call) -> Any:
    """Rectifiers and copies: they leave sums of positive terms unchanged."""
    args = call.args()
    if args.get("train") or args.get("training"):
        raise call.undefined(f"{call.name} that stays random in eval mode")
    if isinstance(args.get("dtype"), torch.dtype) and not args["dtype"].is_floating_point:
        raise call.undefined(f"{call.name} to {args['dtype']}")
    return next(iter(args.values()))


def _clamp(call: _Call) -> Any:
    """Clamp as a rectifier, max(x, 0)."""
    args = call.raw()
    if args.get("max") is not None or not isinstance(args.get("min"), (int, float)) or args["min"] != 0:
        raise call.undefined(f"{call.name} with bounds other than 0 and infinity")
    return args["self"]


def _same(call: _Call) -> Any:
    """Pooling, reductions and moving elements: the operation itself."""
    args = call.args()
    if call.constants() or args.get("value"):
        raise call.undefined(f"{call.name} of a constant")
    if call.name in ("view", "_unsafe_view", "view_as"):  # the memory layout may differ from that of the traced network
        return args["self"].reshape(call.node.meta["val"].shape)
    return call.node.target(**args)  # type: ignore[operator]  # of a call_function the target is a function


def _sum(call: _Call) -> Any:
    """Addition, and subtraction, since (-1)^2 = 1."""
    args = call.args()
    a, b, scale = args["self"], args["other"], abs(args.get("alpha", 1))
    if call.constants() or (not isinstance(b, Tensor) and b != 0):
        raise call.undefined(f"{call.name} of a constant")
    return scale * a + b if call.name == "rsub" else a + scale * b


def _product(call: _Call) -> Any:
    """Linear maps: one operand is a sum over paths, the others are factors."""
    if len(live_arguments(call.node, call.paths)) > 1:
        raise call.undefined(f"{call.name} of two activations")
    numbers = ("other", "alpha", "beta")
    args = {n: abs(a) if n in numbers and isinstance(a, (int, float)) else a for n, a in call.args().items()}
    if call.name == "addmm" and isinstance(args["self"], Tensor) and call.node.args[0] in call.paths:
        raise call.undefined("addmm onto an activation")
    return call.node.target(**args)  # type: ignore[operator]  # of a call_function the target is a function


def _quotient(call: _Call) -> Any:
    """Division by a number or a weight."""
    args = call.args()
    if call.node.args[1] in call.paths or args.get("rounding_mode") is not None:
        raise call.undefined(f"{call.name} by an activation" if call.node.args[1] in call.paths else call.name)
    other = args["other"]
    return args["self"] / (other if isinstance(other, Tensor) else abs(other))


def _batch_norm(call: _Call) -> Any:
    """a^2 x + c^2 along the second axis."""
    args = call.raw()
    mean, var, gamma, beta = (args[name] for name in ("running_mean", "running_var", "weight", "bias"))
    if args.get("training") or mean is None or var is None:
        raise call.undefined(f"{call.name} with the statistics of the batch")
    a, c = affine(mean, var, gamma, beta, args["eps"])
    x = args["input"]
    shape = [-1 if d == 1 else 1 for d in range(x.ndim)]
    out = x * a.square().view(shape) + c.square().view(shape)
    return out if call.name == "batch_norm" else (out, x.new_zeros(0), x.new_zeros(0))


def affine(mean: Tensor, var: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """BatchNorm with fixed statistics as a x + c."""
    a = (torch.ones_like(var) if gamma is None else gamma) / (var + eps).sqrt()
    return a, (torch.zeros_like(a) if beta is None else beta) - a * mean


_ZEROS = ("zeros_like", "new_zeros")

_RULES: dict[str, Callable[[_Call], Any]] = {
    **dict.fromkeys(aten.RECTIFIERS + aten.COPIES, _first),
    **dict.fromkeys(("clamp", "clamp_min"), _clamp),
    **dict.fromkeys(aten.POOLINGS + aten.REDUCTIONS + aten.MOVES, _same),
    **dict.fromkeys(("add", "sub", "rsub"), _sum),
    **dict.fromkeys((*aten.LINEAR, "mul"), _product),
    "div": _quotient,
    **dict.fromkeys(aten.BATCH_NORM, _batch_norm),
    **dict.fromkeys(_ZEROS, lambda call: torch.zeros(call.node.meta["val"].shape, dtype=torch.float64)),
    **dict.fromkeys(aten.QUESTIONS, lambda call: None),  # already answered when the network was traced
}
