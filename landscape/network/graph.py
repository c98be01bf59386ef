"""A network as a list of ATen calls, the input of every rule about scales and paths."""

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from landscape.errors import UsageError, first_line
from landscape.network.copying import check_model, owned, uncompiled
from landscape.network.given.library_settings import settle
from landscape.network.operations.sequential import leaf_names, sequential_calls

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """The traced network, in eval mode, on one example.

    Attributes:
        nodes: in the order of computation; functional (no operation changes its input).
        leaves: node name -> name of its parameter or buffer; tied parameters share the first of their names.
        tensors: that name -> the tensor.
        parameters: the names in `leaves` that are parameters.
        constants: node name -> a tensor that the network's forward creates.
    """

    nodes: list[fx.Node]
    leaves: dict[str, str]
    tensors: dict[str, Tensor]
    parameters: frozenset[str]
    constants: dict[str, Tensor]


def graph_of(model: nn.Module, example: Example, outputs: Callable[[Any], Tensor] | None = None) -> Graph:
    """Trace a copy of the network, on the CPU and in eval mode, so that the result is the same on any device.

    A sequence of PyTorch's own layers is read off (milliseconds), any other network traced by `torch.export` (seconds).

    Args:
        model: any module; it is copied.
        example: its arguments.
        outputs: picks the tensor that counts out of what the network returns; None if all of it counts.

    Raises:
        UsageError: the network cannot be copied, or `torch.export` cannot follow it on this example.
    """
    network = to_evaluate(model)
    args, kwargs = arguments(example)
    if len(args) == 1 and not kwargs and (outputs is None or _all_counts(outputs)):
        read = _read_off(network, args[0])
        if read is not None:
            return read
    if outputs is not None:
        network.forward = _picking(network.forward, outputs)
    try:
        # What export cannot follow, such as the choice of experts, it also prints, as code.
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # PyTorch's own deprecation warnings
            program = torch.export.export(network, args, kwargs, strict=False)
            # An empty table makes `relu_` and `x[:, 0] += 1` functional, and beyond that decomposes only views and what acts
            # differently in training. It takes longer than the export, so it is left out where it would change nothing.
            if not all(_stays(node) for node in program.graph.nodes):
                program = program.run_decompositions({})
    except Exception as error:  # export runs the user's forward, which may raise anything
        raise UsageError(
            f"expected a network that torch.export can trace, found {first_line(error)}",
            fix="pass an example input that the network accepts, and avoid control flow that depends on values of tensors",
        ) from error
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in (*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)):
        first.setdefault(id(tensor), name)
        tensors[name] = tensor
    leaves = {
        spec.arg.name: first[id(tensors[spec.target])]
        for spec in program.graph_signature.input_specs
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target in tensors
    }
    parameters = frozenset(first[id(p)] for p in network.parameters())
    constants = {
        spec.arg.name: program.constants[spec.target]
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.CONSTANT_TENSOR
    }
    return Graph(list(program.graph.nodes), leaves, {n: tensors[n] for n in first.values()}, parameters, constants)


def _read_off(network: nn.Module, x: Any) -> Graph | None:
    """The graph of a sequence of PyTorch's own layers; None for any other network, or one that does not accept x."""
    calls = None
    if isinstance(x, Tensor):
        with contextlib.suppress(RuntimeError):  # shapes that do not fit; export tells it better
            calls = sequential_calls(network, x)
    if calls is None:
        return None
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    parameters = frozenset(name for name, _ in network.named_parameters())
    return Graph(list(calls.nodes), leaf_names(network, calls), tensors, parameters, {})


def _all_counts(outputs: Callable[[Any], Tensor]) -> bool:
    """Whether all of an output that is one tensor counts; one that picks from other outputs refuses a tensor."""
    whole = torch.empty(1, 1)
    try:
        return outputs(whole) is whole
    except Exception:  # the user's function
        return False


def _picking(forward: Callable[..., Any], outputs: Callable[[Any], Tensor]) -> Callable[..., Tensor]:
    """A forward that returns only what counts, with the same signature."""

    @functools.wraps(forward)
    def picked(*args: Any, **kwargs: Any) -> Tensor:
        return outputs(forward(*args, **kwargs))

    return picked


def _stays(node: fx.Node) -> bool:
    """Whether `run_decompositions({})` leaves this node as it is."""
    if node.op != "call_function":
        return True
    if not isinstance(node.target, torch._ops.OpOverload) or node.target._schema.is_mutable:
        return False
    if not node.target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        return True
    aliasing = any(argument.alias_info for argument in node.target._schema.arguments)
    return not aliasing and torch.Tag.maybe_aliasing_or_mutating not in node.target.tags


def operation(node: fx.Node) -> str:
    """Name of the ATen operation that a node calls, without its overload."""
    return str(getattr(node.target, "overloadpacket", node.target)).removeprefix("aten.")


def bound_arguments(node: fx.Node, look_up: Any) -> dict[str, Any]:
    """Arguments by the names in the operation's schema, with defaults filled in."""
    args, kwargs = look_up(node.args), dict(look_up(node.kwargs))
    if not isinstance(node.target, torch._ops.OpOverload):
        return {**{str(i): a for i, a in enumerate(args)}, **kwargs}
    schema = node.target._schema
    if schema.is_mutable:
        raise UsageError(
            f"expected operations that do not change their inputs, found {node.target} in {where(node)}",
            fix="write it out of place",
        )
    names = [a.name for a in schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    return {a.name: given.get(a.name, a.default_value) for a in schema.arguments}


def where(node: fx.Node) -> str:
    """Path of the module that made a call."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return (stack[-1][0] if stack else "") or "the network's own forward"


def live_arguments(node: fx.Node, live: set[fx.Node]) -> list[fx.Node]:
    """Arguments of a call that are in `live`, with repetitions."""
    nodes: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), lambda n: nodes.append(n) if n in live else None)
    return nodes


def arguments(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example as (args, kwargs) on the CPU; a single tensor is cut to its first two samples."""
    if isinstance(example, Tensor):
        return (example[:2].detach().cpu() if example.ndim > 1 else example.detach().cpu(),), {}
    if isinstance(example, Mapping):
        return (), {k: v.detach().cpu() if isinstance(v, Tensor) else v for k, v in example.items()}
    return tuple(a.detach().cpu() if isinstance(a, Tensor) else a for a in example), {}


def example_for(model: nn.Module, example: Example | None) -> Example:
    """The given example, or a random one for a network that begins with a Linear layer.

    Raises:
        UsageError: no example was given, and the first layer does not determine the input.
    """
    if example is not None:
        return example
    first = next((m for m in model.modules() if next(m.parameters(recurse=False), None) is not None), None)
    if not isinstance(first, nn.Linear):
        found = "no parameters" if first is None else f"a network that begins with {type(first).__name__}"
        raise UsageError(f"expected an example input, found {found}", fix="pass example=x, a batch of one or two inputs")
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, first.in_features, generator=generator).to(first.weight.dtype)


def to_evaluate(model: nn.Module) -> nn.Module:
    """A deep copy on the CPU and in eval mode; a model of transformers returns no caches, as in an `Objective`."""
    network = copied(model).cpu().eval()
    settle(network)
    return network


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of the network without the wrapper of torch.compile; see `landscape.network.copying`."""
    check_model(model)
    return owned(uncompiled(model))
