"""The copy of a caller's network that everything is computed on: out of its wrappers, in one dtype, never written back."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils import _pytree as pytree

from landscape.errors import UsageError

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel or torch.compile."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]  # torch.compile's wrapper keeps the module here
        else:
            return model


def owned(model: nn.Module) -> nn.Module:
    """A copy of a network, so that nothing done to it changes the caller's.

    A tensor that a module computed in a forward pass and keeps, with its graph, is copied as a plain value. Where it is
    computed anew before every call, as the weight of the older `weight_norm` and `spectral_norm` is, the copy goes back to
    that value after every call, so that it can be copied itself.

    Raises:
        UsageError: it cannot be copied.
    """
    kept = pytree.tree_leaves([list(vars(m).values()) for m in model.modules()])
    computed = [t for t in kept if isinstance(t, Tensor) and not t.is_leaf]
    try:
        own = copy.deepcopy(model, {id(t): t.detach().clone() for t in computed})
    except (RuntimeError, TypeError) as error:
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

    `nn.Module.to` would make complex buffers, such as rotary frequencies, real, and drop their imaginary parts.
    """
    like = _COMPLEX.get(dtype)

    def moved(t: Tensor) -> Tensor:
        kind = dtype if t.is_floating_point() else like if t.is_complex() else None
        return t.to(device=device, dtype=kind)

    return module._apply(moved)


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
