"""A network as a list of ATen calls: what every rule about scales and paths reads."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from landscape.errors import UsageError, first_line
from landscape.network.copying import check_model, owned, uncompiled

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """The network in eval mode on one example.

    Attributes:
        nodes: in the order of computation; functional (no operation changes its input).
        leaves: node name -> name of the parameter or buffer behind it; tied parameters all carry the first of their names.
        tensors: that name -> the tensor.
        parameters: names, out of `leaves`, of the parameters.
        constants: node name -> a tensor that the network's own forward makes.
    """

    nodes: list[fx.Node]
    leaves: dict[str, str]
    tensors: dict[str, Tensor]
    parameters: frozenset[str]
    constants: dict[str, Tensor]


def graph_of(model: nn.Module, example: Example) -> Graph:
    """Trace a copy of the network, on the CPU and in eval mode: it stays as it was, and the answer is the same on any device.

    Raises:
        UsageError: the network cannot be copied, or `torch.export` cannot follow it on this example.
    """
    own = copied(model).cpu().eval()
    args, kwargs = arguments(example)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # PyTorch's own deprecations; nothing the user could act on
            program = torch.export.export(own, args, kwargs, strict=False)
            # An empty table decomposes nothing, but turns `relu_` and `x[:, 0] += 1` into calls that change no input.
            program = program.run_decompositions({})
    except Exception as error:  # export runs the user's forward: anything may come out of it
        raise UsageError(
            f"expected a network that torch.export can trace, found {first_line(error)}",
            fix="pass an example input that the network accepts, and keep Python control flow off the values of tensors",
        ) from error
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in (*own.named_parameters(remove_duplicate=False), *own.named_buffers(remove_duplicate=False)):
        first.setdefault(id(tensor), name)
        tensors[name] = tensor
    leaves = {
        spec.arg.name: first[id(tensors[spec.target])]
        for spec in program.graph_signature.input_specs
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target in tensors
    }
    parameters = frozenset(first[id(p)] for p in own.parameters())
    constants = {
        spec.arg.name: program.constants[spec.target]
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.CONSTANT_TENSOR
    }
    return Graph(list(program.graph.nodes), leaves, {n: tensors[n] for n in first.values()}, parameters, constants)


def operation(node: fx.Node) -> str:
    """Name of the ATen operation that a node calls, without its overload."""
    return str(getattr(node.target, "overloadpacket", node.target)).removeprefix("aten.")


def bound_arguments(node: fx.Node, look_up: Any) -> dict[str, Any]:
    """Arguments by the names of the operation's schema, defaults filled in."""
    args, kwargs = look_up(node.args), dict(look_up(node.kwargs))
    if not isinstance(node.target, torch._ops.OpOverload):
        return {**{str(i): a for i, a in enumerate(args)}, **kwargs}
    schema = node.target._schema
    if schema.is_mutable:
        raise UsageError(
            f"expected operations that leave inputs alone, found {node.target} in {where(node)}",
            fix="write it out of place",
        )
    names = [a.name for a in schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    return {a.name: given.get(a.name, a.default_value) for a in schema.arguments}


def where(node: fx.Node) -> str:
    """The module that made a call, by its path."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return (stack[-1][0] if stack else "") or "the network's own forward"


def live_arguments(node: fx.Node, live: set[fx.Node]) -> list[fx.Node]:
    """Arguments of a call that are in `live`, each as often as it stands there."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), lambda n: found.append(n) if n in live else None)
    return found


def arguments(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example as (args, kwargs) on the CPU; of a single tensor the first two samples are enough."""
    if isinstance(example, Tensor):
        return (example[:2].detach().cpu() if example.ndim > 1 else example.detach().cpu(),), {}
    if isinstance(example, Mapping):
        return (), {k: v.detach().cpu() if isinstance(v, Tensor) else v for k, v in example.items()}
    return tuple(a.detach().cpu() if isinstance(a, Tensor) else a for a in example), {}


def example_for(model: nn.Module, example: Example | None) -> Example:
    """The example, or one made up for a network that begins with a Linear layer.

    Raises:
        UsageError: there is none, and the first layer does not tell what the network takes.
    """
    if example is not None:
        return example
    first = next((m for m in model.modules() if next(m.parameters(recurse=False), None) is not None), None)
    if not isinstance(first, nn.Linear):
        found = "no parameters" if first is None else f"a network that begins with {type(first).__name__}"
        raise UsageError(f"expected an example input, found {found}", fix="pass example=x, a batch of one or two inputs")
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, first.in_features, generator=generator).to(first.weight.dtype)


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of the network, out of the wrapper of torch.compile; see `landscape.network.copying`."""
    check_model(model)
    return owned(uncompiled(model))
