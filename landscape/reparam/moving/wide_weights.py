"""All tensors of a network in float64, to be changed there and rounded once."""

import torch
from torch import Tensor, nn

from landscape.errors import NumericalError
from landscape.network.copying import uncompiled
from landscape.network.graph import copied


def wide(model: nn.Module) -> dict[str, Tensor]:
    """Name -> copy of every parameter and buffer, in at least float64, on the CPU; tied tensors once, by their first name."""
    network = uncompiled(model)
    tensors: dict[str, Tensor] = dict(network.named_parameters()) | dict(network.named_buffers())
    return {
        name: value.detach()
        .to("cpu", torch.promote_types(value.dtype, torch.float64))
        .clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }


def rounded(model: nn.Module, values: dict[str, Tensor]) -> nn.Module:
    """A copy of the network with these values where they differ from its own, each rounded once to the tensor's dtype.

    Raises:
        NumericalError: a value overflows its dtype.
    """
    other = copied(model)
    tensors: dict[str, Tensor] = dict(other.named_parameters()) | dict(other.named_buffers())
    with torch.no_grad():
        for name, old in tensors.items():
            before = old.cpu().to(values[name].dtype)
            if torch.equal(before, values[name]):
                continue
            new = values[name].to(old.dtype)
            if not bool(torch.isfinite(new[torch.isfinite(before)]).all()):
                raise NumericalError(
                    f"expected rescaled weights within {old.dtype}, found overflow in {name}", fix="use a factor closer to 1"
                )
            old.copy_(new)
    return other
