"""Checks before the first value: the model runs on its data, and gives the same output each time."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.errors import NumericalError, UsageError, is_about_dtype, is_out_of_memory
from landscape.machine.arithmetic import values
from landscape.network.batches import Batch, counted, merged
from landscape.network.copying import kept, owned
from landscape.network.forward import ForwardPass, Pass
from landscape.network.functional import called
from landscape.network.losses.loss_checks import OF_MODEL, check_classes, check_loss, takes, with_target
from landscape.network.losses.mean_loss import MeanLoss
from landscape.network.losses.model_loss_checks import ready_whole
from landscape.network.losses.structure import structure
from landscape.network.outputs import Following, Position, found_at, picked
from landscape.network.parameters import Layout

_SAMPLES = 8
# Bytes of the outputs of these samples above which two samples are checked; every layer's output is kept for the comparison.
_LARGE = 64 << 20
_CHANNELS = (1, 3, 4)  # of images, in any order of dimensions
_WHOLE = "data that cannot be split by samples, such as a graph, go in a list of one batch"


def check_weights(layout: Layout, theta: Tensor) -> None:
    """Refuse weights that are not finite; the message names the parameter."""
    if not bool(torch.isfinite(theta).all()):
        bad = next(e.name for e in layout if not bool(torch.isfinite(theta[e.start : e.stop]).all()))
        raise NumericalError(
            f"expected finite weights, found NaN or infinity in {bad}", fix="use a checkpoint that did not diverge"
        )


def fixed_rows(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Padding rows of embeddings and their values, by weight name. The loss depends on them, but their gradient is 0."""
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
    network: Pass, theta: Tensor, loss: Callable[[Tensor, Tensor], Tensor], model: nn.Module, one_batch: bool = False
) -> tuple[Pass, int | None]:
    """Prepare a forward pass for its data: find the loss's tensor in the output, and the weight of each sample.

    Args:
        network: the model and its data.
        theta: (P,) weights.
        loss, model: the caller's.
        one_batch: whether the caller gave a single batch; it may not be split if the outputs' shape depends on its size.

    Returns:
        The prepared forward pass, and the number of classes if the targets are certainly class indices.

    Raises:
        UsageError: the model does not run on the data; or the loss does not accept its outputs and targets, depends on
            weights, or is a sum over samples.
        NumericalError: the loss varies from call to call, or has weights that are not finite; or the network uses values
            cached from other weights.
    """
    renorms = any(isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.max_norm is not None for m in network.model.modules())
    network = replace(network, writes=renorms, fixed=fixed_rows(network.model))
    if network.loss.of_model is not None:
        return ready_whole(network, theta, loss, model), None
    first = network.batches[0].first(2)
    unused = owned(network.model, shared=True)
    returned, writes = _first_output(network, theta, first)
    found = found_at(returned, lambda t: takes(network.loss, t, first.target))
    position: Position = Following(found) if isinstance(network.output, Following) else found
    network = replace(network, output=position, writes=renorms or writes)
    output = picked(returned, position, len(first)).detach()
    if len(more := network.batches[0].first(3)) > len(first):
        wider = picked(_first_output(network, theta, more)[0], position, len(more))
        if wider.shape[1:] != output.shape[1:]:  # for instance similarities of all pairs
            if not one_batch:
                raise UsageError(
                    f"expected every sample's output to depend on that sample alone, found shape {tuple(output.shape)} for "
                    f"two samples and {tuple(wider.shape)} for three",
                    fix=_WHOLE,
                )
            first = replace(network.batches[0], divisible=False)
            network = replace(network, batches=[first])
            output = picked(_first_output(network, theta, first)[0], position, len(first)).detach()
    _check_follows(network, unused, theta, first, output)
    network = replace(network, batches=[with_target(network.loss, b, output) for b in network.batches])
    classes = check_classes(network, output)
    check_loss(network, output, network.batches[0].first(len(first)).target, loss, model)
    return weighted(network, theta), classes


def weighted(network: Pass, theta: Tensor) -> Pass:
    """Set every sample's weight in the mean; if the loss is not a mean over samples, merge all samples into one batch."""
    loss = network.loss
    if loss.known:
        return replace(network, batches=[replace(b, weights=loss.sample_weights(b.target)) for b in network.batches])
    whole = all(b.divisible for b in network.batches)
    with values():
        params = network.tensors(theta)
        result = structure(loss.loss, ((network.forward(params, b).detach(), b.target) for b in network.batches))
    network = replace(network, loss=MeanLoss(loss.loss, result))
    if result.apart and result.weights is not None and whole:
        plain = all(bool((w == 1).all()) for w in result.weights)
        pairs = zip(network.batches, result.weights, strict=True)
        return replace(network, batches=[replace(b, weights=None if plain else w) for b, w in pairs])
    together = merged([replace(b, weights=None) for b in network.batches]) if len(network.batches) > 1 else network.batches[0]
    if together is None:
        raise UsageError(
            "expected a loss that is a mean over samples, found one that needs all samples at once, in batches that do not "
            "fit together",
            fix="give inputs, outputs and targets of one shape, a single batch, or one of PyTorch's losses",
        )
    return replace(network, batches=[together])


def check_values(network: Pass, theta: Tensor, one_batch: bool) -> Pass:
    """Check that outputs repeat bit by bit, and that a sample's output does not depend on the others in its batch.

    Data that the caller gave as a single batch may mix their samples.

    Returns:
        The forward pass; its batch is marked as not divisible if its samples are mixed.

    Raises:
        NumericalError: a check failed; the message names the module if it is known.

    Cost: four forward passes of 8 samples, or of two with outputs of many bytes.
    """
    batch = counted(network.batches, _SAMPLES)
    params = network.tensors(theta)
    first, seen = _traced(network, params, batch)
    if batch.divisible and len(batch) > 2 and first.nbytes > _LARGE:
        batch = counted(network.batches, 2)
        first, seen = _traced(network, params, batch)
    second, again = _traced(network, params, batch)
    if not torch.equal(first, second):
        culprit = next((name for name in seen if not torch.equal(seen[name], again[name])), type(network.model).__name__)
        raise NumericalError(
            f"expected the same output twice, found that the output of {culprit} varies from call to call",
            fix="turn off dropout, noise or sampling that ignores eval mode",
        )
    if len(batch) < 2 or not batch.divisible:
        return network
    middle = len(batch) // 2
    half, alone = _traced(network, params, batch[:middle])
    rest, _ = _traced(network, params, batch[middle:])
    backwards, _ = _traced(network, params, batch[torch.arange(len(batch) - 1, -1, -1, device=batch.target.device)])
    tolerance = 1e-4 if theta.dtype == torch.float32 else 1e-5  # a network may compute in float32 internally
    size = tolerance * float(first.abs().max() + 1e-30)
    if all(torch.allclose(t, first, tolerance, size, True) for t in (torch.cat((half, rest)), backwards.flip(0))):
        return network
    if one_batch:
        return replace(network, batches=[replace(b, divisible=False) for b in network.batches])

    def differs(name: str) -> bool:
        return name in seen and not torch.allclose(alone[name], seen[name][: len(alone[name])], rtol=1e-3, atol=1e-5)

    culprit = next((name for name in alone if differs(name)), type(network.model).__name__)
    raise NumericalError(
        f"expected every sample's output to depend on that sample alone, found that {culprit} mixes the batch",
        fix=f"BatchNorm needs running statistics (track_running_stats=True) and eval mode; {_WHOLE}",
    )


def check_finite(each: Mapping[str, Any], value: float) -> None:
    """Refuse a loss that is not finite at the trained weights; the message names the first such sample."""
    losses = np.asarray(each.get("loss", [value]))
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad) or not np.isfinite(value):
        found = f"{losses[bad[0]]:.4g} for sample {bad[0]}" if len(bad) and "loss" in each else f"{value:.4g}"
        raise NumericalError(
            f"expected a finite loss at the trained weights, found {found}",
            fix="check that sample and its preprocessing, and that the weights belong to this model",
        )


def _check_follows(network: ForwardPass, unused: nn.Module, theta: Tensor, batch: Batch, output: Tensor) -> None:
    """Refuse a network that caches values computed from its weights and reuses them at other weights.

    Some layers invert or merge weight matrices once, in eval mode. A copy that first ran at other weights then gives another
    output than one that did not.

    Args:
        network: its model has run at theta only.
        twin: a copy of that model that has not run.
        output: of the batch at theta.
    """
    if network.writes:
        return
    noise = torch.randn(len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(theta)
    other = replace(network, model=unused)
    held = {name: [id(t) for t in kept(m)] for name, m in unused.named_modules()}
    try:
        with values():
            other.forward(network.tensors(theta * (1 + 0.1 * noise)), batch)
            after = other.forward(network.tensors(theta), batch).detach()
            again = network.forward(network.tensors(theta), batch).detach()
    except Exception:  # at other weights a network need not run
        return
    if torch.equal(output, after) or not torch.equal(output, again) or not bool(after.isfinite().all()):
        return
    changed = (name for name, m in unused.named_modules() if held.get(name) != [id(t) for t in kept(m)])
    raise NumericalError(
        "expected outputs that follow the weights, found that "
        f"{next(changed, '') or type(network.model).__name__} reuses values that an earlier call computed from other weights",
        fix="turn its cache off, so that every call computes them",
    )


def _first_output(network: ForwardPass, theta: Tensor, batch: Batch) -> tuple[Any, bool]:
    """The network's return value for two samples, and whether its forward pass wrote to its weights or inputs."""
    given = {name: t.clone() for name, t in network.tensors(theta).items()}
    before = {name: t.clone() for name, t in given.items()}
    original = batch
    batch = original.map(Tensor.clone)
    try:
        with values():
            returned = called(network.model, given, batch)
    except UsageError:
        raise
    except Exception as error:  # whatever the user's own code raises on its own data
        if is_out_of_memory(error):
            raise
        first = str(error).partition("\n")[0]
        other = "float32" if theta.dtype == torch.float64 else "float64"
        fix = next((f for t in batch.args if isinstance(t, Tensor) and (f := channels_first(t.shape)) is not None), None)
        fix = fix or "check the shape and the preprocessing of the inputs"
        if inspect.isfunction(network.loss.loss) and isinstance(error, TypeError) and "argument" in first:
            named = " and ".join(inspect.signature(network.loss.loss).parameters)
            fix = f"the loss, with arguments {named}, was read as one of outputs and targets: {OF_MODEL} (see docs/losses.md)"
        if is_about_dtype(error) and "ouble" in first:
            fix += f"; if the network requires a dtype, pass dtype={other!r}"
        raise UsageError(f"expected a model that runs on its data, found {type(error).__name__}: {first}", fix=fix) from error
    wrote = not all(torch.equal(a, b) for a, b in zip(original.tensors, batch.tensors, strict=True))
    return returned, wrote or not all(torch.equal(before[name], t) for name, t in given.items())


def channels_first(shape: Sequence[int]) -> str | None:
    """What to do about images (N, height, width, channels), for PyTorch takes (N, channels, height, width); None for others.

    Example:
        >>> channels_first((64, 32, 32, 3)), channels_first((64, 3, 32, 32))
        ('channels come first: permute(0, 3, 1, 2) to (N, 3, 32, 32)', None)
    """
    if len(shape) != 4 or shape[3] not in _CHANNELS or shape[1] in _CHANNELS or shape[1] < shape[3]:
        return None
    return f"channels come first: permute(0, 3, 1, 2) to (N, {shape[3]}, {shape[1]}, {shape[2]})"


def _traced(network: ForwardPass, params: dict[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the first output of every innermost module by name."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor) and output.layout == torch.strided and not output.is_nested:
                seen.setdefault(name, output.detach().clone())

        return hook

    leaves = [(n, m) for n, m in network.model.named_modules() if n and not list(m.children())]
    handles = [m.register_forward_hook(keep(name)) for name, m in leaves]
    try:
        with values():
            return network.forward(params, batch, fold=False).detach(), seen
    finally:
        for handle in handles:
            handle.remove()
