"""How a loss of one's own puts its samples together, found out from its derivatives; nothing is asked of its name or its code.

A weighted mean f(B) = sum_i w_i f(i) / sum_i w_i has the derivative (w_i / sum w) df(i)/do_i in the output of sample i. So the
share w_i / sum w is the ratio of the batch's derivative to the sample's own, wherever the outputs are. It must be the same at
other outputs, the shares must add up to 1, and with them the values to f(B). A root of a mean, a maximum or a contrastive loss
fails one of these, and is then no mean over samples: all of them go through it at once.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.errors import UsageError

LossFunction = Callable[[Tensor, Tensor], Tensor]

# Of a share, between two lots of outputs and in a sum of shares; in float32 a share is a quotient of rounded derivatives.
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 2e-3}
# Shares that differ by less are equal: one each, so that their mean is the ordinary one.
_EQUAL = 1e-6


@dataclass(frozen=True)
class Structure:
    """What was found.

    Attributes:
        apart: whether the loss is a weighted mean of its samples' own losses.
        weights: (B,) float64 of every batch, up to one factor; None where it is not.
        pairing: how class indices are paired with outputs; None where that was not found.
    """

    apart: bool
    weights: tuple[Float[Tensor, " B"], ...] | None
    pairing: "Pairing | None"


@dataclass(frozen=True)
class Pairing:
    """Which output is compared with which class index.

    Attributes:
        axis: of the outputs, on which the classes stand.
        shift: places by which targets are ahead of outputs, as in a language model that shifts its labels itself.
        ignored: class indices that do not count.
    """

    axis: int
    shift: int
    ignored: tuple[int, ...]

    def aligned(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs with the classes on axis 1, and the target of each; what does not count is -1."""
        output = output.movedim(self.axis, 1)
        if self.shift:
            output, target = output[:, :, : -self.shift], target[:, self.shift :]
        lost = (target < 0) | (target >= output.shape[1])
        for index in self.ignored:
            lost = lost | (target == index)
        return output, target.masked_fill(lost, -1)


def structure(loss: LossFunction, outputs: list[Tensor], targets: list[Tensor]) -> Structure:
    """How a loss puts together samples with these outputs and targets.

    Args:
        loss: (output, target) -> scalar.
        outputs, targets: of every batch, (B, ...).

    Returns:
        Structure. Batches whose weights cannot be compared, because their outputs do not fit together, make it one that
        does not come apart.

    Raises:
        UsageError: the loss adds its samples up.

    Cost: the loss and its first derivative three times a batch, and once for every sample.

    Accuracy: in float64 where the loss takes it.
    """
    doubled = [o.detach().double() for o in outputs]
    try:
        with torch.no_grad():
            loss(doubled[0][:2], _real(targets[0][:2], torch.float64))
        outputs, targets = doubled, [_real(t, torch.float64) for t in targets]
    except Exception:  # it holds tensors of another dtype, and works in that one only
        outputs = [o.detach() for o in outputs]
    if not loss(outputs[0].detach().requires_grad_(), targets[0]).requires_grad:
        return _of_values(loss, outputs, targets)
    shares = [_shares(loss, o, t) for o, t in zip(outputs, targets, strict=True)]
    if any(s is None for s in shares):
        return Structure(False, None, None)
    weights = _linked(loss, outputs, targets, [s for s in shares if s is not None])
    if weights is None:
        return Structure(False, None, None)
    pairing = next((p for o, t in zip(outputs, targets, strict=True) if (p := _pairing(loss, o, t))), None)
    return Structure(True, weights, pairing)


def each(loss: LossFunction, output: Tensor, target: Tensor) -> Float[Tensor, " B"]:
    """The loss of every sample alone, differentiable; all at once where the loss can be vectorized, else one by one."""

    def one(o: Tensor, t: Tensor) -> Tensor:
        return loss(o[None], t[None]).reshape(())

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "There is a performance drop")  # an operation is done one by one after all
            return torch.func.vmap(one)(output, target)
    except Exception:  # what a loss does that depends on values cannot be vectorized
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of degrees of freedom, which one sample has none of
            return torch.stack([one(o, t) for o, t in zip(output, target, strict=True)])


def _of_values(loss: LossFunction, outputs: list[Tensor], targets: list[Tensor]) -> Structure:
    """The structure of a loss without derivatives, such as a share of errors: a mean if every batch has that of its samples."""
    for output, target in zip(outputs, targets, strict=True):
        try:
            apart = torch.allclose(each(loss, output, target).mean(), loss(output, target), rtol=1e-3, atol=1e-6)
        except Exception:  # it cannot be asked of a single sample
            apart = False
        if not apart:
            return Structure(False, None, None)
    return Structure(True, tuple(torch.ones(len(o), dtype=torch.float64, device=o.device) for o in outputs), None)


def _shares(loss: LossFunction, output: Tensor, target: Tensor) -> Float[Tensor, " B"] | None:
    """Every sample's share of the batch's mean; None where the loss is no weighted mean of its samples."""
    n = len(output)
    tolerance = _TOLERANCE[output.dtype]
    best, found = torch.zeros(n, dtype=output.dtype), torch.full((n,), torch.nan, dtype=output.dtype)
    best, found = best.to(output.device), found.to(output.device)
    ignored = torch.ones(n, dtype=torch.bool, device=output.device)
    lots = [output, *(output.roll(k, 0) for k in sorted({1, n // 3, n // 2}) if 0 < k < n)]
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    for lot in lots:
        whole, slope, own, slopes, lost = _derivatives(loss, lot, target)
        if whole is None:
            continue  # outputs out of the loss's reach; the network's own are not
        length = slopes.square().sum(1)
        share = (slope * slopes).sum(1) / length
        apart = (slope - share[:, None] * slopes).norm(dim=1)
        if bool((apart > tolerance * slope.norm(dim=1) + 1e-12 * slope.norm()).logical_and(length > 0).any()):
            return None
        dead = (length == 0) | ~length.isfinite()
        if bool((dead & (slope.norm(dim=1) > tolerance * slope.norm())).any()):
            return None  # its own loss does not move, yet it moves that of the batch
        share = share.where(~dead, torch.nan)
        seen.append((whole, own, share))
        ignored &= lost
        better = ~dead & (length > best)
        best, found = length.where(better, best), share.where(better, found)
    if not seen:  # a mean over nothing, wherever the outputs are: all of the batch is ignored
        return torch.zeros(n, dtype=torch.float64, device=output.device)
    # Of what is saturated at all these outputs the slope tells nothing: it has an equal part of what the others leave.
    flat = found.isnan() & ~ignored
    found = found.where(~found.isnan(), 0.0)
    if bool(flat.any()):
        found = torch.where(flat, (1 - found.sum()).clamp(min=0) / flat.sum(), found)
    for whole, own, share in seen:
        if bool(((share - found).abs() > tolerance * (found.abs() + 1 / n)).logical_and(~share.isnan()).any()):
            return None
        added = (found * own).where(found > 0, 0.0)
        if abs(float(added.sum() - whole)) > tolerance * (float(added.abs().sum()) + abs(float(whole))):
            _refuse_sum(whole, own, found)
            return None
    if n > 1 and abs(float(found.sum()) - 1) > max(tolerance, 1e-3):
        _refuse_sum(seen[0][0], seen[0][1], found)
        return None
    return found.double()


def _refuse_sum(whole: Tensor, own: Tensor, shares: Tensor) -> None:
    """Refuse a loss that adds its samples up: it would grow with the data."""
    if len(own) > 1 and bool(((shares - 1).abs() < 1e-3).all()) and abs(float(own.sum() - whole)) < 1e-3 * abs(float(whole)):
        first, second = float(own[0]), float(own[1])
        raise UsageError(
            f"expected a loss that averages over samples, found {first + second:.4g} for two that have {first:.4g} and "
            f"{second:.4g}",
            fix="divide by the number of samples",
        )


def _derivatives(loss: LossFunction, output: Tensor, target: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:
    """The batch's loss, its derivative in each sample's output (B, ·), every sample's own loss and its derivative.

    And which samples have no loss of their own: alone, one that is ignored has a mean over nothing, nan.
    """
    nothing = output.new_zeros(0)
    at = output.detach().requires_grad_()
    with torch.enable_grad():
        whole = loss(at, target)
        if not whole.requires_grad or not bool(whole.isfinite()):
            return None, nothing, nothing, nothing, nothing
        (slope,) = torch.autograd.grad(whole.reshape(()), at)
        try:
            own = each(loss, at, target)
            (slopes,) = torch.autograd.grad(own.where(own.isfinite(), 0.0).sum(), at, materialize_grads=True)
        except Exception:  # it cannot be asked of a single sample
            own, slopes = whole.detach().expand(len(at)), torch.zeros_like(slope)
    lost = ~own.isfinite()
    slopes = slopes.reshape(len(at), -1).nan_to_num(0.0).where(~lost[:, None], 0.0)
    return whole.detach(), slope.reshape(len(at), -1), own.detach().where(~lost, 0.0), slopes, lost


def _linked(
    loss: LossFunction, outputs: list[Tensor], targets: list[Tensor], shares: list[Tensor]
) -> tuple[Tensor, ...] | None:
    """Weights on one scale from the shares within batches, by one sample of each batch set beside those of the others."""
    alive = [i for i, s in enumerate(shares) if bool((s > 0).any())]
    if not alive:
        return tuple(shares)
    scale = dict.fromkeys(range(len(shares)), 1.0)
    if len(alive) > 1:
        rows = {i: int(shares[i].argmax()) for i in alive}
        try:
            between = _shares(
                loss,
                torch.stack([outputs[i][rows[i]] for i in alive]),
                torch.stack([targets[i][rows[i]] for i in alive]),
            )
        except RuntimeError:  # of unequal shapes
            return None
        if between is None or not bool((between > 0).all()):
            return None
        scale |= {i: float(b / shares[i][rows[i]]) for i, b in zip(alive, between, strict=True)}
    weights = [s * scale[i] for i, s in enumerate(shares)]
    counted = torch.cat([w[w > 0] for w in weights])
    middle = counted.median()
    if bool(((counted / middle - 1).abs() < _EQUAL).all()):
        return tuple((w > 0).double() for w in weights)
    return tuple(w / middle for w in weights)


def _pairing(loss: LossFunction, output: Tensor, target: Tensor) -> Pairing | None:
    """How class indices are paired with outputs: raising the output of its own class is what lowers the loss most."""
    if target.is_floating_point() or target.dtype == torch.bool or output.ndim != target.ndim + 1 or len(output) < 2:
        return None
    moved = output.roll(1, 0)  # others' outputs, since where a network is right its own have hardly a slope
    _, slope, *_ = _derivatives(loss, moved, target)
    if not slope.numel():
        return None
    slope = slope.reshape(output.shape)
    for axis in dict.fromkeys((1, output.ndim - 1)):
        bend = slope.movedim(axis, 1)
        for shift in (0, 1) if target.ndim > 1 else (0,):
            here, wanted = (bend, target) if not shift else (bend[:, :, :-shift], target[:, shift:])
            if here.shape[2:] != wanted.shape[1:]:
                continue
            size = here.abs().amax(1)
            counts = size > 1e-3 * size.amax()
            outside = slope.abs().sum() - here.abs().sum()
            if bool((here.argmin(1) == wanted)[counts].all()) and float(outside) <= 1e-6 * float(here.abs().sum()):
                dead = wanted[size == 0]  # those that never count are ignored
                ignored = sorted(set(dead.tolist()) - set(wanted[size > 0].tolist()))
                return Pairing(axis, shift, tuple(int(i) for i in ignored))
    return None


def _real(t: Tensor, dtype: torch.dtype) -> Tensor:
    """A target in the dtype of the outputs, where it is a real number."""
    return t.to(dtype) if t.is_floating_point() else t
