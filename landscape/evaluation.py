"""Loss and accuracy at one point of weight space, in one pass, with their errors over samples."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from landscape.curvature import Engine, exact_math
from landscape.errors import UsageError
from landscape.losses import accuracy, joined, standard_error
from landscape.results import Estimate, Evaluation

Metric = Callable[[Tensor, Tensor], Tensor]


def evaluated(engine: Engine, params: dict[str, Tensor], metric: Metric | None) -> Evaluation:
    """Loss and accuracy of `engine`'s network with these weights (and buffers) on its data.

    Args:
        engine: network, loss and batches.
        params: weights, and buffers that replace the network's own.
        metric: (output, target) -> (B,) value a sample; default accuracy, where the targets are class indices.

    Returns:
        Evaluation. Each part has the standard error of a mean over samples (kind "samples"); an accuracy that is one yes or
        no a sample is a share (kind "proportion").

    Cost: one forward pass.
    """
    losses: list[Tensor | None] = []
    scores: list[Tensor | None] = []
    weights, total = [], 0.0
    with exact_math(), torch.no_grad():
        for batch, share in engine.weighted:
            output = engine.forward(params, batch)
            total += share * float(engine.loss.mean(output, batch.target))
            parts = engine.loss.per_sample(output, batch.target)
            losses.append(None if parts is None else parts.double())
            weights.append(engine.loss.sample_weights(batch.target))
            scores.append(_score(engine, metric, output, batch.target))
    w = torch.cat(weights)
    each = joined(losses)
    spread = None if each is None else standard_error(each, w, total)
    reason = None if spread is not None else "no standard error: the loss does not come apart by sample"
    loss = Estimate(total, spread, "samples", len(w), reason=reason)
    score = joined(scores)
    known = {"weight": w, "loss": each, "accuracy": score}
    apart = {name: t.cpu().numpy() for name, t in known.items() if t is not None}
    if score is None:
        return Evaluation(loss, None, apart)
    kept = ~score.isnan()
    mean = float((score[kept] * w[kept]).sum() / w[kept].sum())
    if math.isnan(total):
        return Evaluation(loss, Estimate(math.nan, None, "samples", len(w), reason="the loss is not a number"), apart)
    # One yes or no a sample is a share; anything else (tokens, class weights, a user's metric) is a mean.
    hits = bool(((score[kept] == 0) | (score[kept] == 1)).all() and (w[kept] == w[kept][0]).all())
    error = standard_error(score[kept], w[kept], mean)
    return Evaluation(loss, Estimate(mean, error, "proportion" if hits else "samples", int(kept.sum())), apart)


def _score(engine: Engine, metric: Metric | None, output: Tensor, target: Tensor) -> Tensor | None:
    """The metric of every sample, float64."""
    if metric is not None:
        value = torch.as_tensor(metric(output, target)).double()
        if value.shape != (len(target),):
            raise UsageError(
                f"expected one value a sample from the metric, found shape {tuple(value.shape)} for {len(target)} samples"
            )
        return value
    if target.is_floating_point() or output.ndim != target.ndim + 1:
        return None
    if output.shape[2:] == target.shape[1:]:
        return accuracy(output, target, engine.loss.ignore_index)
    # Classes on the last axis, as a language model's own loss may have them; anything else has no accuracy that we know.
    return accuracy(output.movedim(-1, 1), target, engine.loss.ignore_index) if output.shape[:-1] == target.shape else None
