"""Curvature sample by sample: v^T A_n v of every sample n, whose spread is the doubt from having only these data."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.curvature.engine import Engine
from landscape.curvature.reverse_mode import dot, grad, pusher, vjp

Curvature = Literal["hessian", "ggn", "fisher"]


def sample_curvatures(engine: Engine, theta: Float[Tensor, " P"], v: Float[Tensor, " P"]) -> Float[Tensor, " N"] | None:
    """v^T H_n v of every sample; None where the loss does not come apart. Cost: about 20 passes.

    v^T H(w) v of the loss sum_n w_n loss_n is linear in the weights w of the samples, so that its gradient there has
    every sample's own value. Forward over forward would be cheaper, but is silently wrong for LayerNorm (torch 2.13).
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
    """v^T G_n v of every sample; None where the loss does not come apart. Cost: about 10 forward passes."""
    parts = []
    direction = engine.layout.unflatten(v)
    with engine.derivatives(theta):
        for batch in engine.batches:
            leaves = engine.leaves(theta)
            output = engine.forward(leaves, batch)
            pushed = pusher(output, leaves)(direction)
            weights = batch.sample_weights
            if not engine.loss.comes_apart:
                return None
            forms = (pushed * engine.loss_curvature(output, batch)(pushed)).reshape(len(batch), -1).double().sum(1)
            # The curvature is of the batch's mean: a sample's own is that, times the sum of weights, over its weight.
            parts.append(forms * weights.sum() / torch.where(weights > 0, weights, 1))
    return torch.cat(parts)


def sample_fisher(engine: Engine, theta: Float[Tensor, " P"], v: Float[Tensor, " P"]) -> Float[Tensor, " N"]:
    """(g_n . v)^2 of every sample. Cost: about 9 forward passes."""
    parts = []
    direction = engine.layout.unflatten(v)
    with engine.derivatives(theta):
        for batch in engine.batches:
            leaves = engine.leaves(theta)
            losses = engine.per_sample(leaves, batch)
            parts.append(pusher(losses, leaves)(direction).double().square())
    return torch.cat(parts)


# By matrix: how it comes apart, and the forward passes that this is worth.
SAMPLE_FORMS: dict[str, tuple[Callable[[Engine, Tensor, Tensor], Tensor | None], int]] = {
    "hessian": (sample_curvatures, 20),
    "ggn": (sample_gauss_newton, 10),
    "fisher": (sample_fisher, 9),
}
