"""BatchNorm in eval mode, folded into the layer before it; derivatives still reach the original weights.

With running statistics BatchNorm is an affine map of each channel, a x + c with a = gamma / sqrt(var + eps) and c = beta -
a mean. Computed inside the graph, weight * a and (bias - mean) a + beta are functions of the original parameters, so that every
derivative is the same; and the activations never see BatchNorm, where half of a double backward pass would be spent.
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
from landscape.network.outputs import picked

_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# Two evaluations of one function that differ by rounding; a wrong fold differs in the first digit.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}


@dataclass(frozen=True, eq=False)
class Folded:
    """A network without the BatchNorms that stand right behind a linear map.

    Attributes:
        model: the network, with those BatchNorms taken out and a bias on the layer before each.
        pairs: (layer, BatchNorm) by name.
        own: parameters and buffers of the whole network, for those that are not given.
        eps: of each BatchNorm.
    """

    model: nn.Module
    pairs: tuple[tuple[str, str], ...]
    own: dict[str, Tensor] = field(repr=False)
    eps: dict[str, float] = field(repr=False)

    def of(self, model: nn.Module) -> "Folded":
        """The same fold of another copy of the network, for instance in another dtype."""
        return _without(model, self.pairs)

    def __call__(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """The folded network's parameters from those of the whole one; differentiable."""
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


def folded(model: nn.Module, batch: Batch, at: int | str | None = None) -> Folded | None:
    """Fold what can be folded, found by watching one pass and checked by another; None where nothing can, or a check fails.

    Args:
        model: in eval mode; left as it is.
        batch: a few samples.
        at: where in the output the tensor stands that the loss takes.

    Returns:
        Folded, whose outputs equal the model's at random BatchNorm parameters and statistics: at the trained ones a fold that
        hides a second reader of a layer's output could pass unseen.
    """
    if not any(map(_foldable, model.modules())):
        return None
    pairs = _adjacent(model, batch)
    found = _checked(model, pairs, batch, at)
    if found is None and len(pairs) > 1:
        found = _checked(model, [pair for pair in pairs if _checked(model, [pair], batch, at)], batch, at)
    return found


def _checked(model: nn.Module, pairs: list[tuple[str, str]], batch: Batch, at: int | str | None) -> Folded | None:
    """The fold of these pairs, if it computes what the network does at random BatchNorm parameters and statistics."""
    if not pairs:
        return None
    found = _without(model, pairs)
    random = torch.Generator().manual_seed(0)
    params = {name: p.detach() for name, p in model.named_parameters()}
    for _, norm in pairs:
        for name in ("weight", "bias", "running_mean", "running_var"):
            t = found.own.get(f"{norm}.{name}")
            if t is not None:
                params[f"{norm}.{name}"] = (0.5 + torch.rand(t.shape, generator=random)).to(t)
    with torch.enable_grad():
        whole = picked(called(model, params, batch), at).detach()
        part = picked(called(found.model, found(params), batch), at).detach()
    error = float((whole - part).abs().max())
    return found if error <= _TOLERANCE[part.dtype] * float(whole.abs().max()) else None


def _adjacent(model: nn.Module, batch: Batch) -> list[tuple[str, str]]:
    """(layer, BatchNorm) where one pass hands the very output of a layer to a BatchNorm, each used once."""
    named = {n: m for n, m in model.named_modules() if isinstance(m, _LINEAR) or _foldable(m)}
    held = {n for n, _ in model.named_parameters()}
    outputs: dict[int, tuple[str, Tensor]] = {}
    calls: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []

    def watch(name: str) -> Any:
        def see(module: nn.Module, args: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(module, _LINEAR) and isinstance(output, Tensor):
                outputs[id(output)] = (name, output)  # held, so that no other tensor gets its id
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
        # A weight that two layers share has one name; folding it would scale it for both.
        if calls[layer] == calls[norm] == 1
        and f"{layer}.weight" in held
        and _axis_fits(named[layer], named[norm])
        and sum(layer == other for other, _ in pairs) == 1
    ]


def _foldable(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None and not module.training


def _axis_fits(layer: Any, norm: Any) -> bool:
    """Whether the layer has as many outputs as the BatchNorm channels; on sequences a linear layer need not."""
    return (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels) == norm.num_features


def _without(model: nn.Module, pairs: Sequence[tuple[str, str]]) -> Folded:
    """A copy of the network without those BatchNorms."""
    twin = owned(model)
    eps = {}
    for layer, norm in pairs:
        module: Any = twin.get_submodule(layer)
        if module.bias is None:
            module.bias = nn.Parameter(torch.zeros(len(module.weight)).to(module.weight), requires_grad=False)
        eps[norm] = float(model.get_submodule(norm).eps)  # type: ignore[arg-type]  # a BatchNorm
        parent, _, name = norm.rpartition(".")
        setattr(twin.get_submodule(parent), name, nn.Identity())
    own = {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False)} | dict(model.named_buffers())
    return Folded(twin, tuple(pairs), own, eps)
