"""Find the factor of a rescaling at which a measure has a given value."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor

from landscape.errors import NumericalError, UsageError
from landscape.machine.progress import stage
from landscape.symmetry.symmetries import Symmetries, Unit


@dataclass(frozen=True)
class TraceBlocks:
    """The trace of a Hessian, divided into blocks by the effect of a layer-wise rescaling.

    trace(alpha) = alpha^-2 multiplied + alpha^2 divided + rest, since H' = D^-1 H D^-1 (Dinh et al. 2017, section 4.2).

    Attributes:
        multiplied: trace of the block of weights that are multiplied by alpha.
        divided: trace of the block of weights that are divided by alpha.
        rest: trace of all other weights.

    Example:
        >>> blocks = TraceBlocks(multiplied=4.0, divided=9.0, rest=1.0)
        >>> blocks.at(1.0), blocks.bound, round(blocks.solve(49.0), 4)
        (14.0, 13.0, 2.291)
    """

    multiplied: float
    divided: float
    rest: float

    def at(self, alpha: float) -> float:
        """The trace after rescaling by alpha."""
        return self.multiplied / alpha**2 + self.divided * alpha**2 + self.rest

    @property
    def bound(self) -> float:
        """Infimum of the trace over alpha > 0: 2 sqrt(multiplied divided) + rest, -inf if a block is negative."""
        if self.multiplied < 0 or self.divided < 0:
            return -math.inf
        return 2 * math.sqrt(self.multiplied * self.divided) + self.rest

    @property
    def flattest(self) -> float:
        """The alpha with the smallest trace; inf or 0 if the trace decreases without reaching its bound."""
        if self.divided <= 0:
            return math.inf
        return max(self.multiplied, 0.0) ** 0.25 / self.divided**0.25

    def roots(self, target: float) -> tuple[float, ...]:
        """Every alpha > 0 with trace(alpha) = target, in increasing order: none, one or two."""
        a, b, c = self.divided, self.rest - target, self.multiplied  # a u^2 + b u + c = 0 with u = alpha^2
        if a == 0:
            candidates = [-c / b] if b else []
        else:
            square = b * b - 4 * a * c
            if square < 0:
                return ()
            q = -(b + math.copysign(math.sqrt(square), b)) / 2  # the form without cancellation
            candidates = [q / a, c / q] if q else [0.0]
        return tuple(sorted({math.sqrt(u) for u in candidates if u > 0 and math.isfinite(u)}))

    def solve(self, target: float) -> float:
        """The alpha > 0 with trace(alpha) = target; of two solutions the one closer to 1 on a log scale.

        Raises:
            UsageError: no alpha reaches the target; the message has the bound.
        """
        roots = self.roots(_finite(target))
        if roots:
            return min(roots, key=lambda alpha: (abs(math.log(alpha)), -alpha))
        if self.multiplied == 0 and self.divided == 0:
            raise UsageError(
                f"expected a trace that this rescaling changes, found {self.rest:.6g} at every alpha",
                fix="choose another layer",
            )
        if self.multiplied <= 0 and self.divided <= 0:
            top = -2 * math.sqrt(self.multiplied * self.divided) + self.rest
            raise UsageError(
                f"expected a target of at most {top:.6g}, found {target:.6g}", fix="choose another layer or target"
            )
        flat = "in the limit" if self.flattest in (0.0, math.inf) else f"at alpha = {self.flattest:.4g}"
        raise UsageError(
            f"expected a target trace above the flattening bound {self.bound:.6g} ({flat}), found {target:.6g}",
            fix="choose a larger target, or another layer",
        )


def trace_blocks(symmetries: Symmetries, unit: Unit, traces: Mapping[str, float | Tensor]) -> TraceBlocks:
    """Divide the trace of the Hessian into the weights that a unit multiplies, divides and leaves unchanged.

    Args:
        symmetries: symmetries of the network.
        unit: the unit to rescale.
        traces: name of every trained parameter -> the trace of its diagonal block, or its Hessian diagonal in its shape (needed
            if the unit scales only part of a parameter, as after a concatenation).

    Raises:
        UsageError: a trace instead of a required diagonal, or a diagonal of a wrong shape.
    """
    sums = {1: 0.0, -1: 0.0, 0: 0.0}
    for name, value in traces.items():
        scaling = symmetries.scalings.get(name)
        exponent = torch.zeros((), dtype=torch.int64) if scaling is None else scaling.exponent(unit.neurons)
        if not isinstance(value, Tensor) or value.ndim == 0:
            kinds = exponent.unique()
            if len(kinds) > 1:
                raise UsageError(
                    f"expected the Hessian's diagonal for {name}, of which {unit.name} scales only a part, found its trace",
                    fix="pass a tensor in the parameter's shape, or choose another layer",
                )
            sums[int(kinds)] += float(value)
            continue
        if scaling is not None and value.shape != scaling.shape:
            raise UsageError(f"expected a diagonal of shape {tuple(scaling.shape)} for {name}, found {tuple(value.shape)}")
        for sign in sums:
            sums[sign] += float(value.double().cpu()[(exponent == sign).expand(value.shape)].sum())
    return TraceBlocks(multiplied=sums[1], divided=sums[-1], rest=sums[0])


@dataclass(frozen=True)
class Solution:
    """A factor found by search.

    Attributes:
        alpha: the factor.
        value: the measure at this factor.
        evaluations: number of evaluations of the measure.
    """

    alpha: float
    value: float
    evaluations: int


def solve_alpha(
    measure_at: Callable[[float], float],
    target: float,
    *,
    low: float = 1e-4,
    high: float = 1e4,
    rtol: float = 1e-3,
    max_evaluations: int = 60,
    size: str = "alpha",
) -> Solution:
    """The alpha with measure_at(alpha) = target, by search on log alpha.

    The target is bracketed by growing steps away from alpha = 1, to both sides in turn, so that a solution close to 1 is found;
    Brent's method follows. A target below all computed values is searched around the smallest one by golden section.

    Args:
        measure_at: alpha -> value; use the same random numbers at each alpha, so that the function is smooth.
        target: the value to reach, finite.
        low, high: the range of alpha, 0 < low <= 1 <= high; a BatchNorm may limit it, see `smallest_scales`.
        rtol: tolerance, |value - target| <= rtol |target|.
        max_evaluations: most evaluations of the measure.
        size: the name of alpha in messages.

    Raises:
        UsageError: no alpha in the range reaches the target; the message has the nearest value found.
        NumericalError: the measure is not finite at alpha = 1, or the search did not converge.

    Cost: 5 to 20 evaluations.

    Example:
        >>> solution = solve_alpha(lambda a: max(a**2, 4 / a**2), 100.0, rtol=1e-6)
        >>> round(solution.alpha, 4), round(solution.value, 2)
        (0.2, 100.0)
    """
    search = _Search(measure_at, _finite(target), rtol, max_evaluations, size)
    if not 0 < low <= 1 <= high < math.inf:
        raise UsageError(f"expected a range with 0 < low <= 1 <= high, found {low:g} to {high:g}")
    with stage("target", total=max_evaluations) as advance:
        search.advance = advance
        return search.run(math.log(low), math.log(high))


class _Search:
    """One search, with all computed values by log alpha."""

    def __init__(self, measure_at: Callable[[float], float], target: float, rtol: float, budget: int, size: str) -> None:
        self.measure_at, self.target, self.rtol, self.budget, self.size = measure_at, target, rtol, budget, size
        self.seen: dict[float, float] = {}
        self.advance: Callable[[int], None] = lambda steps: None

    def gap(self, x: float) -> float:
        """measure - target at alpha = exp(x), computed once; nan counts as +inf, since a sharpness may overflow."""
        if x not in self.seen:
            if len(self.seen) >= self.budget:
                raise NumericalError(
                    f"expected the search to converge within {self.budget} evaluations, found {self._nearest()} as the nearest "
                    "value",
                    fix="allow a larger rtol or more evaluations",
                )
            self.seen[x] = float(self.measure_at(math.exp(x)))
            self.advance(1)
        value = self.seen[x]
        return value - self.target if not math.isnan(value) else math.inf

    def good(self, x: float) -> bool:
        """Whether alpha = exp(x) reaches the target."""
        return abs(self.gap(x)) <= self.rtol * abs(self.target)

    def run(self, low: float, high: float) -> Solution:
        """Bracket the target, then refine."""
        start = self.gap(0.0)
        if not math.isfinite(start):
            raise NumericalError(
                f"expected a finite value at {self.size} = 1, found none", fix="compute the measure alone first"
            )
        if self.good(0.0):
            return self._solution(0.0)
        bracket = self._bracket(start, low, high) or (self._descend() if start > 0 else None)
        if bracket is None:
            raise UsageError(
                f"expected a target that some {self.size} in [{math.exp(low):.3g}, {math.exp(high):.3g}] reaches, "
                f"found {self.target:.6g}, and {self._nearest()} as the nearest value",
                fix="choose a target that is reached"
                + (", or another layer" if self.size == "alpha" else ", another --seed, or --dtype float64"),
            )
        for x in bracket:
            if self.good(x):
                return self._solution(x)
        return self._close_in(*bracket)

    def _bracket(self, start: float, low: float, high: float) -> tuple[float, float] | None:
        """Neighbouring points on both sides of the target, in growing steps away from 0 in both directions."""
        ends, step = {1: 0.0, -1: 0.0}, math.log(2.0)
        while ends:
            for side, before in list(ends.items()):
                after = min(before + step, high) if side > 0 else max(before - step, low)
                # A sharpness has one minimum over alpha: if it rises while the target is below, this direction is wrong.
                if after == before or (start > 0 and self.gap(after) > self.gap(before)):
                    del ends[side]
                elif self.gap(after) * start <= 0:
                    return before, after
                else:
                    ends[side] = after
            step *= 1.5
        return None

    def _descend(self) -> tuple[float, float] | None:
        """A bracket around the minimum over alpha, for a target below all values so far."""
        points = sorted(self.seen)
        best = min(range(len(points)), key=lambda i: self.gap(points[i]))
        left, right = points[max(best - 1, 0)], points[min(best + 1, len(points) - 1)]
        minimize_scalar(self.gap, bounds=(left, right), method="bounded", options={"xatol": 1e-3, "maxiter": 25})
        lowest = min(self.seen, key=self.gap)
        if self.gap(lowest) > 0 and not self.good(lowest):
            return None
        return lowest, min(left, right, key=abs)

    def _close_in(self, a: float, b: float) -> Solution:
        """Brent's method between two points on both sides of the target, until a value is within the tolerance."""

        def distance(x: float) -> float:
            if self.good(x):
                return 0.0
            value, gap = self.gap(x) + self.target, self.gap(x)
            # Hessian measures are sums of powers of alpha: their logarithms are nearly linear, and do not overflow.
            straight = math.log(value / self.target) if min(value, self.target) > 0 and math.isfinite(value) else gap
            return math.copysign(min(abs(straight), 1e3), gap)

        brentq(distance, a, b, xtol=1e-12, rtol=1e-14)
        nearest = min(self.seen, key=lambda x: abs(self.gap(x)))
        if not self.good(nearest):
            raise NumericalError(
                f"expected a measure that is continuous in {self.size}, found a jump, and {self._nearest()} as the nearest "
                "value",
                fix="use more probes or a larger rtol",
            )
        return self._solution(nearest)

    def _nearest(self) -> str:
        """The value nearest to the target, as text."""
        x = min(self.seen, key=lambda p: abs(self.gap(p)))
        return f"{self.seen[x]:.6g} at {self.size} = {math.exp(x):.4g}"

    def _solution(self, x: float) -> Solution:
        """The solution at log alpha = x."""
        return Solution(math.exp(x), self.seen[x], len(self.seen))


def _finite(target: float) -> float:
    """The target, after checking that it is finite."""
    if not math.isfinite(target):
        raise UsageError(f"expected a finite target, found {target}")
    return target
