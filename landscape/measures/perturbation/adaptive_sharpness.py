"""Adaptive sharpness, average and worst case: every weight is perturbed in proportion to its size."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from landscape import linalg
from landscape.errors import UsageError
from landscape.linalg.probes import default_generator
from landscape.machine import progress
from landscape.measures.perturbation.worst_case import ROUGH, Norm, check_radius, growth, growth_work, largest_growth
from landscape.measures.registry import ELEMENTWISE, NotDefined, measure, variant
from landscape.objective import Objective
from landscape.results import Estimate, Sampling, Spent

_REFERENCE = "Andriushchenko et al. 2023, arXiv:2302.07011"

_normalized: WeakKeyDictionary[Objective, Objective] = WeakKeyDictionary()


def normalized_logits(logits: Tensor) -> Tensor:
    """(logits - mean) / standard deviation, both over the classes; 0 if all logits are equal."""
    centred = logits - logits.mean(1, keepdim=True)
    spread = centred.square().mean(1, keepdim=True)
    flat = spread == 0
    return torch.where(flat, torch.zeros_like(centred), centred / torch.where(flat, torch.ones_like(spread), spread).sqrt())


def adaptive_average(
    objective: Objective,
    *,
    rho: float = 0.1,
    pairs: int = 64,
    norm: Norm = "l2",
    normalized: bool = False,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Average-case adaptive sharpness: E L(w + rho |w| z) - L(w), with z standard normal (l2) or uniform on [-1, 1] (linf).

    To second order it is rho^2 / 2 times the adaptive trace (a third of that for uniform noise). Each draw z is paired with -z,
    so that the first-order term cancels. There is no m-sharpness variant: the average over batches equals the average over
    all samples.

    Args:
        objective: the network on its data.
        rho: size of the noise relative to the weights; 0.1 in the published code.
        pairs: number of independent draws, each used with both signs; at least 2.
        norm: "l2" for normal noise, "linf" for uniform noise.
        normalized: use the loss of normalized logits, which is also invariant to the scale of the last layer. It needs three
            classes: for two, normalized logits are (1, -1) or (-1, 1), and the loss is a step function.
        generator: generator of the noise; default seed 0.

    Returns:
        Kind "t" over the pairs, unit of the loss; `data_stderr` is the sampling error.

    Raises:
        UsageError: rho is not positive and finite, or fewer than 2 pairs.
        NotDefined: `normalized`, and the outputs are not the logits of at least three classes.

    Cost: two forward passes per pair.

    Accuracy: if few directions dominate, the growth is skewed over draws and Student's interval is slightly too narrow: it
    covers 92 % on a quadratic of eight weights (`tests/measures/test_worst_case.py`), and closer to 95 % for more weights.

    Reference: Andriushchenko et al. 2023, arXiv:2302.07011. Deviations: paired draws; logits are normalized by their standard
    deviation over the classes as in the paper, while its code divides by their norm.

    Example:
        L = (w x)^2 with w = 2, x = 1: E (2 + 0.1 * 2 z)^2 - 4 = 0.04, and for z uniform a third of that.
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(net.weight, 2.0)
        >>> objective = Objective(net, nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)), dtype="float64")
        >>> found = adaptive_average(objective, pairs=1000)
        >>> abs(found.value - 0.04) < 3 * found.stderr
        True
    """
    check_radius(rho)
    if pairs < 2:
        raise UsageError(f"expected at least 2 pairs of draws, found {pairs}", fix="an interval needs two")
    objective = _of_normalized_logits(objective) if normalized else objective
    random = default_generator(generator)
    theta = objective.theta
    scale = rho * theta.abs()
    before = objective.losses()
    centre = objective.value().value if before is None else 0.0  # only used if the loss is not a mean over samples
    growths, each = np.empty(pairs), torch.zeros_like(before) if before is not None else None
    shares = objective.sample_weights / objective.sample_weights.sum()
    with progress.stage("adaptive average", 2 * pairs) as advance:
        for i in range(pairs):
            z = torch.randn(objective.dim, generator=random) if norm == "l2" else _uniform(objective.dim, random)
            step = scale * z.to(theta)
            total = 0.0
            for point in (theta + step, theta - step):
                if before is None or each is None:
                    total += (objective.value(point).value - centre) / 2
                    continue
                after = objective.losses(point)
                assert after is not None  # the loss was a mean over samples at the centre
                each += (after - before) / (2 * pairs)
                total += float((shares * (after - before)).sum()) / 2
            growths[i] = total
            advance(2)
    if not np.isfinite(growths).all():
        lost = int((~np.isfinite(growths)).sum())
        return Estimate(math.inf, None, "t", pairs, reason=f"the loss overflows for {lost} of {pairs} draws")
    estimate = linalg.mean_estimate(growths)
    if each is None:
        return estimate
    sampling = Sampling.of(each[None].cpu().numpy(), objective.sample_weights.cpu().numpy())
    return replace(estimate, data_stderr=None if sampling is None else sampling.stderr, sampling=sampling)


def adaptive_worst(
    objective: Objective,
    *,
    rho: float = 0.5,
    m: int | None = None,
    steps: int = 20,
    restarts: int = 1,
    norm: Norm = "l2",
    normalized: bool = False,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Worst-case adaptive sharpness on all samples at once: max over ||d / |w| ||_p <= rho of L(w + d) - L(w).

    The maximum is searched by APGD as published, by the search of `sam` or `sam_linf`, and by quasi-Newton steps from the best
    point of both.

    Args:
        objective: the network on its data.
        rho: radius relative to the weights.
        m: samples per batch, for the mean of the maxima of batches, see `adaptive_worst_m`; None for one maximum over all.
        steps: steps of APGD from every start.
        restarts: random starts, in addition to the centre and both signs of the top eigenvector of diag(|w|) H diag(|w|).
        norm: "l2" or "linf".
        normalized: use the loss of normalized logits.
        generator: generator of the random starts; default seed 0.

    Returns:
        Kind "lower bound", unit of the loss: the best point of all runs; `data_stderr` is the sampling error there.

    Raises:
        UsageError: rho is not positive and finite.
        NotDefined: `normalized`, and the outputs are not the logits of at least three classes.

    Cost: (3 + restarts) * (steps + 1) gradients for APGD and 20 to 80 for the other methods.

    Accuracy: a non-convex maximisation; the true value is at least this. Do not compare a full-batch maximum with
    `adaptive_worst_m`: a mean of maxima over batches is larger than the maximum of the mean.

    Reference: Andriushchenko et al. 2023, arXiv:2302.07011; Croce and Hein 2020, arXiv:2003.01690 (APGD). Deviation: steps and
    projections are in units of |w|, in which the region is a ball. Euclidean projections onto the ellipsoid would change
    under a rescaling.
    """
    objective = _of_normalized_logits(objective) if normalized else objective
    scale = objective.theta.abs()
    if m is not None:
        return _mean_of_maxima(objective.chunks(m), rho, norm, scale, generator, m, restarts=restarts, steps=steps)
    tol = ROUGH if normalized else None
    return largest_growth(objective, rho, norm, scale, generator, published=True, eigen_tol=tol, restarts=restarts, steps=steps)


def adaptive_worst_m(objective: Objective, *, m: int = 128, **settings: Any) -> Estimate:
    """Worst-case adaptive m-sharpness: the mean over batches of m samples of the maximum of each batch.

    E_B max over ||d / |w| ||_p <= rho of L_B(w + d) - L_B(w), over consecutive batches of m samples.

    Args:
        objective: the network on its data; the paper uses 1,024 training samples.
        m: samples per batch; 128 in the paper.
        settings: rho, steps, norm, normalized and generator as for `adaptive_worst`; restarts, random starts in addition to the
            centre.

    Returns:
        Kind "lower bound", unit of the loss; `data_stderr` is the standard error of the mean over batches, None for one batch.

    Raises:
        UsageError, NotDefined: as for `adaptive_worst`; m < 1.

    Cost: (1 + restarts) * (steps + 1) gradients for APGD and 10 to 40 for the other methods.

    Reference: as for `adaptive_worst`. Deviation: batches are weighted by their number of samples.
    """
    return adaptive_worst(objective, m=m, **settings)


@measure(
    "first_order_adaptive_linf",
    unit="loss",
    invariant_to=ELEMENTWISE,
    reference=_REFERENCE,
    work=lambda objective, settings: {"gradient": Spent(gradients=1)},
    default=False,
)
def first_order_adaptive_linf(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """First-order worst-case adaptive sharpness, || grad L * w ||_1: growth of the loss in |d_i| <= rho |w_i|, over rho.

    To first order max over |d_i| <= rho |w_i| of L(w + d) - L(w) = rho ||grad L * w||_1. It vanishes at an exact minimum.

    Args:
        objective: the network on its data.
        generator: not used; nothing here is random.

    Returns:
        Kind "exact", unit of the loss.

    Cost: one gradient.

    Example:
        L = w^2 at w = 3: |2 w * w| = 18.
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(net.weight, 3.0)
        >>> first_order_adaptive_linf(Objective(net, nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))).value
        18.0
    """
    return Estimate(float((objective.gradient().double() * objective.theta.double()).abs().sum()))


def _mean_of_maxima(
    batches: Sequence[Objective],
    rho: float,
    norm: Norm,
    scale: Tensor,
    generator: torch.Generator | None,
    m: int,
    **options: int,
) -> Estimate:
    """The mean over batches of m samples of the largest growth of each batch's loss."""
    random = default_generator(generator)
    weights = np.array([float(b.sample_weights.sum()) for b in batches])
    batches, weights = [b for b, w in zip(batches, weights, strict=True) if w > 0], weights[weights > 0]
    found = []
    with progress.stage("batches", len(batches)) as advance:
        for batch in batches:
            found.append(growth(batch, rho, norm, scale, random, published=True, curved=False, **options))
            advance(1)
    values = np.array([f.value for f in found])
    mean = float(np.average(values, weights=weights))
    n, share = len(values), weights / weights.sum()
    error = float(np.sqrt((share**2 * (values - mean) ** 2).sum() * n / (n - 1))) if n > 1 else None
    lost = sum(f.nonfinite for f in found)
    gradients = sum(f.gradients for f in found)
    reason = f"on {n} batches of {m}, {gradients / n:.0f} gradients each" + (
        f"; {lost} points that are not finite are left out" if lost else ""
    )
    return Estimate(mean, None, "lower bound", sum(f.evaluations for f in found), reason=reason, data_stderr=error)


def _of_normalized_logits(objective: Objective) -> Objective:
    """The same loss of normalized logits, for targets that are classes."""
    if objective.classes is None or not isinstance(objective.loss, nn.CrossEntropyLoss):
        raise NotDefined(
            "expected cross-entropy of class logits, found another loss", fix="use the measure without normalization"
        )
    if objective.classes < 3:
        raise NotDefined(
            f"expected three classes or more to normalize logits, found {objective.classes}: normalization leaves only the "
            "sign of two centred logits, and the loss is a step function",
            fix="use the measure without normalization",
        )
    if objective not in _normalized:  # one object for all measures, which share its eigenvectors
        _normalized[objective] = objective.of_outputs(normalized_logits)
    return _normalized[objective]


def _uniform(dim: int, generator: torch.Generator) -> Tensor:
    """(dim,) uniform on [-1, 1]."""
    return torch.rand(dim, generator=generator).mul_(2).sub_(1)


def _average_work(objective: Objective, settings: Mapping[str, Any]) -> dict[Hashable, Spent]:
    return {object(): Spent(forwards=2 * settings["pairs"])}


def _from_four_starts(settings: Mapping[str, Any]) -> float:
    """Gradients of APGD from the centre, both signs of an eigenvector and random starts, and of the other methods."""
    return (3 + settings["restarts"]) * (settings["steps"] + 1) + 35


def _from_two_starts(settings: Mapping[str, Any]) -> float:
    """Gradients of APGD from the centre and random starts, and of the other methods."""
    return (1 + settings["restarts"]) * (settings["steps"] + 1) + 20


def _register() -> None:
    """Register every variant under its own name."""
    for normalized in (False, True):
        end, words = ("_normalized", ", of normalized logits of three classes or more") if normalized else ("", "")
        for norm, law, radius in (("l2", "normal", 0.5), ("linf", "uniform", 1e-3)):
            fixed = {"norm": norm, "normalized": normalized}
            about: dict[str, Any] = {
                "unit": "loss", "invariant_to": ELEMENTWISE, "reference": _REFERENCE, "default": False,
            }  # fmt: skip
            doc = f"Average-case adaptive sharpness, {law} noise in proportion to each weight ({norm}){words}."
            measure(f"adaptive_average_{norm}{end}", work=_average_work, **about)(variant(adaptive_average, doc, fixed))
            doc = f"Worst-case adaptive sharpness on all samples at once ({norm}){words}: max growth in |d| <= rho |w|."
            key = "normalized" if normalized else "adaptive"
            measure(
                f"adaptive_worst_{norm}{end}",
                work=growth_work(key, _from_four_starts, 25, rough=normalized),
                **about,
            )(variant(adaptive_worst, doc, fixed | {"m": None}, rho=radius))
            doc = f"Worst-case adaptive m-sharpness ({norm}){words}: the mean of the maxima of batches of m."
            measure(f"adaptive_worst_{norm}{end}_m", work=growth_work("", _from_two_starts), **about)(
                variant(adaptive_worst, doc, fixed, rho=radius, m=128)
            )


_register()
