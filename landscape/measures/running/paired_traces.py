"""Traces from pairs: the Gauss-Newton part by importance, and of H - G what random probes of a few samples leave.

tr H = tr G + tr(H - G). The first part is a sum of squared gradients over pairs (sample, factor of the loss's curvature), whose
heaviest are found exactly and the others drawn in proportion to a weight that one forward pass gives. The second vanishes for a
network that is affine in each of its weight tensors (`landscape.symmetry.affine_tensors`); elsewhere it is small at a trained
minimum, and one product with its own random vector for a few samples that are drawn in proportion to their residuals is an
unbiased draw of it. Neither cost grows with the number of samples, beyond the forward pass.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from landscape.curvature.pairs.pair_gradients import Pairs
from landscape.linalg.importance import PILOT, Part, Redrawn, Terms, combined
from landscape.linalg.probes import default_generator
from landscape.measures.running.coordinates import Coordinates
from landscape.measures.running.memo import once
from landscape.measures.running.shared_computations import Weight, coordinates_of, layer_norms
from landscape.objective import Objective
from landscape.results import Estimate, Sampling
from landscape.symmetry.affine_tensors import breaks

# Samples that share a random vector in a draw of H - G, and draws of the pilot.
TOGETHER, FIRST = 16, 8
# Pairs of a sample above which one draw mixes all of them.
MANY = 64
# Forward passes of a sample that one pair, one sample of a draw of H - G, and a product of H take.
_PAIR, _DRAW, _PRODUCT = 3.5, 10.0, 6.0
# Products of H to 5 % on a Krylov space, and probes of the rest; their number grows with the square of the accuracy.
_KRYLOV, _PROBES = 15, 15
# The spread that a pilot finds is taken to be larger, since 16 draws know it to 18 %.
_CAUTION = 1.2
# Rounds in which a number of draws that did not suffice is raised.
_ROUNDS = 3
# Products of H - G from which the trial of the fastest method pays.
_WORTH_A_TRIAL = 48
# Coordinates on which a vanishing diagonal of H - G is checked, samples of the check, and the share of a row it may have.
_COORDINATES, _CHECKED, _ROUNDING = 6, 4, 1e-3

Squares = Callable[[Tensor], Tensor]


@dataclass(eq=False)
class Shared:
    """What measures of one seed share: the terms of G that were found, by quantity, and the draws of H - G.

    Attributes:
        objective, pairs, seed: whose they are.
        affine: whether diag(H - G) vanishes; None before it was looked at.
        reason: why it does not.
    """

    objective: Objective
    pairs: Pairs
    seed: int
    _squares: Squares
    affine: bool | None = None
    reason: str = ""
    _other: dict[object, Terms] = field(default_factory=dict)
    _rests: dict[object, "_Rests"] = field(default_factory=dict)

    @classmethod
    def of(cls, objective: Objective, generator: torch.Generator) -> "Shared | None":
        """Those of the generator's seed; None where the loss has no pairs."""

        def begin() -> "Shared | None":
            pairs = objective.pairs()
            if pairs is None or not pairs.weights.sum() > 0 or not np.isfinite(pairs.weights).all():
                return None
            size, norms = objective.theta.abs(), layer_norms(objective)

            def squares(rows: Tensor) -> Tensor:
                return torch.stack([_square(rows), _square(rows * size), _square(rows * norms)], 1)

            seed = generator.initial_seed()
            return cls(objective, pairs, seed, squares)

        return once(objective, generator, ("pairs",), begin)

    @property
    def mixes(self) -> bool:
        """Whether samples are drawn with a random mixture of their pairs: where a sample has many, as with tokens."""
        return self.pairs.outputs > MANY and bool((self.pairs.signs > 0).all())

    def of_weight(self, weight: Weight, exact: bool) -> tuple[Terms, int]:
        """The terms in these units, and their place among the quantities."""
        if weight is None:
            return self.in_units("weights", self._squares, exact), 0
        if isinstance(weight, Tensor):
            for place, known in ((1, self.objective.theta.abs()), (2, layer_norms(self.objective))):
                if torch.equal(weight, known):
                    return self.in_units("weights", self._squares, exact), place
        units = coordinates_of(self.objective, weight)
        return self.in_units(units.mark, lambda rows: _square(units.gather(rows))[:, None], exact), 0

    def in_units(self, mark: object, squares: Squares, exact: bool) -> Terms:
        """The terms of quantities: `squares` takes gradients (k, P) to (k, q)."""
        mixed = self.mixes and not exact
        if (mark, mixed) not in self._other:
            kind = _mixtures if mixed else _terms
            self._other[mark, mixed] = kind(self.objective, self.pairs, squares, self.seed)
        return self._other[mark, mixed]

    def rests(self, mark: object, draw: Callable[[torch.Generator], Tensor]) -> "_Rests":
        """The draws of H - G with random vectors of these units."""
        if mark not in self._rests:
            self._rests[mark] = _Rests(self.objective, self.pairs, draw, self.seed)
        return self._rests[mark]

    def is_affine(self) -> bool:
        """Whether diag(H - G) = 0: by the operations of the network, and checked on random coordinates."""
        if self.affine is None:
            found = self.objective.watched(breaks)
            self.reason = f"not affine in every weight tensor: {', '.join(found[:3])}" if found else ""
            self.affine = not found
            if self.affine and not self._vanishes():
                self.affine, self.reason = False, "the operations say diag H = diag G, second derivatives do not"
            self.affine = self.objective.group.agreed(self.affine)
        return self.affine

    def _vanishes(self) -> bool:
        """Whether random coordinates of the few samples with the largest residuals have no second derivative in H - G."""
        objective, pairs = self.objective, self.pairs
        samples = np.sort(np.argsort(-pairs.residuals, kind="stable")[:_CHECKED])
        g = torch.Generator().manual_seed(self.seed)
        at = torch.randint(objective.dim, (_COORDINATES,), generator=g)
        z = torch.zeros(_COORDINATES, objective.dim, dtype=objective.dtype, device=objective.device)
        z[torch.arange(_COORDINATES), at] = 1.0

        def work(_: np.ndarray) -> np.ndarray:
            rows = pairs.residual_product(samples, np.ones(len(samples)), z)
            own, length = rows[torch.arange(_COORDINATES), at].abs(), rows.norm(dim=1)
            return (own - _ROUNDING * length).double().cpu().numpy()[None]

        found = objective.shared_out(work, np.zeros(1, dtype=np.int64), products=_COORDINATES * len(samples) / objective.samples)
        return bool((found <= 1e-30).all())


class _Rests:
    """Independent draws of tr(B^T (H - G) B), each from a few samples and a random vector of their own."""

    def __init__(self, objective: Objective, pairs: Pairs, draw: Callable[[torch.Generator], Tensor], seed: int) -> None:
        self.objective, self.pairs, self.draw, self.seed = objective, pairs, draw, seed
        self.together = min(TOGETHER, objective.samples)
        self.sums = np.cumsum(pairs.residuals)
        self.values = np.zeros(0)

    def first(self, count: int) -> Part:
        """The mean of the first draws."""
        if self.sums[-1] == 0:  # every sample is fitted exactly
            return Part(np.zeros(1), np.zeros(1), np.inf)
        if count > len(self.values):
            share = (count - len(self.values)) * self.together / self.objective.samples
            fresh = np.arange(len(self.values), count)
            found = self.objective.shared_out(lambda items: np.stack([self._one(int(i)) for i in items]), fresh, products=share)
            self.values = np.concatenate([self.values, found[:, 0]])
        known = self.values[:count]
        return Part(known.mean(keepdims=True), known.var(ddof=1, keepdims=True) / count, count - 1.0)

    def _one(self, number: int) -> np.ndarray:
        g = torch.Generator().manual_seed((self.seed * 1_000_003 + number) * 2 + 1 & 0x7FFF_FFFF_FFFF_FFFF)
        at = torch.rand(self.together, generator=g, dtype=torch.float64).numpy() * self.sums[-1]
        samples = np.clip(np.searchsorted(self.sums, at, side="right"), 0, len(self.sums) - 1)
        factors = self.sums[-1] / (self.together * self.pairs.residuals[samples])
        z = self.draw(g)[None]
        bent = self.pairs.residual_product(samples, factors, z)
        return np.array([float((z.double() * bent.double()).sum())])


def paired_trace(
    objective: Objective,
    generator: torch.Generator | None,
    weight: Weight = None,
    *,
    relative_error: float,
    exact: bool = False,
    gauss_newton: bool = False,
) -> Estimate | None:
    """Trace of B^T H B, or of B^T G B, with a 95 % interval whose half-width is `relative_error` of the value.

    A pilot of 16 of the heaviest pairs and 16 draws of the others, and where H - G counts of 8 draws of it, tells what each way
    would cost. `reason` names the one that was taken: "exact diagonal" (diag H = diag G), "control variate" (G by pairs, H - G
    by probes) or, for G itself, "pairs". All pairs are taken where that is asked for (`exact`) or costs no more.

    Args:
        objective: the network on its data.
        generator: its seed is that of all draws.
        weight: B, as for `trace_of`.
        relative_error: of the interval.
        exact: take all pairs, so that tr G has no error.
        gauss_newton: the trace of G instead of H.

    Returns:
        Estimate of kind "exact" or "t", with the sampling error from the same pass; None where there are no pairs, or probes of
        H would be cheaper.

    Cost: a forward pass, a gradient of a single sample for each pair, a product of 16 samples for each draw of H - G.
    """
    random = default_generator(generator)
    shared = Shared.of(objective, random)
    if shared is None:
        return None
    terms, place = shared.of_weight(weight, exact)
    units = coordinates_of(objective, weight)

    def signs(g: torch.Generator) -> Tensor:
        z = torch.randint(0, 2, (units.dim,), generator=g, dtype=torch.int8).mul_(2).sub_(1)
        return units.spread(z.to(device=objective.device, dtype=objective.dtype))

    inside = not isinstance(weight, Coordinates) or _within_tensors(objective, weight)
    plain = gauss_newton or (inside and shared.is_affine())
    rests = None if plain else shared.rests(units.mark, signs)
    name = "pairs" if gauss_newton else "exact diagonal" if plain else "control variate"
    return of_terms(shared, terms, place, rests, name, relative_error, exact)


def of_terms(
    shared: Shared, terms: Terms, place: int, rests: _Rests | None, name: str, relative_error: float, exact: bool
) -> Estimate | None:
    """One quantity from its terms and its draws of H - G; None where probes of H would be cheaper."""
    objective, goal = shared.objective, relative_error or 0.05
    plan = _planned(shared, terms, place, rests, goal, exact)
    if plan is None:
        return None
    heavy, draws, count = plan
    for last in range(_ROUNDS):
        parts = [_only(terms.estimate(heavy, draws), place), *([] if rests is None else [rests.first(count)])]
        whole = combined(*parts)
        value, deviation = float(whole.value[0]), math.sqrt(float(whole.variance[0]))
        half = deviation * (whole.interval_factor() if deviation else 0.0)
        if half <= goal * abs(value) or last == _ROUNDS - 1:
            break
        more = min(4.0, 1.1 * (half / max(goal * abs(value), 1e-300)) ** 2)
        draws = math.ceil(draws * more) if parts[0].variance[0] > 0 else draws
        count = math.ceil(count * more) if len(parts) > 1 and parts[1].variance[0] > 0.05 * whole.variance[0] else count
    drawn = "" if heavy == len(terms) else f", {draws} drawn"
    pairs = f"{draws} samples drawn" if isinstance(terms, Redrawn) else f"{heavy} of {len(terms)} pairs exactly{drawn}"
    remark = f"{name}: {pairs}" + ("" if rests is None else f"; H - G: {count} draws")
    if deviation == 0:
        estimate = Estimate(value, None, "exact", heavy, reason=remark)
    else:
        reached = half <= 1.25 * goal * abs(value)
        n = max(2, 1 + int(min(whole.freedom, 1e9)))
        lost = "" if reached or not value else f"; a half-width of {half / abs(value):.1%}"
        estimate = Estimate(value, deviation, "t", n, reached, remark + lost)
    return _with_data_error(shared, terms, place, heavy, draws, parts, estimate)


def _planned(
    shared: Shared, terms: Terms, place: int, rests: _Rests | None, goal: float, exact: bool
) -> tuple[int, int, int] | None:
    """Pairs to find exactly, pairs to draw and draws of H - G; None if probes of H take less."""
    objective, every = shared.objective, len(terms)
    single = not isinstance(terms, Redrawn)
    if single and (every <= 4 * PILOT or exact):
        heavy = every
        pilot = _only(terms.estimate(every, 0), place)
        spread = 0.0
    else:
        heavy = min(PILOT, every) if single else 0
        pilot = _only(terms.estimate(heavy, PILOT), place)
        spread = _spread(terms.ratios(heavy, PILOT)[:, place])
    other = Part(np.zeros(1), np.zeros(1), np.inf) if rests is None else rests.first(FIRST)
    deviation = goal * abs(float(pilot.value[0] + other.value[0])) / 2.05
    noise = _CAUTION * math.sqrt(float(other.variance[0]) * FIRST)
    if single and heavy < every:
        # The number found exactly follows from the plain trace alone, so that all measures find the same.
        first = _spread(terms.ratios(heavy, PILOT)[:, 0])
        size = goal * abs(float(terms.estimate(heavy, PILOT).value[0])) / 2.05
        heavy = terms.heaviest(first, size * (1.0 if rests is None else math.sqrt(0.5)))
    # The least cost of a given variance: draws in proportion to the deviation over the root of the cost (Neyman 1934).
    sides = [(spread * terms.rest(heavy), _PAIR), (noise, _DRAW * (1 if rests is None else rests.together))]
    root = sum(s * math.sqrt(c) for s, c in sides) / max(deviation, 1e-300) ** 2
    draws, count = (math.ceil(min(s / math.sqrt(c) * root, 1e12)) for s, c in sides)
    draws = max(draws, PILOT) if heavy < every else 0
    if single and heavy + draws >= every:
        heavy, draws = every, 0
        root = sides[1][0] / max(deviation, 1e-300)
        count = math.ceil(min(root**2, 1e12))
    count = 0 if rests is None else max(count, FIRST)
    if rests is not None:
        cost = _PAIR * (heavy + draws) + sides[1][1] * count
        probes = _PRODUCT * objective.samples * (_KRYLOV + _PROBES * (0.05 / goal) ** 2)
        if cost > probes and not exact:
            return None
        if count > _WORTH_A_TRIAL:
            _ = objective.plan  # chooses the fastest way to compute products
            shared.pairs.engine = replace(shared.pairs.engine, method=objective.method)
    heavy, draws, count = objective.group.agreed((heavy, draws, count))
    return heavy, draws, count


def _spread(ratios: np.ndarray) -> float:
    """Standard deviation of a draw, with caution."""
    return _CAUTION * max(float(ratios.std(ddof=1)), 0.02 * abs(float(ratios.mean())))


def _with_data_error(
    shared: Shared, terms: Terms, place: int, heavy: int, draws: int, parts: list[Part], estimate: Estimate
) -> Estimate:
    """Attach the sampling error: what every sample adds to the trace.

    Of a pair that was found it is known. The others have their weight times the mean ratio of the draws; half of them are
    moved up and half down by the ratio's deviation, so that their squares have the right mean too. tr(H - G) is shared out by
    the residuals.
    """
    pairs = shared.pairs
    each = np.zeros(len(pairs.residuals))
    found = terms.of(np.arange(heavy))[:, place] if heavy else np.zeros(0)
    owner = np.arange(len(each)) if isinstance(terms, Redrawn) else pairs.sample
    np.add.at(each, owner[terms.order[:heavy]], found)
    if heavy < len(terms):
        ratios = terms.ratios(heavy, draws)[:, place]
        others = np.bincount(owner[terms.order[heavy:]], terms.weights[heavy:], len(each))
        side = np.ones(len(each)) if not isinstance(terms, Redrawn) else np.zeros(len(each))  # there it is mostly of the signs
        side[np.argsort(-others, kind="stable")[1::2]] *= -1.0
        each += others * (ratios.mean() + side * ratios.std(ddof=1))
    if len(parts) > 1 and pairs.residuals.sum() > 0:
        each += float(parts[1].value[0]) * pairs.residuals / pairs.residuals.sum()
    weights = pairs.counted
    values = np.where(weights > 0, each * weights.sum() / np.where(weights > 0, weights, 1.0), 0.0)
    sampling = Sampling.of(values[None], weights)
    return replace(estimate, data_stderr=None if sampling is None else sampling.stderr, sampling=sampling)


def _terms(objective: Objective, pairs: Pairs, squares: Squares, seed: int) -> Terms:
    """The terms of quantities that are sums over pairs of what `squares` makes of a gradient."""

    def work(indices: np.ndarray) -> np.ndarray:
        out = None
        for at, rows in pairs.rows(indices):
            found = squares(rows).double().cpu().numpy()
            out = np.empty((len(indices), found.shape[1])) if out is None else out
            out[at] = found
        assert out is not None  # asked for at least one
        return out * pairs.signs[indices][:, None]

    return Terms(
        pairs.weights, lambda i: objective.shared_out(work, i, gradients=len(i) / max(1, objective.samples)), seed
    )


def _mixtures(objective: Objective, pairs: Pairs, squares: Squares, seed: int) -> Terms:
    """The same from draws of samples, each with random signs for all of its pairs."""

    def find(numbers: np.ndarray, samples: np.ndarray) -> np.ndarray:
        def work(places: np.ndarray) -> np.ndarray:
            out = None
            for at, rows in pairs.mixed_rows(numbers[places], samples[places], seed):
                found = squares(rows).double().cpu().numpy()
                out = np.empty((len(places), found.shape[1])) if out is None else out
                out[at] = found
            assert out is not None  # asked for at least one
            return out

        return objective.shared_out(work, np.arange(len(numbers)), gradients=len(numbers) / objective.samples)

    return Redrawn(pairs.by_sample, find, seed)


def _only(part: Part, place: int) -> Part:
    """One quantity of an estimate."""
    return Part(part.value[place : place + 1], part.variance[place : place + 1], part.freedom)


def _square(rows: Tensor) -> Tensor:
    """||g||^2 of every row, float64."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()


def _within_tensors(objective: Objective, units: Coordinates) -> bool:
    """Whether every group of weights that a coordinate moves lies in one weight tensor."""
    ids = torch.empty_like(objective.theta)
    for number, entry in enumerate(objective.layout):
        ids[entry.start : entry.stop] = number
    ones = torch.ones_like(objective.theta)
    moved = units.spread(torch.ones(units.dim, dtype=objective.dtype, device=objective.device)) != 0
    # A group lies in one tensor if its sum of w^2 (number - mean)^2 vanishes: three sums tell.
    size = units.gather(ones * moved * objective.theta)
    first, second = units.gather(ids * objective.theta), units.gather(ids.square() * objective.theta)
    spread = second * size - first.square()
    return bool((spread.abs() <= 1e-4 * (second * size).abs() + 1e-30).all())
