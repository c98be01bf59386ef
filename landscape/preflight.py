"""Checks made once before an Objective is believed: determinism, independence of samples, symmetry, and one finite difference.

They run on at most 8 samples in float64, where rounding and the kinks of rectifiers cannot hide a mistake, and fall back to
the Objective's own dtype for a network that insists on it.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from landscape.batches import Batch
from landscape.curvature import Engine, exact_math
from landscape.distributed import ALONE
from landscape.errors import NumericalError, UsageError
from landscape.losses import MeanLoss
from landscape.parameters import Layout

SAMPLES = 8
# From few kinks of a rectifier to hardly any; at the last, rounding in float64 is about to take over.
_STEPS = (1e-6, 1e-7, 1e-8, 1e-9)


def check_weights(layout: Layout, theta: Tensor) -> None:
    """Refuse weights that are not finite, and name the parameter."""
    if not bool(torch.isfinite(theta).all()):
        bad = next(e.name for e in layout if not bool(torch.isfinite(theta[e.start : e.stop]).all()))
        raise NumericalError(
            f"expected finite weights, found NaN or infinity in {bad}", fix="use a checkpoint that did not diverge"
        )


def check_targets(engine: Engine, theta: Tensor) -> int | None:
    """Two samples through the network: it runs, and every class index has an output.

    Returns:
        The number of classes, where the targets are class indices for certain.

    Raises:
        UsageError: the model does not run on the data, or a label is out of range.
        NumericalError: the loss at the trained weights is not finite.
    """
    try:
        with exact_math(), torch.no_grad():
            output = engine.forward(engine.layout.unflatten(theta), engine.batches[0][:2])
    except UsageError:
        raise
    except Exception as error:  # whatever the user's own code raises on its own data
        first = str(error).partition("\n")[0]
        raise UsageError(
            f"expected a model that runs on its data, found {type(error).__name__}: {first}",
            fix="check the shape and the preprocessing of the inputs",
        ) from error
    _check_loss(engine.loss, output, engine.batches[0].target[:2])
    if not engine.loss.takes_classes or any(b.target.is_floating_point() for b in engine.batches):
        return None
    for i, batch in enumerate(engine.batches):
        counted = batch.target[batch.target != engine.loss.ignore_index]
        if len(counted) and not 0 <= int(counted.min()) <= int(counted.max()) < output.shape[1]:
            wrong = int(counted.min()) if int(counted.min()) < 0 else int(counted.max())
            raise UsageError(
                f"expected labels from 0 to {output.shape[1] - 1}, found {wrong} in batch {i}",
                fix="give the model as many classes as the data have",
            )
    return int(output.shape[1])


def _check_loss(loss: MeanLoss, output: Tensor, target: Tensor) -> None:
    """Refuse a loss that would broadcast its arguments, or that adds samples up instead of averaging them."""
    if loss.compares_elements and output.shape != target.shape:
        raise UsageError(
            f"expected targets of the output's shape (N, {', '.join(map(str, output.shape[1:]))}), "
            f"found (N, {', '.join(map(str, target.shape[1:]))})",
            fix="the loss would broadcast them: reshape the targets",
        )
    if len(output) < 2 or loss.comes_apart:
        return
    whole, first, second = (float(loss.mean(output[rows], target[rows])) for rows in (slice(2), slice(1), slice(1, 2)))
    if abs(whole - (first + second)) < 1e-4 * abs(whole) and abs(whole - (first + second) / 2) > 1e-3 * abs(whole):
        raise UsageError(
            f"expected a loss that averages over samples, found {whole:.4g} for two that have {first:.4g} and {second:.4g}",
            fix="divide by the number of samples",
        )


def check_engine(engine: Engine) -> None:
    """All checks of the module's docstring.

    Raises:
        NumericalError: what failed, with the module where it can be told.
    """
    own = replace(engine, batches=[engine.batches[0][:SAMPLES]], group=ALONE)
    double = own.to(torch.float64)
    try:
        _check(double, exact=True)
    except (RuntimeError, TypeError) as error:
        if not is_about_dtype(error):
            raise NumericalError(
                f"expected a network that can be differentiated twice, found: {str(error).splitlines()[0]}",
                fix="an operation inside it has no second derivative, or writes in place on what the derivative needs",
            ) from error
        _check(own, exact=False)


def is_about_dtype(error: Exception) -> bool:
    """Whether a network that was converted to float64 complains that it insists on another dtype."""
    return any(word in str(error) for word in ("dtype", "Float", "Double", "scalar type"))


def _check(engine: Engine, exact: bool) -> None:
    batch = engine.batches[0]
    probe = Engine(engine.model, engine.loss, [batch], engine.layout)
    _check_forward(probe, batch, 1e-9 if exact else 1e-4)
    theta = probe.layout.flatten(dict(engine.model.named_parameters()))
    if not float(probe.loss.sample_weights(batch.target).sum()) > 0:
        return  # the first samples are all ignored by the loss: nothing to differentiate in them
    value, gradient = probe.gradient(theta)
    if not (torch.isfinite(gradient).all() and abs(value) < float("inf")):
        raise NumericalError(
            f"expected a finite loss and gradient at the trained weights, found loss {value:.4g}",
            fix="check the preprocessing and that the weights belong to this model",
        )
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, probe.layout.size, generator=generator, dtype=torch.float64).to(theta)
    hu, hv = probe.hvp(theta, torch.stack((u, v)))
    scale = float((hu.norm() * v.norm() + hv.norm() * u.norm()).double()) + 1e-30
    skew = abs(float(u @ hv) - float(v @ hu)) / scale
    if not math.isfinite(skew):
        raise NumericalError(
            "expected finite Hessian-vector products, found that they overflow",
            fix="the weights or the inputs are far from the usual scale; rescale them",
        )
    if not skew < (1e-9 if exact else 1e-4):
        raise NumericalError(
            f"expected a symmetric Hessian, found |u.Hv - v.Hu| = {skew:.1e} of its scale",
            fix="a custom backward in the network or the loss is wrong",
        )
    if exact:
        _check_difference(probe, theta, gradient, v)


def _check_difference(probe: Engine, theta: Tensor, gradient: Tensor, v: Tensor) -> None:
    """Hv against central differences of gradients.

    Steps in proportion to each weight (or, where it is zero, to its tensor's size) mean the same at every point of a scaling
    symmetry. A rectifier's kink between two points spoils their difference; a wrong second derivative spoils it at every step.
    """
    named = probe.layout.unflatten(theta)
    size = probe.layout.flatten({n: p.abs() + 1e-3 * p.square().mean().sqrt() for n, p in named.items()})
    w = size * v
    product = size * probe.hvp(theta, w[None])[0]
    scale = float(product.norm() + 1e-6 * (size * gradient).norm() + 1e-12)
    errors = []
    for step in _STEPS:
        difference = size * (probe.gradient(theta + step * w)[1] - probe.gradient(theta - step * w)[1]) / (2 * step)
        errors.append(float((difference - product).norm()) / scale)
        if errors[-1] < 0.05:
            return
    raise NumericalError(
        f"expected Hv to agree with a finite difference of gradients, found them {min(errors):.0%} apart",
        fix="an operation in the network or the loss has a wrong or missing second derivative",
    )


def _check_forward(probe: Engine, batch: Batch, tolerance: float) -> None:
    """The same outputs twice, to the bit; and a sample's output must not depend on its neighbours."""
    params: dict[str, Tensor] = dict(probe.model.named_parameters())
    first, seen = _traced(probe, params, batch)
    second, again = _traced(probe, params, batch)
    if not torch.equal(first, second):
        culprit = next((name for name in seen if not torch.equal(seen[name], again[name])), type(probe.model).__name__)
        raise NumericalError(
            f"expected the same output twice, found that {culprit} gives another one at each call",
            fix="turn off dropout, noise or sampling that ignores eval mode",
        )
    if len(batch) > 1:
        half, alone = _traced(probe, params, batch[: len(batch) // 2])
        whole = first[: len(half)]
        if not torch.allclose(half, whole, rtol=tolerance, atol=tolerance * float(whole.abs().max() + 1e-30), equal_nan=True):
            culprit = next(
                (
                    n
                    for n in alone
                    if n in seen and not torch.allclose(alone[n], seen[n][: len(alone[n])], rtol=1e-3, atol=1e-5)
                ),
                type(probe.model).__name__,
            )
            raise NumericalError(
                f"expected every sample's output to depend on that sample alone, found that {culprit} mixes the batch",
                fix="BatchNorm needs running statistics (track_running_stats=True) and eval mode",
            )


def _traced(probe: Engine, params: dict[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Output, and the first output of every innermost module, by name."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor):
                seen.setdefault(name, output.detach().clone())

        return hook

    leaves = [(n, m) for n, m in probe.model.named_modules() if n and not list(m.children())]
    handles = [m.register_forward_hook(keep(name)) for name, m in leaves]
    try:
        with exact_math(), torch.no_grad():
            return probe.forward(params, batch), seen
    finally:
        for handle in handles:
            handle.remove()
