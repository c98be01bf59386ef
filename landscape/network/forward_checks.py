"""Checks of values, made before any derivative: the model runs on its data, and gives the same each time."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.errors import NumericalError, UsageError, is_about_dtype, is_exhausted
from landscape.machine.arithmetic import values
from landscape.network.batches import Batch, counted, merged
from landscape.network.copying import kept, owned
from landscape.network.forward import ForwardPass, Pass
from landscape.network.functional import called
from landscape.network.losses.checks import check_classes, check_loss, takes, with_target
from landscape.network.losses.mean_loss import MeanLoss
from landscape.network.losses.structure import structure
from landscape.network.outputs import found_at, picked
from landscape.network.parameters import Layout

_SAMPLES = 8
_WHOLE = "data that are one whole, such as a graph, go in a list of one batch"


def check_weights(layout: Layout, theta: Tensor) -> None:
    """Refuse weights that are not finite, and name the parameter."""
    if not bool(torch.isfinite(theta).all()):
        bad = next(e.name for e in layout if not bool(torch.isfinite(theta[e.start : e.stop]).all()))
        raise NumericalError(
            f"expected finite weights, found NaN or infinity in {bad}", fix="use a checkpoint that did not diverge"
        )


def fixed_rows(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Padding rows of embeddings and their values, by the name of the weight: the loss depends on them, their gradient is 0."""
    owners: dict[int, int] = {}
    for m in model.modules():
        for p in m._parameters.values():
            owners[id(p)] = owners.get(id(p), 0) + 1
    out = {}
    for name, m in model.named_modules():
        if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.padding_idx is not None and owners[id(m.weight)] == 1:
            rows = torch.tensor([m.padding_idx], device=m.weight.device)
            out[f"{name}.weight" if name else "weight"] = (rows, m.weight.detach()[rows])
    return out


def ready(
    engine: Pass, theta: Tensor, loss: Callable[[Tensor, Tensor], Tensor], model: nn.Module, one_batch: bool = False
) -> tuple[Pass, int | None]:
    """The engine that runs on its data: where the loss's tensor stands in the output, and what each sample weighs.

    Args:
        engine: network and data, with nothing known of them.
        theta: (P,) weights.
        loss, model: the caller's.
        one_batch: whether the data are one batch, which is one whole if the number of outputs depends on that of the samples.

    Returns:
        The engine, and the number of classes where the targets are class indices for certain.

    Raises:
        UsageError: the model does not run on the data, or the loss does not take its outputs and their targets, reads weights
            or adds its samples up.
        NumericalError: a loss that is another one at each call, or has weights that are not finite; a network that goes by
            what it kept of other weights.
    """
    renorms = any(isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.max_norm is not None for m in engine.model.modules())
    engine = replace(engine, writes=renorms, fixed=fixed_rows(engine.model))
    first = engine.batches[0].first(2)
    twin = owned(engine.model, shared=True)
    returned, writes = _first_output(engine, theta, first)
    at = found_at(returned, lambda t: takes(engine.loss, t, first.target))
    engine = replace(engine, output=at, writes=renorms or writes)
    output = picked(returned, at, len(first)).detach()
    if len(more := engine.batches[0].first(3)) > len(first):
        wider = picked(_first_output(engine, theta, more)[0], at, len(more))
        if wider.shape[1:] != output.shape[1:]:  # such as the similarities of all pairs
            if not one_batch:
                raise UsageError(
                    f"expected every sample's output to depend on that sample alone, found shape {tuple(output.shape)} for "
                    f"two samples and {tuple(wider.shape)} for three",
                    fix=_WHOLE,
                )
            first = replace(engine.batches[0], divisible=False)
            engine = replace(engine, batches=[first])
            output = picked(_first_output(engine, theta, first)[0], at, len(first)).detach()
    _check_follows(engine, twin, theta, first, output)
    engine = replace(engine, batches=[with_target(engine.loss, b, output) for b in engine.batches])
    classes = check_classes(engine, output)
    check_loss(engine, output, engine.batches[0].first(len(first)).target, loss, model)
    return weighted(engine, theta), classes


def weighted(engine: Pass, theta: Tensor) -> Pass:
    """The engine with every sample's weight in the mean; where the loss is no mean over samples, with all in one batch."""
    loss = engine.loss
    if loss.known:
        return replace(engine, batches=[replace(b, weights=loss.sample_weights(b.target)) for b in engine.batches])
    whole = all(b.divisible for b in engine.batches)
    with values():
        params = engine.tensors(theta)
        found = structure(loss.loss, ((engine.forward(params, b).detach(), b.target) for b in engine.batches))
    engine = replace(engine, loss=MeanLoss(loss.loss, found))
    if found.apart and found.weights is not None and whole:
        plain = all(bool((w == 1).all()) for w in found.weights)
        pairs = zip(engine.batches, found.weights, strict=True)
        return replace(engine, batches=[replace(b, weights=None if plain else w) for b, w in pairs])
    together = merged([replace(b, weights=None) for b in engine.batches]) if len(engine.batches) > 1 else engine.batches[0]
    if together is None:
        raise UsageError(
            "expected a loss that is a mean over samples, found one that must see all of them at once, in batches that do not "
            "fit together",
            fix="give inputs, outputs and targets of one shape, or one batch, or a loss of PyTorch's",
        )
    return replace(engine, batches=[together])


def check_values(engine: Pass, theta: Tensor, one_batch: bool) -> Pass:
    """The same outputs twice, to the bit; a sample's output does not depend on its neighbours, unless the data are one batch.

    Returns:
        The engine, whose batch is one whole where the samples of it are mixed.

    Raises:
        NumericalError: what failed, with the module where it can be told.

    Cost: four forward passes of 8 samples.
    """
    batch = counted(engine.batches, _SAMPLES)
    params = engine.tensors(theta)
    first, seen = _traced(engine, params, batch)
    second, again = _traced(engine, params, batch)
    if not torch.equal(first, second):
        culprit = next((name for name in seen if not torch.equal(seen[name], again[name])), type(engine.model).__name__)
        raise NumericalError(
            f"expected the same output twice, found that {culprit} gives another one at each call",
            fix="turn off dropout, noise or sampling that ignores eval mode",
        )
    if len(batch) < 2 or not batch.divisible:
        return engine
    middle = len(batch) // 2
    half, alone = _traced(engine, params, batch[:middle])
    rest, _ = _traced(engine, params, batch[middle:])
    backwards, _ = _traced(engine, params, batch[torch.arange(len(batch) - 1, -1, -1, device=batch.target.device)])
    tolerance = 1e-4 if theta.dtype == torch.float32 else 1e-5  # a network may compute in float32 inside
    size = tolerance * float(first.abs().max() + 1e-30)
    if all(torch.allclose(t, first, tolerance, size, True) for t in (torch.cat((half, rest)), backwards.flip(0))):
        return engine
    if one_batch:
        return replace(engine, batches=[replace(b, divisible=False) for b in engine.batches])

    def differs(name: str) -> bool:
        return name in seen and not torch.allclose(alone[name], seen[name][: len(alone[name])], rtol=1e-3, atol=1e-5)

    culprit = next((name for name in alone if differs(name)), type(engine.model).__name__)
    raise NumericalError(
        f"expected every sample's output to depend on that sample alone, found that {culprit} mixes the batch",
        fix=f"BatchNorm needs running statistics (track_running_stats=True) and eval mode; {_WHOLE}",
    )


def check_finite(each: Mapping[str, Any], value: float) -> None:
    """Refuse a loss that is not finite at the trained weights, and name the first sample."""
    losses = np.asarray(each.get("loss", [value]))
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad) or not np.isfinite(value):
        found = f"{losses[bad[0]]:.4g} for sample {bad[0]}" if len(bad) and "loss" in each else f"{value:.4g}"
        raise NumericalError(
            f"expected a finite loss at the trained weights, found {found}",
            fix="check that sample and its preprocessing, and that the weights belong to this model",
        )


def _check_follows(engine: ForwardPass, twin: nn.Module, theta: Tensor, batch: Batch, output: Tensor) -> None:
    """Refuse a network that keeps in one call what it computed from its weights, and goes by it in the next.

    Weight matrices that are inverted or merged once, in eval mode, are kept so. A copy that first ran at other weights gives
    another output then than one that did not.

    Args:
        engine: whose network ran at theta alone.
        twin: of that network, which never ran.
        output: of the batch at theta.
    """
    if engine.writes:
        return
    noise = torch.randn(len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(theta)
    other = replace(engine, model=twin)
    held = {name: [id(t) for t in kept(m)] for name, m in twin.named_modules()}
    try:
        with values():
            other.forward(engine.tensors(theta * (1 + 0.1 * noise)), batch)
            after = other.forward(engine.tensors(theta), batch).detach()
            again = engine.forward(engine.tensors(theta), batch).detach()
    except Exception:  # elsewhere a network need not run
        return
    if torch.equal(output, after) or not torch.equal(output, again) or not bool(after.isfinite().all()):
        return
    changed = (name for name, m in twin.named_modules() if held.get(name) != [id(t) for t in kept(m)])
    raise NumericalError(
        "expected outputs that follow the weights, found that "
        f"{next(changed, '') or type(engine.model).__name__} goes by what it kept of others in a call before",
        fix="let it compute that in every call, by turning its cache off",
    )


def _first_output(engine: ForwardPass, theta: Tensor, batch: Batch) -> tuple[Any, bool]:
    """What the network returns for two samples; and whether its forward pass wrote to its weights or its inputs."""
    given = {name: t.clone() for name, t in engine.tensors(theta).items()}
    before = {name: t.clone() for name, t in given.items()}
    own = batch
    batch = own.map(Tensor.clone)
    try:
        with values():
            returned = called(engine.model, given, batch)
    except UsageError:
        raise
    except Exception as error:  # whatever the user's own code raises on its own data
        if is_exhausted(error):
            raise
        first = str(error).partition("\n")[0]
        other = "float32" if theta.dtype == torch.float64 else "float64"
        fix = "check the shape and the preprocessing of the inputs"
        if is_about_dtype(error) and "ouble" in first:
            fix += f"; a network that insists on a type may take dtype={other!r}"
        raise UsageError(f"expected a model that runs on its data, found {type(error).__name__}: {first}", fix=fix) from error
    wrote = not all(torch.equal(a, b) for a, b in zip(own.tensors, batch.tensors, strict=True))
    return returned, wrote or not all(torch.equal(before[name], t) for name, t in given.items())


def _traced(engine: ForwardPass, params: dict[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Output, and the first output of every innermost module, by name."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor) and output.layout == torch.strided and not output.is_nested:
                seen.setdefault(name, output.detach().clone())

        return hook

    leaves = [(n, m) for n, m in engine.model.named_modules() if n and not list(m.children())]
    handles = [m.register_forward_hook(keep(name)) for name, m in leaves]
    try:
        with values():
            return engine.forward(params, batch, fold=False).detach(), seen
    finally:
        for handle in handles:
            handle.remove()
