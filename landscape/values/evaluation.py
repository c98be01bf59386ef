"""Loss and accuracy at one point of weight space, in one pass, with their standard errors over samples."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError
from landscape.machine.arithmetic import values
from landscape.network.forward import ForwardPass
from landscape.network.losses.mean_loss import joined, means_and_errors
from landscape.results import Estimate, Evaluation, Sampling
from landscape.results.estimate import Kind
from landscape.values.inference import InferenceNetwork, inference_network
from landscape.values.scores import losses_and_hits

Metric = Callable[[Tensor, Tensor], Tensor]


def evaluated(
    network: ForwardPass, params: dict[str, Tensor], metric: Metric | None, dtype: torch.dtype | None = None
) -> Evaluation:
    """Loss and accuracy of a network at these weights (and buffers) on its data.

    Args:
        network: the model with its loss and data.
        params: weights, and buffers that replace the network's own.
        metric: (output, target) -> (B,) value for each sample; default: accuracy if the targets are class indices.
        dtype: dtype of the network's computation; its output is converted back before the loss. Default: its own.

    Returns:
        Evaluation. Each part has the standard error of a mean over samples (kind "samples"); an accuracy that is right or
        wrong for each sample is a proportion (kind "proportion").

    Cost: one forward pass, and one wait for the device: all samples' losses and accuracies are fetched together at the end.

    Accuracy: sums over samples in float64; `landscape.values.inference` describes how the network is run.
    """
    prepared = inference_network(network, dtype)
    with values():
        rows = scored(network, prepared, params, metric)
    return summaries(prepared, *(None if row is None else row[None] for row in fetched(rows)))[0]


def sample_losses(network: ForwardPass, params: dict[str, Tensor], dtype: torch.dtype | None = None) -> Tensor | None:
    """The loss of every sample, (N,) float64 on the network's device; None if the loss does not come apart by sample.

    Cost: one forward pass. The same numbers as `evaluated`, without means, scores and errors.
    """
    prepared = inference_network(network, dtype)
    with values():
        each = scored(network, prepared, params, None)[0]
    return None if each is None else each.clone()  # a tensor that autograd may save


def scored(
    network: ForwardPass, prepared: InferenceNetwork, params: dict[str, Tensor], metric: Metric | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Every sample's loss and score, and each batch's mean loss if the samples do not determine it; on the device."""
    losses: list[Tensor | None] = []
    scores: list[Tensor | None] = []
    means: list[Tensor] = []
    ready = prepared.ready(network, params)
    for batch in prepared.batches:
        output = prepared.output(network, ready, batch)
        each, hits = losses_and_hits(network.loss, output, batch)
        losses.append(None if each is None else each.double())
        scores.append(hits if metric is None else _own(metric, output, batch.target))
        if not network.loss.comes_apart:
            means.append(network.loss.mean(output, batch.target).double())
    return joined(losses), joined(scores), torch.stack(means) if means else None


def fetched(rows: tuple[Tensor | None, Tensor | None, Tensor | None]) -> list[np.ndarray | None]:
    """Copy rows to the host in one transfer."""
    known = [row for row in rows if row is not None]
    whole = torch.cat(known, -1).cpu().numpy()
    parts = iter(np.split(whole, np.cumsum([row.shape[-1] for row in known])[:-1], -1))
    return [None if row is None else next(parts) for row in rows]


def summaries(
    prepared: InferenceNetwork,
    each: Float[np.ndarray, "k N"] | None,
    score: Float[np.ndarray, "k N"] | None,
    means: Float[np.ndarray, "k batches"] | None,
) -> list[Evaluation]:
    """Means and standard errors at k points from the values of all samples."""
    w = prepared.weights
    n = len(w)
    totals, spreads = (None, None) if each is None else means_and_errors(each, w)
    if means is not None:
        totals = (means * prepared.shares).sum(1)
    assert totals is not None  # a loss that is a mean over samples has each; any other has means
    reason = None
    if spreads is None or n < 2:
        reason = f"no standard error: {'of a single sample' if n < 2 else 'the loss does not come apart by sample'}"
    scores = [None] * len(totals) if score is None else _scores(score, w, np.isnan(totals))
    out = []
    for i, total in enumerate(totals.tolist()):
        spread = None if spreads is None or n < 2 else float(spreads[i])
        rows = (("weight", w), ("loss", None if each is None else each[i]), ("accuracy", None if score is None else score[i]))
        # For a single point only: for the many points of a surface it would take longer than evaluating a small network.
        sampling = Sampling.of(each, w) if each is not None and len(totals) == 1 else None
        loss = Estimate(total, spread, "samples", n, reason=reason, sampling=sampling)
        out.append(Evaluation(loss, scores[i], {name: t for name, t in rows if t is not None}))
    return out


def _scores(score: Float[np.ndarray, "k N"], w: Float[np.ndarray, " N"], lost: np.ndarray) -> list[Estimate | None]:
    """Score at every point; samples without a score do not count, and a point whose loss is nan has none."""
    counted = ~np.isnan(score)
    means, errors = means_and_errors(score, w, counted)
    n = counted.sum(1)
    # One right or wrong for each sample is a proportion, whose n is the effective sample size of the weights. Anything else
    # (tokens, a user's metric) is a mean.
    hits = ((score == 0) | (score == 1) | ~counted).all(1)
    weighed = np.where(counted, w, 0.0)
    worth = np.where(hits, weighed.sum(1) ** 2 / np.maximum((weighed**2).sum(1), 1e-300), n).round().astype(int)
    means = np.where(hits, np.clip(means, 0.0, 1.0), means)
    out: list[Estimate | None] = []
    for i in range(len(score)):
        if lost[i]:
            out.append(Estimate(math.nan, None, "samples", len(w), reason="the loss is not a number"))
        else:
            error = float(errors[i]) if n[i] > 1 else None
            sampling = None
            if len(score) == 1 and not hits[i]:
                row = score[i][counted[i]]
                inside = bool(((row >= 0) & (row <= 1)).all())
                sampling = Sampling.of(row[None], w[counted[i]], ceiling=1.0 if inside else None)
            kind: Kind = "proportion" if hits[i] else "samples"
            out.append(Estimate(float(means[i]), error, kind, int(worth[i]), sampling=sampling))
    return out


def _own(metric: Metric, output: Tensor, target: Tensor) -> Tensor:
    """The user's metric for every sample, float64."""
    value = torch.as_tensor(metric(output, target)).double()
    if value.shape != (len(target),):
        raise UsageError(
            f"expected one value for each sample from the metric, found shape {tuple(value.shape)} for {len(target)} samples"
        )
    return value.to(output.device)
