"""Curvature sample by sample: v^T A_n v for every sample n, whose spread gives the sampling error of v^T A v."""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.curvature.engine import Engine
from landscape.curvature.reverse_mode import dot, grad, pusher, vjp

Curvature = Literal["hessian", "ggn", "fisher"]


def sample_curvatures(engine: Engine, theta: Float[Tensor, " P"], v: Float[Tensor, " P"]) -> Float[Tensor, " N"] | None:
    """v^T H_n v for every sample; None if the loss is not a mean over samples. Cost: about 20 passes.

    v^T H(w) v of the loss sum_n w_n loss_n is linear in the sample weights w, so its gradient in w holds the value of every
    sample. Forward over forward would be cheaper, but is silently wrong for LayerNorm (torch 2.13).
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


# For each matrix, the function for its samples, and the cost in forward passes.
SAMPLE_FORMS: dict[str, tuple[Callable[[Engine, Tensor, Tensor], Tensor | None], int]] = {
    "hessian": (sample_curvatures, 20),
    "ggn": (sample_gauss_newton, 10),
    "fisher": (sample_fisher, 9),
}
