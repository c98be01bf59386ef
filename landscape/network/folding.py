"""BatchNorm in eval mode, folded into the layer before it; derivatives still reach the original weights.

With running statistics BatchNorm is an affine map of each channel, a x + c with a = gamma / sqrt(var + eps) and c = beta -
a mean. The folded weight a * weight and bias (bias - mean) a + beta are computed inside the graph from the original parameters,
so every derivative is the same. The activations skip BatchNorm, where half of a double backward pass would be spent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.network.batches import Batch
from landscape.network.copying import owned
from landscape.network.functional import called
from landscape.network.outputs import Position, picked

_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# Relative difference that rounding may cause between the two networks; a wrong fold differs in the first digit.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}


@dataclass(frozen=True, eq=False)
class Folded:
    """A network without the BatchNorms that directly follow a linear map.

    Attributes:
        model: the network with those BatchNorms replaced by the identity, and a bias on the layer before each.
        pairs: (layer, BatchNorm) by name.
        own: parameters and buffers of the original network, used where the caller passes none.
        eps: epsilon of each BatchNorm.
    """

    model: nn.Module
    pairs: tuple[tuple[str, str], ...]
    own: dict[str, Tensor] = field(repr=False)
    eps: dict[str, float] = field(repr=False)

    def of(self, model: nn.Module) -> "Folded":
        """The same fold applied to another copy of the network, for instance in another dtype."""
        return _without(model, self.pairs)

    def __call__(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """The folded network's parameters from those of the original network; differentiable."""
        out = dict(params)
        for layer, norm in self.pairs:
            weight, bias, gamma, beta, mean, var = (
                out.pop(name, self.own.get(name))
                for name in (
                    f"{layer}.weight",
                    f"{layer}.bias",
                    f"{norm}.weight",
                    f"{norm}.bias",
                    f"{norm}.running_mean",
                    f"{norm}.running_var",
                )
            )
            assert weight is not None  # every such pair has these three
            assert mean is not None
            assert var is not None
            scale = torch.rsqrt(var + self.eps[norm])
            if gamma is not None:
                scale = scale * gamma
            shift = -mean if bias is None else bias - mean
            out[f"{layer}.weight"] = weight * scale.view(-1, *(1 for _ in weight.shape[1:]))
            out[f"{layer}.bias"] = shift * scale if beta is None else shift * scale + beta
        return out


def folded(model: nn.Module, batch: Batch, at: Position = None) -> Folded | None:
    """Fold each BatchNorm into the linear map before it. Pairs are found by observing one pass and verified by another.

    Args:
        model: in eval mode; left as it is.
        batch: a few samples.
        at: position in the output of the tensor that the loss takes.

    Returns:
        Folded, or None if no pair can be folded or the verification fails. Outputs are verified at random BatchNorm parameters
        and statistics: at the trained ones, a second use of a layer's output could remain undetected.
    """
    if not any(map(_foldable, model.modules())):
        return None
    pairs = _adjacent(model, batch)
    result = _checked(model, pairs, batch, at)
    if result is None and len(pairs) > 1:
        result = _checked(model, [pair for pair in pairs if _checked(model, [pair], batch, at)], batch, at)
    return result


def _checked(model: nn.Module, pairs: list[tuple[str, str]], batch: Batch, at: Position) -> Folded | None:
    """The fold of these pairs, if it computes the network's outputs at random BatchNorm parameters and statistics."""
    if not pairs:
        return None
    candidate = _without(model, pairs)
    random = torch.Generator().manual_seed(0)
    params = {name: p.detach() for name, p in model.named_parameters()}
    for _, norm in pairs:
        for name in ("weight", "bias", "running_mean", "running_var"):
            t = candidate.own.get(f"{norm}.{name}")
            if t is not None:
                params[f"{norm}.{name}"] = (0.5 + torch.rand(t.shape, generator=random)).to(t)
    with torch.enable_grad():
        whole = picked(called(model, params, batch), at).detach()
        part = picked(called(candidate.model, candidate(params), batch), at).detach()
    error = float((whole - part).abs().max())
    return candidate if error <= _TOLERANCE[part.dtype] * float(whole.abs().max()) else None


def _adjacent(model: nn.Module, batch: Batch) -> list[tuple[str, str]]:
    """(layer, BatchNorm) pairs in which the BatchNorm's input is the layer's output, each used once in a pass."""
    named = {n: m for n, m in model.named_modules() if isinstance(m, _LINEAR) or _foldable(m)}
    held = {n for n, _ in model.named_parameters()}
    outputs: dict[int, tuple[str, Tensor]] = {}
    calls: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []

    def watch(name: str) -> Any:
        def see(module: nn.Module, args: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(module, _LINEAR) and isinstance(output, Tensor):
                outputs[id(output)] = (name, output)  # a reference, so that its id is not reused
            elif args and id(args[0]) in outputs:
                pairs.append((outputs[id(args[0])][0], name))

        return see

    handles = [module.register_forward_hook(watch(name)) for name, module in named.items()]
    try:
        with torch.enable_grad():
            model(*batch.args, **batch.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return [
        (layer, norm)
        for layer, norm in pairs
        # A weight that two layers share appears under one name; folding would scale it for both.
        if calls[layer] == calls[norm] == 1
        and f"{layer}.weight" in held
        and _axis_fits(named[layer], named[norm])
        and sum(layer == other for other, _ in pairs) == 1
    ]


def _foldable(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None and not module.training


def _axis_fits(layer: Any, norm: Any) -> bool:
    """Whether the layer has as many outputs as the BatchNorm has channels; on sequences a linear layer may differ."""
    return (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels) == norm.num_features


def _without(model: nn.Module, pairs: Sequence[tuple[str, str]]) -> Folded:
    """A copy of the network without those BatchNorms."""
    copied = owned(model)
    eps = {}
    for layer, norm in pairs:
        module: Any = copied.get_submodule(layer)
        if module.bias is None:
            module.bias = nn.Parameter(torch.zeros(len(module.weight)).to(module.weight), requires_grad=False)
        eps[norm] = float(model.get_submodule(norm).eps)  # type: ignore[arg-type]  # a BatchNorm
        parent, _, name = norm.rpartition(".")
        setattr(copied.get_submodule(parent), name, nn.Identity())
    tensors = {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False)} | dict(model.named_buffers())
    return Folded(copied, tuple(pairs), tensors, eps)
