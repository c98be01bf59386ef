"""The ATen calls of a network that is a sequence of PyTorch's own layers, read off instead of traced.

`torch.export` gives the same calls for any network, but importing and running it takes longer than measuring a small one.
"""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten
_NORMALIZED = aten._native_batch_norm_legit_no_training.default
_Arguments = tuple[Any, ...]
# Hooks of every module: what they do is not in a layer's class.
_OF_ALL_MODULES = (
    nn.modules.module._global_forward_hooks,
    nn.modules.module._global_forward_pre_hooks,
    nn.modules.module._global_backward_hooks,
    nn.modules.module._global_backward_pre_hooks,
)
# From a layer and its input to what it calls in eval mode: operation and arguments after the input, as export
# writes them; None for a setting that is left to export.
_Rule = Callable[[Any, Tensor], "tuple[Any, _Arguments] | None"]


@torch.no_grad()
def sequential_calls(network: nn.Module, x: Tensor) -> fx.Graph | None:
    """The calls of the network on x as `torch.export` lists them, or None if it is anything else than a plain sequence.

    Plain: `nn.Sequential` in itself any number of times, of layers in the table below, by their exact class, without hooks and
    without a parameter that is used twice. Every node has "val" (a tensor without memory) in its `meta`, and a call also
    "nn_module_stack". Placeholders are the parameters, the buffers and the input.

    Args:
        network: in eval mode, on the CPU.
        x: (B, ...) a batch of inputs.

    Cost: a forward pass of x, for the shapes. (Without memory it would import half of PyTorch's compiler.)
    """
    layers = list(_layers(network, ""))
    named = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    if any(_OF_ALL_MODULES) or not all(_plain(layer) for _, layer in layers) or len({id(t) for _, t in named}) < len(named):
        return None
    if not all(t.is_contiguous() for t in (x, *(tensor for _, tensor in named))):  # a view of a result may need a copy
        return None
    graph = fx.Graph()
    given: dict[int, fx.Node] = {}
    for name, tensor in named:
        kind = "p" if isinstance(tensor, nn.Parameter) else "b"
        given[id(tensor)] = _placeholder(graph, f"{kind}_{name.replace('.', '_')}", tensor)
    node, value = _placeholder(graph, "input", x), x
    for path, layer in layers:
        if type(layer) is nn.Identity:
            continue
        call = _TABLE[type(layer)](layer, value)
        if call is None:
            return None
        operation, arguments = call
        if any(isinstance(a, Tensor) and id(a) not in given for a in arguments):  # a weight that is no parameter
            return None
        args = tuple(given[id(a)] if isinstance(a, Tensor) else a for a in arguments)
        node = _call(graph, operation, (node, *args), path, layer)
        value = operation(value, *arguments)
        if operation is _NORMALIZED:  # its first result; the others are empty in eval mode
            node.meta["val"] = tuple(_shape_only(part) for part in value)
            node = _call(graph, operator.getitem, (node, 0), path, layer)
            value = value[0]
        node.meta["val"] = _shape_only(value)
    graph.output((node,))
    return graph


def leaf_names(network: nn.Module, graph: fx.Graph) -> dict[str, str]:
    """For every placeholder of `sequential_calls` but the input, the name of its parameter or buffer."""
    named = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    nodes = [node for node in graph.nodes if node.op == "placeholder"]
    return {node.name: name for node, (name, _) in zip(nodes, named, strict=False)}


def _layers(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a sequence with their paths, in order; a module that is no sequence is itself a layer."""
    if type(module) is not nn.Sequential or not _unhooked(module):
        yield path, module
        return
    for name, child in module._modules.items():  # `named_children` leaves out a layer that comes again
        assert child is not None  # an nn.Sequential holds modules
        yield from _layers(child, f"{path}.{name}" if path else name)


def _plain(layer: nn.Module) -> bool:
    """Whether a layer is in the table, and nothing else happens when it is called."""
    return type(layer) in _TABLE and _unhooked(layer) and not layer.training


def _unhooked(module: nn.Module) -> bool:
    """Whether calling a module runs the forward of its class and nothing else."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return not any(hooks) and "forward" not in vars(module)


def _placeholder(graph: fx.Graph, name: str, tensor: Tensor) -> fx.Node:
    """An input of the graph with its shape and type."""
    node = graph.placeholder(name)
    node.meta["val"] = _shape_only(tensor)
    return node


def _shape_only(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and type without memory."""
    return torch.empty_like(tensor, device="meta")


def _call(graph: fx.Graph, operation: Any, args: _Arguments, path: str, layer: nn.Module) -> fx.Node:
    """A call with the layer that makes it."""
    node = graph.call_function(operation, args)
    node.meta["nn_module_stack"] = {path: (path, f"{type(layer).__module__}.{type(layer).__qualname__}")}
    return node


def _pair(value: Any) -> list[int]:
    """An option of a layer of images as two numbers."""
    return list(value) if isinstance(value, tuple) else [value, value]


def _without_defaults(operation: Any, *arguments: Any) -> tuple[Any, _Arguments]:
    """A call without the last arguments that equal the defaults of the operation, which export leaves out."""
    known = [argument.default_value if argument.has_default_value() else ... for argument in operation._schema.arguments][1:]
    given = list(arguments)
    while given and _default(given[-1], known[len(given) - 1]):
        given.pop()
    return operation, tuple(given)


def _default(value: Any, default: Any) -> bool:
    """Whether an argument is the default; lists of one number for all dimensions are compared entry by entry."""
    if isinstance(value, list) and default is not ...:
        entries = default if isinstance(default, list) else [default]
        return bool(entries) and all(v == entries[i % len(entries)] for i, v in enumerate(value))
    return not isinstance(value, Tensor) and type(value) is type(default) and value == default


def _convolution(layer: nn.Conv2d, _x: Tensor) -> tuple[Any, _Arguments] | None:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    options = (list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups)
    return _without_defaults(aten.conv2d.default, layer.weight, layer.bias, *options)


def _normalization(layer: nn.BatchNorm1d | nn.BatchNorm2d, _x: Tensor) -> tuple[Any, _Arguments] | None:
    if not layer.track_running_stats or layer.weight is None or layer.momentum is None:
        return None
    return _NORMALIZED, (layer.weight, layer.bias, layer.running_mean, layer.running_var, layer.momentum, layer.eps)


def _maximum(layer: nn.MaxPool2d, _x: Tensor) -> tuple[Any, _Arguments] | None:
    if layer.return_indices:
        return None
    options = (_pair(layer.stride), _pair(layer.padding), _pair(layer.dilation), layer.ceil_mode)
    return _without_defaults(aten.max_pool2d.default, _pair(layer.kernel_size), *options)


def _flatten(layer: nn.Flatten, x: Tensor) -> tuple[Any, _Arguments] | None:
    if layer.start_dim != 1 or layer.end_dim != -1 or x.ndim < 3:
        return None
    return aten.view.default, ([x.shape[0], x.shape[1:].numel()],)


def _linear(layer: nn.Linear, _x: Tensor) -> tuple[Any, _Arguments] | None:
    return aten.linear.default, ((layer.weight,) if layer.bias is None else (layer.weight, layer.bias))


def _pointwise(operation: Any) -> _Rule:
    """The rule of a layer without options."""
    return lambda _layer, _x: (operation, ())


_TABLE: dict[type[nn.Module], _Rule] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _normalization,
    nn.BatchNorm2d: _normalization,
    nn.MaxPool2d: _maximum,
    nn.Flatten: _flatten,
    nn.Identity: _pointwise(None),
    nn.Dropout: _pointwise(aten.clone.default),
    nn.ReLU: lambda layer, _x: None if layer.inplace else (aten.relu.default, ()),
    nn.Tanh: _pointwise(aten.tanh.default),
    nn.Sigmoid: _pointwise(aten.sigmoid.default),
    nn.GELU: lambda layer, _x: (aten.gelu.default, ()) if layer.approximate == "none" else None,
}
