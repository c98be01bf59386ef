"""Derivatives of a surface at one place from both sides: from its values, and by automatic differentiation."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from landscape.curvature.method import Method
from landscape.errors import LandscapeError
from landscape.objective import Objective
from landscape.results.surfaces.derivative_check import AGREE, Derivatives, disagreement

EPS = torch.finfo(torch.float64).eps
# Steps of the difference of slopes, in parts of ||theta|| / ||d||: rounding is still small, and a kink inside is rare. Where
# the network rounds to less than float64 does, this many times its rounding: an error of 10^-3 of slopes as large as
# the curvature.
_SLOPE_STEPS, _OF_ROUNDING = (1e-10, 1e-11), 1e3
# A second difference is off by four roundings over h^2; a step that makes this 2 10^-4 of the curvature has h^2 = so many
# roundings over the curvature.
_SECOND = 4 / 2e-4
# Longest steps: where rounding is float64's, and the powers of a larger one that balance it with the step's own error (fourth
# and third derivatives as large as what is measured).
_LONGEST, _LONGEST_SLOPE = (1e-3, 1 / 4), (1e-4, 1 / 3)
# Rounding below this is no float32's, whose errors average out to some 10^-8: it is kinks, which the longer steps would meet.
_FLOAT32 = 1e-9
# Rounding error of a value in float64, where layer after layer has added to it.
_OF_VALUES = 1e-14
# Samples that derivatives are taken on, where there are more: in float64 they would take longer than many points. Fewer where
# a processor convolves, which in float64 takes it some ten times as long as in float32.
SAMPLES, _CONVOLVED = 1024, 32
# Products by a way that no trial chooses: the check has the same bits in every run.
_SAME = Method(folded=True)
# How far beside the place slopes are compared, in coordinates: at a minimum itself there is no slope. The second place is for
# a kink that happens to lie within the step at the first.
_BESIDE = (1e-2, 2.3e-3)


@dataclass(frozen=True, eq=False)
class Near:
    """A surface near a place, as a function of n coordinates that are 0 there; in float64.

    Attributes:
        value: coordinates -> loss.
        slope: coordinates -> (n,) partial derivatives by automatic differentiation; None where those are of another function.
        lengths: (n,) coordinate steps that change the weights by as much as their own length.
    """

    value: Callable[[Tensor], float]
    slope: Callable[[Tensor], Float[Tensor, " n"]] | None
    lengths: tuple[float, ...]


def checked_samples(objective: Objective) -> int:
    """How many samples derivatives are taken on."""
    most = _CONVOLVED if objective.convolves and objective.device.type == "cpu" else SAMPLES
    return min(objective.samples, most)


def rounding_without_kinks(objective: Objective) -> float:
    """`Objective.rounding` where it is that of a float32 inside; below that it is made of kinks, and the dtype's own counts."""
    found = objective.rounding
    return found if found > _FLOAT32 else torch.finfo(objective.dtype).eps


def unmade(error: Exception, samples: int | None = None) -> Derivatives:
    """What is said where no derivative can be had: a surface needs none, and stands without this part of its check."""
    kind = "" if isinstance(error, LandscapeError) else f"{type(error).__name__}: "
    return Derivatives(samples=samples, reason=f"could not be made: {kind}{str(error).partition(chr(10))[0]}"[:300])


def in_float64(objective: Objective, recalibrated: bool) -> tuple[Objective, int | None, str]:
    """The objective that derivatives are taken of; how many samples it has, if not all; what it is normalized by, in words.

    Under re-estimated statistics it is normalized by the batch of all its samples, so that derivatives go through them. Its
    variances are divided by n, those re-estimated by n - 1.
    """
    few = checked_samples(objective)
    part = objective if objective.samples == few else objective.subset(few)
    precise = part.to("float64").by(_SAME)
    under = ""
    if recalibrated:
        precise = next(precise.minibatches(precise.samples, torch.Generator().manual_seed(0))).batch_normalized()
        under = ", both normalized by the batch of all samples"
    return precise, None if part is objective else few, under


def compared(
    near: Near,
    product: Float[Tensor, "n n"],
    *,
    samples: int | None,
    under: str = "",
    reason: str = "",
    beside: float = 1.0,
    rounding: float = EPS,
) -> Derivatives:
    """Second derivatives at a place from values and from products, first ones beside it from values and from gradients.

    Args:
        near: the surface.
        product: its second derivatives from Hessian-vector products; where there is a `reason`, only their size is used.
        samples, under: as in `Derivatives`.
        reason: why the products are of another function and not to be compared; empty where they are of the same.
        beside: share of the usual distance at which slopes are compared, where the surface is smooth only nearby.
        rounding: of the network, relative.

    Cost: 3 (n = 1) or 9 (n = 2) values, and 2 n values and a gradient for the slopes; with kinks 2 n or 4 n gradients more.

    Accuracy: a rectifier's kink within the step of a second difference adds the jump of its slope, which the Hessian does
        not have. Where second differences of values disagree with the products, differences of the slopes over a step of
        10^-10 are taken instead, which hardly ever meets a kink. Those are by automatic differentiation, as the products are,
        so that first differences of values must agree with the slopes beside the place; a kink adds to them only the
        jump's share of its step in the distance, some 10^-4. Values have a rounding error of their own size, or of 1 where
        they are smaller: a cross-entropy of 10^-9 is the logarithm of a number near 1. Steps are as long as the rounding asks
        for, and what it can make of a difference counts as none. A network that computes in float32 inside has steps so long
        that kinks lie within; where they, or a rounding that was underestimated, hide the curvature, that is said.
    """
    n = len(near.lengths)
    zero = torch.zeros(n, dtype=torch.float64)
    centre = near.value(zero)
    # The step that keeps rounding below a small share of the curvature, and no larger, for fewer kinks.
    noise = rounding * max(1.0, abs(centre)) if math.isfinite(centre) else rounding
    largest = float(product.diagonal().abs().max())
    longest, longest_slope = (max(least, rounding**power) * beside for least, power in (_LONGEST, _LONGEST_SLOPE))
    h = min(max((_SECOND * noise / largest) ** 0.5, 1e-7), longest) if largest > 0 else longest
    values = _second_differences(near.value, n, h, centre)
    resolution = 4 * noise / h**2
    if reason or near.slope is None:
        return Derivatives(values, loss=centre, samples=samples, under=under, reason=reason, resolution=resolution)
    products = {key: float(product[int(key[0]) - 1, int(key[1]) - 1]) for key in values}
    slopes: dict[str, float] = {}
    for step in _SLOPE_STEPS:
        if disagreement(slopes or values, products, centre, resolution) <= AGREE:
            break
        slopes = _differences_of_slopes(near.slope, near.lengths, max(step, _OF_ROUNDING * rounding))
    error = _slope_error(near.value, near.slope, n, min(h, longest_slope), beside, rounding)
    found = Derivatives(values, products, slopes, centre, error, samples, under, resolution=resolution)
    if rounding > EPS and found.problems:
        rough = _roughness_of_values(near.value, n, h, centre)
        if 4 * rough / h**2 > AGREE * max(map(abs, products.values())):
            why = f"could not be made: over steps of {h:.1g}, which its rounding asks for, the loss is rough by {rough:.1g}"
            return Derivatives(loss=centre, samples=samples, under=under, reason=why)
    return found


def _slope_error(
    f: Callable[[Tensor], float], slope: Callable[[Tensor], Tensor], n: int, h: float, beside: float, rounding: float
) -> float | None:
    """First differences of values against gradients, relative to the largest, at the better of two places; None without any."""
    errors = []
    for distance in _BESIDE:
        at = beside * distance * torch.tensor([1.0, 0.7], dtype=torch.float64)[:n]
        steps = h * torch.eye(n, dtype=torch.float64)
        ends = torch.tensor([[f(at + e), f(at - e)] for e in steps], dtype=torch.float64)
        if not bool(ends.isfinite().all()):
            continue
        exact, found = slope(at).cpu(), (ends[:, 0] - ends[:, 1]) / (2 * h)
        if not bool(exact.isfinite().all()):
            continue
        # What rounding can make of a difference is no disagreement.
        lost = max(_OF_VALUES, 4 * rounding) * max(1.0, float(ends.abs().max())) / h / AGREE
        size = max(float(exact.abs().max()), float(found.abs().max()), lost)
        errors.append(float((exact - found).abs().max()) / size if size else 0.0)
        if errors[-1] <= AGREE:
            break
    return min(errors, default=None)


def _roughness_of_values(f: Callable[[Tensor], float], n: int, h: float, centre: float) -> float:
    """What is in values that no smooth function has over such steps: rounding, or kinks; from fourth differences.

    Of independent errors of size s a fourth difference has sqrt(70) s.
    """
    steps = h * torch.eye(n, dtype=torch.float64)
    return max(abs(f(2 * e) - 4 * f(e) + 6 * centre - 4 * f(-e) + f(-2 * e)) for e in steps) / 70**0.5


def _differences_of_slopes(slope: Callable[[Tensor], Tensor], lengths: tuple[float, ...], step: float) -> dict[str, float]:
    """Second derivatives at 0 from slopes on both sides; of the two mixed ones the mean."""
    rows = []
    for length, e in zip(lengths, torch.eye(len(lengths), dtype=torch.float64), strict=True):
        h = step * length
        rows.append((slope(h * e) - slope(-h * e)) / (2 * h))
    both = torch.stack(rows)
    both = (both + both.T) / 2
    return {f"{i + 1}{j + 1}": float(both[i, j]) for i, j in ((0, 0), (1, 1), (0, 1)) if j < len(lengths)}


def _second_differences(f: Callable[[Tensor], float], n: int, h: float, centre: float) -> dict[str, float]:
    """Second derivatives of f at 0 along its n axes, from points at a distance h."""
    unit = h * torch.eye(n, dtype=torch.float64)
    out = {f"{i}{i}": (f(e) - 2 * centre + f(-e)) / h**2 for i, e in enumerate(unit, 1)}
    if n == 2:
        a, b = unit
        out["12"] = (f(a + b) - f(a - b) - f(b - a) + f(-a - b)) / (4 * h**2)
    return out
