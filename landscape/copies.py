"""Copies of networks, also of those whose modules keep a tensor that they compute from their parameters."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from landscape.errors import UsageError


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of a network, so that nothing done to it changes the caller's.

    Old-style `weight_norm` and `spectral_norm` compute the weight anew before every call of the module and keep it, with its
    graph, which cannot be copied: the copy begins with its value, and goes back to that after every call, so that it can be
    copied itself.

    Raises:
        UsageError: it has a scripted or traced module, or holds something else that cannot be copied.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(
                f"expected a network of plain modules, found a scripted or traced one{f' in {name}' if name else ''}",
                fix="pass the network as it is before torch.jit.script or torch.jit.trace",
            )
    known: dict[int, Any] = {}  # what deepcopy takes for already copied
    for module in model.modules():
        for name in _computed(module):
            t = getattr(module, name, None)
            if isinstance(t, Tensor):
                known[id(t)] = t.detach().clone()
    try:
        own = copy.deepcopy(model, known)
    except (RuntimeError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UsageError(
            f"expected a network that can be copied, found {type(error).__name__}: {lines[0][:200] if lines else ''}",
            fix="remove cached non-leaf tensors from it",
        ) from error
    for module in own.modules():
        if _computed(module) and not any(isinstance(hook, _Forget) for hook in module._forward_hooks.values()):
            module.register_forward_hook(_Forget(module), always_call=True)
    return own


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
