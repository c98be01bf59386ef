"""Curvature sample by sample: v^T A_n v for every sample n, whose spread gives the sampling error of v^T A v."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp
from torch.nn.modules.conv import _ConvNd

from landscape.curvature.engine import Engine
from landscape.curvature.reverse_mode import dot, grad, pusher, vjp
from landscape.machine.dispatch_mode import DispatchMode
from landscape.network.batches import Batch, counted

# Relative difference of the samples' forms by forward and by reverse mode, at most, along a direction drawn at random: rounding
# makes some 10^-6 in float32, an operation with a wrong rule some 10^-2.
_AGREE = {torch.float32: 1e-4, torch.float64: 1e-9}

Curvature = Literal["hessian", "ggn", "fisher"]


def sample_curvatures(engine: Engine, theta: Float[Tensor, " P"], v: Float[Tensor, " P"]) -> Float[Tensor, " N"] | None:
    """v^T H_n v for every sample; None if the loss is not a mean over samples. Cost: about 20 passes.

    v^T H(w) v of the loss sum_n w_n loss_n is linear in the sample weights w, so its gradient in w holds the value of every
    sample. `pushed_curvatures` is cheaper for convolutions.
    """
    parts = []
    direction = engine.layout.unflatten(v)
    with engine.derivatives(theta):
        for batch in engine.batches:
            leaves = engine.leaves(theta)
            losses = engine.loss.per_sample(engine.forward(leaves, batch), batch.target, batch.weights)
            if losses is None:
                return None
            w = torch.ones_like(losses, requires_grad=True)
            slope = dot(grad((w * losses).sum(), leaves, create_graph=True), direction)
            if slope.requires_grad:
                slope = dot(vjp({"slope": slope}, leaves, {"slope": torch.ones_like(slope)}, create_graph=True), direction)
            parts.append(vjp({"bend": slope}, {"w": w}, {"bend": torch.ones_like(slope)})["w"].double())
    return torch.cat(parts)


def pushed_curvatures(engine: Engine, theta: Float[Tensor, " P"], v: Float[Tensor, " P"]) -> Float[Tensor, " N"] | None:
    """As `sample_curvatures`, by forward over forward mode, without a graph. Cost: about 9 passes.

    It is silently wrong for LayerNorm (torch 2.13): only for networks that `pushes` allows.
    """
    if not engine.loss.comes_apart:
        return None
    parts = []
    direction = engine.layout.unflatten(v)
    with engine.derivatives(theta), torch.no_grad():
        params = engine.tensors(theta)
        for batch in engine.batches:
            laid = engine.method.laid_out(batch)

            def losses(p: dict[str, Tensor], b: Batch = laid) -> Tensor:
                return engine.per_sample(p, b)

            def slopes(p: dict[str, Tensor], of: Callable[[dict[str, Tensor]], Tensor] = losses) -> Tensor:
                return jvp(of, (p,), (direction,))[1]

            parts.append(jvp(slopes, (params,), (direction,))[1].double())
    return torch.cat(parts)


class _Seen(DispatchMode):
    """The operations that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[object] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and note it."""
        self.operations.add(func.overloadpacket)
        return func(*args, **(kwargs or {}))


# Operations whose second derivatives by forward mode are silently wrong (torch 2.13).
_WRONG = {torch.ops.aten.native_layer_norm}

_PUSHES: WeakKeyDictionary[Engine, bool] = WeakKeyDictionary()


def pushes(engine: Engine, theta: Float[Tensor, " P"]) -> bool:
    """Whether `pushed_curvatures` suits this network: it convolves, has no LayerNorm, and few samples agree with reverse mode.

    LayerNorm is looked for, since a layer scale of 1e-6 behind it, as in ConvNeXt, hides from the comparison what it does to
    the curvature of the weights before it.

    Cost: 30 passes of a few samples, once for a network on its data.
    """
    if engine not in _PUSHES:
        _PUSHES[engine] = any(isinstance(m, _ConvNd) for m in engine.model.modules()) and _agree(engine, theta)
    return _PUSHES[engine]


def _agree(engine: Engine, theta: Tensor) -> bool:
    if not engine.divisible or engine.writes:
        return False
    few = replace(engine, batches=[counted(engine.batches, engine.few)])
    random = torch.Generator().manual_seed(0)
    v = (torch.randn(len(theta), generator=random, dtype=torch.float64).to(theta) * theta.abs()).contiguous()
    try:
        with engine.derivatives(theta), torch.no_grad(), _Seen() as seen:
            engine.per_sample(engine.tensors(theta), few.batches[0])
        if _WRONG & seen.operations:
            return False
        pushed, exact = pushed_curvatures(few, theta, v), sample_curvatures(few, theta, v)
    except Exception:  # an operation without a forward mode, or the user's own code, which may raise anything
        return False
    if pushed is None or exact is None:
        return False
    return bool((pushed - exact).abs().max() <= _AGREE[theta.dtype] * exact.abs().max())


def sample_gauss_newton(engine: Engine, theta: Float[Tensor, " P"], v: Float[Tensor, " P"]) -> Float[Tensor, " N"] | None:
    """v^T G_n v for every sample; None if the loss is not a mean over samples. Cost: about 10 forward passes."""
    if not engine.loss.comes_apart:
        return None
    parts = []
    direction = engine.layout.unflatten(v)
    with engine.derivatives(theta):
        for batch in engine.batches:
            leaves = engine.leaves(theta)
            output = engine.forward(leaves, batch)
            pushed = pusher(output, leaves)(direction)
            weights = batch.sample_weights
            forms = (pushed * engine.loss_curvature(output, batch)(pushed)).reshape(len(batch), -1).double().sum(1)
            # The curvature is that of the batch's mean; a sample's own is that times the sum of weights, divided by its weight.
            parts.append(forms * weights.sum() / torch.where(weights > 0, weights, 1))
    return torch.cat(parts)


def sample_fisher(engine: Engine, theta: Float[Tensor, " P"], v: Float[Tensor, " P"]) -> Float[Tensor, " N"]:
    """(g_n . v)^2 for every sample. Cost: about 9 forward passes."""
    parts = []
    direction = engine.layout.unflatten(v)
    with engine.derivatives(theta):
        for batch in engine.batches:
            leaves = engine.leaves(theta)
            losses = engine.per_sample(leaves, batch)
            parts.append(pusher(losses, leaves)(direction).double().square())
    return torch.cat(parts)


def sample_output_forms(
    engine: Engine, theta: Float[Tensor, " P"], directions: Callable[[Tensor], Iterable[Tensor]]
) -> Float[Tensor, " N"] | None:
    """sum_z z^T A_n z for every sample n, A_n = d2 loss_n / d output_n^2; None if the loss is not a mean over samples.

    `directions` gives the z for a batch's outputs, in their shape: a direction for every sample, since A has a block for each.
    The network is not differentiated. Cost: one forward pass, and a second derivative of the loss alone for each z.
    """
    parts = []
    with engine.derivatives(theta):
        for batch in engine.batches:
            with torch.no_grad():
                output = engine.forward(engine.tensors(theta), batch)
            point = output.detach().requires_grad_()
            losses = engine.loss.per_sample(point, batch.target, batch.weights)
            if losses is None:
                return None
            slope = grad(losses.sum(), {"output": point}, create_graph=True)
            total = torch.zeros(len(point), dtype=torch.float64, device=point.device)
            for z in directions(output):
                bent = vjp(slope, {"output": point}, {"output": z})["output"]
                total += (bent.double() * z.double()).reshape(len(z), -1).sum(1)
            parts.append(total)
    return torch.cat(parts)


def sample_forms(
    engine: Engine, theta: Float[Tensor, " P"], curvature: Curvature
) -> list[tuple[Callable[[Engine, Tensor, Tensor], Tensor | None], int]]:
    """Functions for the samples' forms of a matrix, the fastest first, and their cost in forward passes."""
    fast = curvature == "hessian" and pushes(engine, theta)
    return [(pushed_curvatures, 9)] * fast + [SAMPLE_FORMS[curvature]]


# For each matrix, the function for its samples, and the cost in forward passes.
SAMPLE_FORMS: dict[str, tuple[Callable[[Engine, Tensor, Tensor], Tensor | None], int]] = {
    "hessian": (sample_curvatures, 20),
    "ggn": (sample_gauss_newton, 10),
    "fisher": (sample_fisher, 9),
}
