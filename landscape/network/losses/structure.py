"""How an arbitrary loss combines its samples, determined from its derivatives alone.

A weighted mean f(B) = sum_i w_i f(i) / sum_i w_i has the derivative (w_i / sum w) df(i)/do_i in the output of sample i. The
share w_i / sum w is therefore the ratio of the batch's derivative to the sample's own, at any outputs. It must be the same at
other outputs, the shares must sum to 1, and they must reproduce f(B) from the values. A root of a mean, a maximum or a
contrastive loss fails one of these tests; it is not a mean over samples, and all samples pass through it at once.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import NumericalError, UsageError
from landscape.network.losses.pairing import Found, Pairing, agreed, pairing_of
from landscape.network.losses.sample_losses import LossFunction, derivatives_of, each

# Relative tolerance of a share and of a sum of shares; in float32 a share is a quotient of rounded derivatives.
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 2e-3}
# Shares that differ by less are equal; the mean is then the ordinary one.
_EQUAL = 1e-6
# Bytes of outputs, in float64, that are examined together; and the number of samples in the final comparison.
_ROOM, _COMPARED = 1 << 26, 256


@dataclass(frozen=True)
class Structure:
    """How a loss combines its samples.

    Attributes:
        apart: whether the loss is a weighted mean of the losses of its samples.
        weights: (B,) float64 for every batch, up to a common factor; None if the loss is not such a mean.
        pairing: alignment of class indices and outputs; None if it is unknown.
    """

    apart: bool
    weights: tuple[Float[Tensor, " B"], ...] | None
    pairing: Pairing | None


def structure(loss: LossFunction, pairs: Iterable[tuple[Tensor, Tensor]]) -> Structure:
    """Determine how a loss combines samples with these outputs and targets.

    Args:
        loss: (output, target) -> scalar.
        pairs: outputs (B, ...) and targets of each batch; read one after another, not kept.

    Returns:
        Structure. If the weights of two batches cannot be compared because their outputs have different shapes, the loss
        counts as one that is not a mean over samples.

    Raises:
        UsageError: the loss is a sum over samples.
        NumericalError: the loss is not finite, or varies from call to call.

    Cost: the loss and its first derivative four times for each batch, and once for every sample; memory for some copies of
        64 MiB of outputs.

    Accuracy: float64 if the loss accepts it. The result from parts of the data is verified at the end on some 256 samples
        from all parts, at once and in two random groups.
    """
    weights: list[Tensor] = []
    heads: list[tuple[Tensor, Tensor, Tensor]] = []  # the heaviest sample of every part: output, target, share in its part
    some: list[tuple[Tensor, Tensor, Tensor, int]] = []  # samples for the final comparison, with the index of their part
    pairings: list[Found | None] = []
    sizes: list[int] = []
    for whole_output, whole_target in pairs:
        first = len(weights)
        for output, target in _parts(whole_output, whole_target):
            o, t = _precise(loss, output, target)
            _check_repeats(loss, o, t)
            if not loss(o.detach().requires_grad_(), t).requires_grad:
                if not _mean_of_values(loss, o, t):
                    return Structure(False, None, None)
                share, pairing = torch.full((len(o),), 1 / len(o), dtype=torch.float64, device=o.device), None
            else:
                shares = _shares(loss, o, t)
                if shares is None:
                    return Structure(False, None, None)
                share, pairing = shares, pairing_of(loss, o, t)
            pairings.append(pairing)
            best = int(share.argmax())
            heads.append((o[best], t[best], share[best]))
            rows = torch.linspace(0, len(o) - 1, min(len(o), _COMPARED)).round().long()
            some.append((o[rows], t[rows], share[rows], len(weights)))
            weights.append(share)
        sizes.append(len(weights) - first)
    scales = _linked(loss, heads)
    if scales is None or not _regroups(loss, some, scales):
        return Structure(False, None, None)
    scaled = _equalized([w * scale for w, scale in zip(weights, scales, strict=True)])
    starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    by_batch = tuple(torch.cat(scaled[i:j]) for i, j in itertools.pairwise(starts))
    return Structure(True, by_batch, agreed(pairings))


def _parts(output: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Split a batch into pieces of at most 64 MiB of outputs and at least two samples."""
    rows = max(2, _ROOM // max(1, output[:1].numel() * 8))
    return list(zip(output.split(rows), target.split(rows), strict=True))


def _precise(loss: LossFunction, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and real targets in float64, or unchanged if the loss does not accept float64."""
    output, doubled = output.detach(), output.detach().double()
    try:
        loss(doubled[:2], _real(target[:2], torch.float64))
    except Exception:  # a loss may raise anything for another dtype
        return output, target
    return doubled, _real(target, torch.float64)


def _check_repeats(loss: LossFunction, output: Tensor, target: Tensor) -> None:
    """Refuse a loss that varies from call to call."""
    one, two = loss(output, target), loss(output, target)
    if not torch.equal(one, two) and not bool(one.isnan().all()):
        raise NumericalError(
            f"expected the same loss twice, found {float(one):.6g} and {float(two):.6g} for the same outputs",
            fix="remove randomness from the loss, and state that it keeps between calls",
        )


def _mean_of_values(loss: LossFunction, output: Tensor, target: Tensor) -> bool:
    """Whether a loss without derivatives, such as an error rate, is the mean of the losses of its samples."""
    try:
        return torch.allclose(each(loss, output, target).mean(), loss(output, target), rtol=1e-3, atol=1e-6)
    except Exception:  # the loss does not accept a single sample
        return False


def _shares(loss: LossFunction, output: Tensor, target: Tensor) -> Float[Tensor, " B"] | None:
    """Every sample's share in the batch's mean; None if the loss is not a weighted mean of its samples."""
    n = len(output)
    tolerance = _TOLERANCE[output.dtype]
    best, shares = torch.zeros(n, dtype=output.dtype), torch.full((n,), torch.nan, dtype=output.dtype)
    best, shares = best.to(output.device), shares.to(output.device)
    ignored = torch.ones(n, dtype=torch.bool, device=output.device)
    outputs = [output, *(output.roll(k, 0) for k in sorted({1, n // 3, n // 2}) if 0 < k < n)]
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    for permuted in outputs:
        whole, slope, losses, slopes, undefined = derivatives_of(loss, permuted, target)
        if whole is None:
            continue  # permuted outputs where the loss is not finite
        length = slopes.square().sum(1)
        share = (slope * slopes).sum(1) / length
        residual = (slope - share[:, None] * slopes).norm(dim=1)
        if bool((residual > tolerance * slope.norm(dim=1) + 1e-12 * slope.norm()).logical_and(length > 0).any()):
            return None
        dead = (length == 0) | ~length.isfinite()
        if bool((dead & (slope.norm(dim=1) > tolerance * slope.norm())).any()):
            return None  # its output changes the batch's loss but not its own
        share = share.where(~dead, torch.nan)
        seen.append((whole, losses, share))
        ignored &= undefined
        better = ~dead & (length > best)
        best, shares = length.where(better, best), share.where(better, shares)
    if not seen:
        return _all_ignored(loss, output, target)
    # The slope of a sample that is saturated at all these outputs is zero; such samples share the remaining weight equally.
    flat = shares.isnan() & ~ignored
    shares = shares.where(~shares.isnan(), 0.0)
    if bool(flat.any()):
        shares = torch.where(flat, (1 - shares.sum()).clamp(min=0) / flat.sum(), shares)
    for whole, losses, share in seen:
        if bool(((share - shares).abs() > tolerance * (shares.abs() + 1 / n)).logical_and(~share.isnan()).any()):
            return None
        added = (shares * losses).where(shares > 0, 0.0)
        if abs(float(added.sum() - whole)) > tolerance * (float(added.abs().sum()) + abs(float(whole))):
            _refuse_sum(whole, losses, shares)
            return None
    if n > 1 and abs(float(shares.sum()) - 1) > max(tolerance, 1e-3):
        _refuse_sum(seen[0][0], seen[0][1], shares)
        return None
    return shares.double()


def _all_ignored(loss: LossFunction, output: Tensor, target: Tensor) -> Tensor:
    """Shares of a batch whose loss is nan: all 0 if every sample's own loss is nan too, since all are ignored."""
    try:
        losses = each(loss, output, target)
    except Exception:  # the loss does not accept a single sample
        losses = output.new_zeros(len(output))
    if bool(losses.isfinite().any()):
        bad = (~losses.isfinite()).nonzero()[:, 0].tolist()
        found = f"{float(losses[bad[0]]):.4g} for a sample" if bad else "none"
        raise NumericalError(
            f"expected a finite loss at the trained weights, found {found} in a batch whose other samples have one",
            fix="check that sample and its preprocessing, and that the weights belong to this model",
        )
    return torch.zeros(len(output), dtype=torch.float64, device=output.device)


def _refuse_sum(whole: Tensor, losses: Tensor, shares: Tensor) -> None:
    """Refuse a loss that is a sum over samples, which would grow with the data."""
    if (
        len(losses) > 1
        and bool(((shares - 1).abs() < 1e-3).all())
        and abs(float(losses.sum() - whole)) < 1e-3 * abs(float(whole))
    ):
        first, second = float(losses[0]), float(losses[1])
        raise UsageError(
            f"expected a loss that averages over samples, found {first + second:.4g} for two samples with "
            f"losses {first:.4g} and {second:.4g}",
            fix="divide by the number of samples",
        )


def _linked(loss: LossFunction, heads: list[tuple[Tensor, Tensor, Tensor]]) -> list[float] | None:
    """Factors that bring the shares within each part to a common scale, from one sample of each part in a joint batch."""
    alive = [i for i, (_, _, share) in enumerate(heads) if bool(share > 0)]
    scales = [1.0] * len(heads)
    if len(alive) < 2:
        return scales
    try:
        outputs, targets = torch.stack([heads[i][0] for i in alive]), torch.stack([heads[i][1] for i in alive])
    except RuntimeError:  # unequal shapes
        return None
    between = _shares(loss, outputs, targets) if loss(outputs.requires_grad_(), targets).requires_grad else None
    if between is None:
        equal = _mean_of_values(loss, outputs.detach(), targets)
        between = torch.full((len(alive),), 1 / len(alive), dtype=torch.float64) if equal else None
    if between is None or not bool((between > 0).all()):
        return None
    for i, share in zip(alive, between.tolist(), strict=True):
        scales[i] = share / float(heads[i][2])
    return scales


def _regroups(loss: LossFunction, some: list[tuple[Tensor, Tensor, Tensor, int]], scales: list[float]) -> bool:
    """Whether the loss of samples from all parts together is the weighted mean of their own, for every grouping."""
    parts = some[:: max(1, len(some) // _COMPARED)]
    each_has = max(2, _COMPARED // len(parts))
    chosen = []
    for output, target, share, number in parts:
        rows = torch.linspace(0, len(output) - 1, min(len(output), each_has)).round().long().to(output.device)
        chosen.append((output[rows], target[rows], share[rows], number))
    try:
        output, target = torch.cat([part[0] for part in chosen]), torch.cat([part[1] for part in chosen])
    except RuntimeError:  # unequal shapes: each part was examined alone
        return len(some) == 1
    weights = torch.cat([part[2] * scales[part[3]] for part in chosen])
    order = torch.randperm(len(output), generator=torch.Generator().manual_seed(0)).to(output.device)
    cut = max(1, len(order) // 3)
    groups = [order.sort().values, order[:cut], order[cut:]]
    with torch.no_grad():
        for rows in groups:
            w = weights[rows]
            if len(rows) < 2 or not bool((w > 0).any()):
                continue
            rows, w = rows[w > 0], w[w > 0]
            try:
                losses = each(loss, output[rows], target[rows]).double()
                whole = loss(output[rows], target[rows]).double()
            except Exception:  # the loss rejects this group
                return False
            mean, size = (w * losses).sum() / w.sum(), (w * losses.abs()).sum() / w.sum()
            if bool(whole.isfinite()) and float((mean - whole).abs()) > _TOLERANCE[output.dtype] * float(size + whole.abs()):
                return False
    return True


def _equalized(weights: list[Tensor]) -> list[Tensor]:
    """Weights on a common scale; weights that are equal up to rounding become 1."""
    counted = torch.cat([w[w > 0] for w in weights])
    if not len(counted):
        return weights
    middle = counted.median()
    if bool(((counted / middle - 1).abs() < _EQUAL).all()):
        return [(w > 0).double() for w in weights]
    return [w / middle for w in weights]


def _real(t: Tensor, dtype: torch.dtype) -> Tensor:
    """A real-valued target in the dtype of the outputs; others unchanged."""
    return t.to(dtype) if t.is_floating_point() else t
