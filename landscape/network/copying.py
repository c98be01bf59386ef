"""The private copy of the caller's network: unwrapped, in one dtype, never written back."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils import _pytree as pytree

from landscape.errors import UsageError, first_line, is_out_of_memory

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
# Attributes of a module that PyTorch's own methods move.
_OWN = ("_parameters", "_buffers", "_modules")


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel or torch.compile."""
    model = uncompiled(model)
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = uncompiled(model.module)
    return model


def uncompiled(model: nn.Module) -> nn.Module:
    """The network inside torch.compile's wrapper; other wrappers, which rename its layers, are kept."""
    while hasattr(model, "_orig_mod"):
        model = model._orig_mod  # type: ignore[assignment]  # torch.compile's wrapper keeps the module here
    return model


def owned(model: nn.Module, shared: bool = False) -> nn.Module:
    """A copy of a network, independent of the caller's.

    A tensor that a module computed in a forward pass and stores with its graph is copied as a plain value, also inside a list
    or dictionary. The older `weight_norm` and `spectral_norm` recompute such a tensor before every call; their copy resets it
    after every call, so that the copy can itself be copied.

    Args:
        model: the network to copy.
        shared: whether the copy shares the parameters instead of copying them.

    Raises:
        UsageError: the network cannot be copied.
    """
    stray = [t for m in model.modules() for t in kept(m) if isinstance(t, Tensor)]
    wrapped = {id(t): t for t in stray if torch._C._functorch.is_functorch_wrapped_tensor(t)}  # left over from a finished vmap
    computed = {id(t): t.detach().clone() for t in stray if id(t) not in wrapped and not t.is_leaf}
    same = {id(p): p for p in model.parameters()} if shared else {}
    try:
        copied = copy.deepcopy(model, same | wrapped | computed)
    except (RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise UsageError(
            f"expected a network that can be copied, found {first_line(error)}",
            fix="remove attributes other than modules, parameters and buffers",
        ) from error
    for module in copied.modules():
        if _computed(module) and not any(isinstance(hook, _Forget) for hook in module._forward_hooks.values()):
            module.register_forward_hook(_Forget(module), always_call=True)
    return copied


def check_model(model: Any) -> None:
    """Refuse what is no module, and what theta cannot represent: TorchScript's own weights, and complex ones."""
    if not isinstance(model, nn.Module):
        found, fix = type(model).__name__, "pass the network itself, a torch.nn.Module"
        if isinstance(model, Mapping):
            found, fix = "a dictionary of weights", "load it into the network first: network.load_state_dict(weights)"
        raise UsageError(f"expected the network as a module, found {found}", fix=fix)
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            kind = f"the scripted module {name}" if name else "a TorchScript program"
            raise UsageError(f"expected Python modules, found {kind}", fix="build the network from its Python code")
    for name, p in model.named_parameters():
        if p.is_complex():
            raise UsageError(
                f"expected real weights, found complex ones in {name}", fix="keep them as a real tensor, by torch.view_as_real"
            )


def converted(module: nn.Module, device: torch.device | None, dtype: torch.dtype) -> nn.Module:
    """Move a module's tensors in place: real ones to `dtype`, complex ones to the complex dtype of that precision.

    `nn.Module.to` would convert complex buffers, such as rotary frequencies, to real ones and drop their imaginary parts. It
    also skips tensors and layers that a module stores in lists, dictionaries or plain attributes.
    """
    module._apply(lambda t: moved(t, device, dtype))
    done = {id(m) for m in module.modules()}
    left = list(module.modules())
    while left:
        for value in kept(left.pop()):
            if isinstance(value, nn.Module) and id(value) not in done:
                value._apply(lambda t: moved(t, device, dtype))
                left += [m for m in value.modules() if id(m) not in done]
                done.update(map(id, value.modules()))
            elif isinstance(value, Tensor) and plain(value):
                converted_tensor = moved(value.detach(), device, dtype)
                if converted_tensor.dtype != value.dtype or converted_tensor.device != value.device:
                    with contextlib.suppress(RuntimeError):  # another kind of device
                        value.data = converted_tensor
    return module


def plain(t: Tensor) -> bool:
    """Whether a tensor is dense with its own storage: not sparse, nested, or left over from a finished functorch transform."""
    return t.layout == torch.strided and not t.is_nested and not torch._C._functorch.is_functorch_wrapped_tensor(t)


def moved(t: Tensor, device: torch.device | None, dtype: torch.dtype) -> Tensor:
    """A tensor on the device: real in `dtype`, complex in the matching complex dtype, integers unchanged."""
    kind = dtype if t.is_floating_point() else _COMPLEX.get(dtype) if t.is_complex() else None
    return t.to(device=device, dtype=kind)


def kept(module: nn.Module) -> Iterator[Any]:
    """Values that a module holds besides parameters, buffers and modules: attributes, and entries of lists and dictionaries."""
    for name, value in list(vars(module).items()):
        if name not in _OWN:
            yield from pytree.tree_leaves(value)


def _computed(module: nn.Module) -> list[str]:
    """Attributes that PyTorch's own hooks recompute before every call."""
    return [hook.name for hook in module._forward_pre_hooks.values() if isinstance(hook, (WeightNorm, SpectralNorm))]


class _Forget:
    """A hook that restores computed attributes after a call: the new value has a graph, or belongs to a vmap."""

    def __init__(self, module: nn.Module) -> None:
        self.kept = {name: getattr(module, name) for name in _computed(module)}

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        for name, t in self.kept.items():
            setattr(module, name, t)
