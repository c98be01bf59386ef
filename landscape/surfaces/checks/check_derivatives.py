"""Derivatives of a surface at one point, from finite differences of its values and by automatic differentiation."""

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
# Steps of differences of gradients, relative to ||theta|| / ||d||: long enough for small rounding errors, short enough to meet
# few kinks. If the network rounds more coarsely than float64, the step is this many times its rounding, for a relative error
# of 10^-3 if gradients are as large as the curvature.
_SLOPE_STEPS, _OF_ROUNDING = (1e-10, 1e-11), 1e3
# The error of a second difference is four roundings / h^2. For a relative error of 2 10^-4, h^2 = _SECOND * rounding /
# curvature.
_SECOND = 4 / 2e-4
# Longest steps: the value for float64 rounding, and the power of a larger rounding that balances it with the truncation error
# (for fourth and third derivatives as large as the measured one).
_LONGEST, _LONGEST_SLOPE = (1e-3, 1 / 4), (1e-4, 1 / 3)
# A measured rounding below this is not from float32, whose errors average to about 10^-8. It comes from kinks, and longer
# steps would meet more of them.
_FLOAT32 = 1e-9
# Relative rounding error of a value in float64, accumulated over many layers.
_OF_VALUES = 1e-14
# Most samples for derivatives: in float64 all samples would take longer than many points, and what is compared are two ways of
# computing a derivative on the same samples. Of more than these, a network that convolves on a CPU, four times as slow in
# float64 as in float32, has fewer: with its some 40 forward passes the check is to take no longer than a few points. So few go
# through in two unequal batches, so that what goes wrong when batches are put together shows.
SAMPLES, _CONVOLVED = 32, 4
_TOGETHER = 3  # of _CONVOLVED samples in a batch
# A fixed method of products, not chosen by timing, so that the check has the same bits in every run.
_SAME = Method(folded=True)
# Distance of the points at which slopes are compared, in coordinates, because the slope vanishes at a minimum. The second one
# is used if a kink lies within the step at the first.
_BESIDE = (1e-2, 2.3e-3)


@dataclass(frozen=True, eq=False)
class Near:
    """A surface near a point, as a function of n coordinates that are 0 at the point; in float64.

    Attributes:
        value: coordinates -> loss.
        slope: coordinates -> (n,) partial derivatives by automatic differentiation; None if these belong to another function.
        lengths: (n,) coordinate steps that change the weights by their own norm.
    """

    value: Callable[[Tensor], float]
    slope: Callable[[Tensor], Float[Tensor, " n"]] | None
    lengths: tuple[float, ...]


def checked_samples(objective: Objective) -> int:
    """Number of samples for derivatives."""
    few = objective.convolves and objective.device.type == "cpu" and objective.samples > SAMPLES
    return min(objective.samples, _CONVOLVED if few else SAMPLES)


def rounding_without_kinks(objective: Objective) -> float:
    """`Objective.rounding` if it is large enough for float32; a smaller one comes from kinks, and the dtype's is used."""
    found = objective.rounding
    return found if found > _FLOAT32 else torch.finfo(objective.dtype).eps


def unmade(error: Exception, samples: int | None = None) -> Derivatives:
    """The result if there are no derivatives. A surface does not need them; only this part of its check is missing."""
    kind = "" if isinstance(error, LandscapeError) else f"{type(error).__name__}: "
    return Derivatives(samples=samples, reason=f"could not be made: {kind}{str(error).partition(chr(10))[0]}"[:300])


def in_float64(objective: Objective, recalibrated: bool) -> tuple[Objective, int | None, str]:
    """`on_first` for derivatives: on a limited number of samples, in float64.

    The objective itself is checked first, once for all its surfaces; its copy in float64 is then not checked anew.
    """
    objective.preflight()
    return on_first(objective, checked_samples(objective), recalibrated, "float64")


def on_first(objective: Objective, few: int, recalibrated: bool, dtype: str | None = None) -> tuple[Objective, int | None, str]:
    """The objective on its first samples; their number, if not all; its normalization, as text.

    With re-estimated statistics it is normalized by the batch of all its samples, so that derivatives go through the
    statistics. These variances are divided by n, the re-estimated ones by n - 1.
    """
    part = objective if objective.samples <= few else objective.subset(few)
    part = part.batched(_TOGETHER) if few == _CONVOLVED and part is not objective else part
    precise = (part if dtype is None else part.to(dtype)).by(_SAME)
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
    """Second derivatives at a point from values and from products, and first derivatives nearby from values and gradients.

    Args:
        near: the surface.
        product: its second derivatives from Hessian-vector products; if there is a `reason`, only their size is used.
        samples, under: as in `Derivatives`.
        reason: why the products belong to another function and are not compared; empty if they belong to the same.
        beside: factor of the distance at which slopes are compared, for a surface that is smooth only nearby.
        rounding: relative rounding error of the network.

    Cost: 3 (n = 1) or 9 (n = 2) values, and 2 n values and a gradient for the slopes; with kinks 2 n or 4 n more gradients.

    Accuracy: a kink of a rectifier within the step of a second difference adds the jump of its slope, which is not in the
        Hessian. If second differences of values disagree with the products, differences of gradients with a step of 10^-10 are
        used instead, which hardly ever meet a kink. Gradients come from automatic differentiation, like the products.
        Therefore first differences of values must agree with gradients near the point; there a kink adds a relative error of
        only about 10^-4. Rounding errors are relative to the value, or to 1 for smaller values: a cross-entropy of 10^-9 is
        the logarithm of a number near 1. The steps are adapted to the rounding, and differences below the resulting error do
        not count. For a network that computes in float32 internally, steps are so long that they may contain kinks. If kinks
        or an underestimated rounding hide the curvature, the result says so.
    """
    n = len(near.lengths)
    zero = torch.zeros(n, dtype=torch.float64)
    centre = near.value(zero)
    # The smallest step for which rounding is small relative to the curvature; a longer one would meet more kinks.
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
            why = f"could not be made: with steps of {h:.1g}, as long as rounding requires, the loss is rough by {rough:.1g}"
            return Derivatives(loss=centre, samples=samples, under=under, reason=why)
    return found


def _slope_error(
    f: Callable[[Tensor], float], slope: Callable[[Tensor], Tensor], n: int, h: float, beside: float, rounding: float
) -> float | None:
    """Relative error of first differences of values against gradients, at the better of two points; None if not finite."""
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
        # A difference within rounding error is not a disagreement.
        lost = max(_OF_VALUES, 4 * rounding) * max(1.0, float(ends.abs().max())) / h / AGREE
        size = max(float(exact.abs().max()), float(found.abs().max()), lost)
        errors.append(float((exact - found).abs().max()) / size if size else 0.0)
        if errors[-1] <= AGREE:
            break
    return min(errors, default=None)


def _roughness_of_values(f: Callable[[Tensor], float], n: int, h: float, centre: float) -> float:
    """Size of rounding errors or kinks in the values, from fourth differences, which are negligible for a smooth function.

    Independent errors of size s give a fourth difference of size sqrt(70) s.
    """
    steps = h * torch.eye(n, dtype=torch.float64)
    return max(abs(f(2 * e) - 4 * f(e) + 6 * centre - 4 * f(-e) + f(-2 * e)) for e in steps) / 70**0.5


def _differences_of_slopes(slope: Callable[[Tensor], Tensor], lengths: tuple[float, ...], step: float) -> dict[str, float]:
    """Second derivatives at 0 from central differences of gradients; the two mixed ones are averaged."""
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
