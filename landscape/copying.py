"""The copy of a caller's network that everything is computed on: out of its wrappers, in one dtype, never written back."""

import copy

import torch
from torch import Tensor, nn

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

    Tensors that a module computed in an earlier forward pass and keeps as an attribute (the `weight` of the older
    `weight_norm` and `spectral_norm`) are copied as plain values: the next forward pass computes them anew.

    Raises:
        UsageError: it cannot be copied.
    """
    computed = [t for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor) and not t.is_leaf]
    try:
        return copy.deepcopy(model, {id(t): t.detach().clone() for t in computed})
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"expected a model that can be copied, found {error}", fix="remove cached non-leaf tensors from it"
        ) from error


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
