"""Loss and accuracy at one point of weight space, in one pass, with their errors over samples."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.curvature import Engine, exact_math
from landscape.errors import UsageError
from landscape.inference import Network, network
from landscape.losses import joined, standard_error
from landscape.results import Estimate, Evaluation
from landscape.scores import losses_and_hits

Metric = Callable[[Tensor, Tensor], Tensor]


def evaluated(engine: Engine, params: dict[str, Tensor], metric: Metric | None, dtype: torch.dtype | None = None) -> Evaluation:
    """Loss and accuracy of `engine`'s network with these weights (and buffers) on its data.

    Args:
        engine: network, loss and batches.
        params: weights, and buffers that replace the network's own.
        metric: (output, target) -> (B,) value a sample; default accuracy, where the targets are class indices.
        dtype: that the network computes in; its output is brought back to the engine's for the loss. Default: the engine's.

    Returns:
        Evaluation. Each part has the standard error of a mean over samples (kind "samples"); an accuracy that is one yes or
        no a sample is a share (kind "proportion").

    Cost: one forward pass, and one wait for the device: every sample's loss and accuracy are fetched together at the end.

    Accuracy: sums over samples in float64; the way in which the network is run is that of `landscape.inference`.
    """
    found = network(engine, dtype)
    with exact_math(), torch.no_grad():
        rows = scored(engine, found, params, metric)
    return summary(engine, found, *fetched(rows))


def scored(
    engine: Engine, found: Network, params: dict[str, Tensor], metric: Metric | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Every sample's loss and score, and each batch's mean loss where the samples' own do not give it; on the device."""
    losses: list[Tensor | None] = []
    scores: list[Tensor | None] = []
    means: list[Tensor] = []
    ready = found.ready(engine, params)
    for batch in found.batches:
        output = found.output(engine, ready, batch)
        each, hits = losses_and_hits(engine.loss, output, batch.target)
        losses.append(None if each is None else each.double())
        scores.append(hits if metric is None else _own(metric, output, batch.target))
        if not engine.loss.comes_apart:
            means.append(engine.loss.mean(output, batch.target).double())
    return joined(losses), joined(scores), torch.stack(means) if means else None


def fetched(rows: tuple[Tensor | None, Tensor | None, Tensor | None]) -> list[np.ndarray | None]:
    """On the host, in one transfer."""
    known = [row for row in rows if row is not None]
    whole = torch.cat(known, -1).cpu().numpy()
    parts = iter(np.split(whole, np.cumsum([row.shape[-1] for row in known])[:-1], -1))
    return [None if row is None else next(parts) for row in rows]


def summary(
    engine: Engine,
    found: Network,
    each: Float[np.ndarray, " N"] | None,
    score: Float[np.ndarray, " N"] | None,
    means: Float[np.ndarray, " batches"] | None,
) -> Evaluation:
    """Means and errors from what every sample has."""
    w = found.weights
    with np.errstate(all="ignore"):  # an infinite loss has no error
        if means is not None:
            total = float((means * found.shares).sum())
        else:
            assert each is not None  # a loss that comes apart has every sample's
            total = float((w * each).sum() / w.sum())
        spread = None if each is None else standard_error(each, w, total)
        reason = None if spread is not None else "no standard error: the loss does not come apart by sample"
        loss = Estimate(total, spread, "samples", len(w), reason=reason)
        apart = {name: t for name, t in (("weight", w), ("loss", each), ("accuracy", score)) if t is not None}
        if score is None:
            return Evaluation(loss, None, apart)
        if math.isnan(total):
            return Evaluation(loss, Estimate(math.nan, None, "samples", len(w), reason="the loss is not a number"), apart)
        kept = ~np.isnan(score)
        values, shares = (score, w) if kept.all() else (score[kept], w[kept])
        mean = float((values * shares).sum() / shares.sum())
        # One yes or no a sample is a share; anything else (tokens, class weights, a user's metric) is a mean.
        hits = bool(((values == 0) | (values == 1)).all() and (shares == shares[:1]).all())
        error = standard_error(values, shares, mean)
    return Evaluation(loss, Estimate(mean, error, "proportion" if hits else "samples", len(values)), apart)


def _own(metric: Metric, output: Tensor, target: Tensor) -> Tensor:
    """The user's metric of every sample, float64."""
    value = torch.as_tensor(metric(output, target)).double()
    if value.shape != (len(target),):
        raise UsageError(
            f"expected one value a sample from the metric, found shape {tuple(value.shape)} for {len(target)} samples"
        )
    return value.to(output.device)
