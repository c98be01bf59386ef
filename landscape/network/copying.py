"""The copy of a caller's network that everything is computed on: out of its wrappers, in one dtype, never written back."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils import _pytree as pytree

from landscape.errors import UsageError, is_exhausted

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
# Of a module's attributes, those that PyTorch's own methods move.
_OWN = ("_parameters", "_buffers", "_modules")


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel or torch.compile."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]  # torch.compile's wrapper keeps the module here
        else:
            return model


def owned(model: nn.Module, shared: bool = False) -> nn.Module:
    """A copy of a network, so that nothing done to it changes the caller's.

    A tensor that a module computed in a forward pass and keeps, with its graph, is copied as a plain value, in a list or a
    dictionary too. Where it is computed anew before every call, as the weight of the older `weight_norm` and `spectral_norm`
    is, the copy goes back to that value after every call, so that it can be copied itself.

    Args:
        model: copied.
        shared: whether the copy has the same parameters, not copies of them.

    Raises:
        UsageError: it cannot be copied.
    """
    stray = [t for m in model.modules() for t in kept(m) if isinstance(t, Tensor)]
    wrapped = {id(t): t for t in stray if torch._C._functorch.is_functorch_wrapped_tensor(t)}  # left by a vmap that is over
    computed = {id(t): t.detach().clone() for t in stray if id(t) not in wrapped and not t.is_leaf}
    same = {id(p): p for p in model.parameters()} if shared else {}
    try:
        own = copy.deepcopy(model, same | wrapped | computed)
    except (RuntimeError, TypeError) as error:
        if is_exhausted(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UsageError(
            f"expected a network that can be copied, found {type(error).__name__}: {lines[0][:200] if lines else ''}",
            fix="remove what it holds beside modules, parameters and buffers",
        ) from error
    for module in own.modules():
        if _computed(module) and not any(isinstance(hook, _Forget) for hook in module._forward_hooks.values()):
            module.register_forward_hook(_Forget(module), always_call=True)
    return own


def check_model(model: nn.Module) -> None:
    """Refuse TorchScript, whose compiled code holds weights of its own, and complex weights, which theta has no place for."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            found = f"the scripted module {name}" if name else "a TorchScript program"
            raise UsageError(f"expected modules of Python, found {found}", fix="build the network from its Python code")
    for name, p in model.named_parameters():
        if p.is_complex():
            raise UsageError(
                f"expected real weights, found complex ones in {name}", fix="keep them as a real tensor, by torch.view_as_real"
            )


def converted(module: nn.Module, device: torch.device | None, dtype: torch.dtype) -> nn.Module:
    """The module itself, its tensors moved: real ones to `dtype`, complex ones to the complex type of that precision.

    `nn.Module.to` would make complex buffers, such as rotary frequencies, real, and drop their imaginary parts. And it would
    leave behind what a module keeps beside parameters and buffers, tables and layers in lists or dictionaries.
    """
    module._apply(lambda t: moved(t, device, dtype))
    done = {id(m) for m in module.modules()}
    left = list(module.modules())
    while left:
        for thing in kept(left.pop()):
            if isinstance(thing, nn.Module) and id(thing) not in done:
                thing._apply(lambda t: moved(t, device, dtype))
                left += [m for m in thing.modules() if id(m) not in done]
                done.update(map(id, thing.modules()))
            elif isinstance(thing, Tensor) and plain(thing):
                twin = moved(thing.detach(), device, dtype)
                if twin.dtype != thing.dtype or twin.device != thing.device:
                    with contextlib.suppress(RuntimeError):  # of another kind of device
                        thing.data = twin
    return module


def plain(t: Tensor) -> bool:
    """Whether a tensor has elements of its own: no sparse or nested one, nor what a transformation that is over left behind."""
    return t.layout == torch.strided and not t.is_nested and not torch._C._functorch.is_functorch_wrapped_tensor(t)


def moved(t: Tensor, device: torch.device | None, dtype: torch.dtype) -> Tensor:
    """A tensor on the device: a real one in `dtype`, a complex one in the complex type like it, integers as they are."""
    kind = dtype if t.is_floating_point() else _COMPLEX.get(dtype) if t.is_complex() else None
    return t.to(device=device, dtype=kind)


def kept(module: nn.Module) -> Iterator[Any]:
    """What a module holds beside parameters, buffers and modules: attributes, and what is in lists and dictionaries."""
    for name, value in list(vars(module).items()):
        if name not in _OWN:
            yield from pytree.tree_leaves(value)


def _computed(module: nn.Module) -> list[str]:
    """Attributes that a hook of PyTorch's computes anew before every call."""
    return [hook.name for hook in module._forward_pre_hooks.values() if isinstance(hook, (WeightNorm, SpectralNorm))]


class _Forget:
    """A hook that puts back what a module kept before the call: what the call computed has a graph, or is inside a vmap."""

    def __init__(self, module: nn.Module) -> None:
        self.kept = {name: getattr(module, name) for name in _computed(module)}

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        for name, t in self.kept.items():
            setattr(module, name, t)
