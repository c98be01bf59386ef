"""How many pairs are found exactly, how many are drawn, and how many draws of H - G: the least work for an accuracy."""

import math
from dataclasses import replace

import numpy as np

from landscape.linalg.importance import LEAST, PILOT, Part, Redrawn, Terms, combined, draws_to
from landscape.measures.paired.shared_pairs import Rests, Shared
from landscape.results import Estimate, Sampling
from landscape.spectra.known_pairs import PAIR, PRODUCT

# Relative error where none is asked for.
DEFAULT = 0.05
# Draws of H - G in the pilot; their distribution is skewed, so that fewer would not tell its spread.
_FIRST = 16
# Forward passes of a sample that one sample of a draw of H - G takes.
_DRAW = 10.0
# What a draw of a few samples costs beside its work, in samples: in small transformers one of 8 takes as long as a product of
# 32. A constant and not the clock, so that the same seed chooses the same way.
_OVERHEAD = 16
# Products of H where probes are used, at any accuracy and further ones to 5 %.
_AT_ONCE, _FURTHER = 10, 10
# The spread that a pilot finds is taken to be larger, since 32 draws know it to 13 %.
_CAUTION = 1.2
# The same for draws of H - G.
_MORE_CAUTION = 1.4
# Draws of the pilot.
_DRAWS = 2 * PILOT
# Share of all terms from which on all are found: then nothing is left to be wrong about.
_ALL = 0.8
# Work with exact pairs and draws of H - G, in units of that of probes of H.
_MOST = 4.0
# Least deviation and size, whose square is a number too: a trace may be 0.
_TINY = 1e-100
# Products of H - G from which the trial of the fastest method pays.
_WORTH_A_TRIAL = 48


def of_terms(
    shared: Shared, terms: Terms, place: int, rests: Rests | None, name: str, relative_error: float, exact: bool
) -> Estimate | str:
    """One quantity from its terms and its draws of H - G; or that probes of H would be cheaper.

    How many of each is decided by a pilot, none of whose draws are used again, and not changed after looking at the result: an
    estimate that is stopped when its interval is narrow enough is stopped when it has not seen the large terms.
    """
    goal = relative_error or DEFAULT
    plan = _planned(shared, terms, place, rests, goal, exact)
    if isinstance(plan, str):
        return plan
    heavy, draws, count = plan
    parts = [_only(terms.estimate(heavy, draws, 1), place), *([] if rests is None else [rests.mean(count, _FIRST)])]
    whole = combined(*parts)
    value, deviation = float(whole.value[0]), math.sqrt(float(whole.variance[0]))
    half = deviation * (whole.interval_factor() if deviation else 0.0)
    drawn = "" if heavy == len(terms) else f", {draws} drawn"
    kind = "samples" if name == "samples" else "pairs"
    took = f"{draws} samples drawn" if isinstance(terms, Redrawn) else f"{heavy} of {len(terms)} {kind} exactly{drawn}"
    remark = (took if name == kind else f"{name}: {took}") + ("" if rests is None else f"; H - G: {count} draws")
    if deviation == 0:
        estimate = Estimate(value, None, "exact", heavy, reason=remark)
    else:
        reached = half <= 1.25 * goal * abs(value)
        n = max(2, 1 + int(min(whole.freedom, 1e9)))
        lost = "" if reached or not value else f"; a half-width of {half / abs(value):.1%}"
        estimate = Estimate(value, deviation, "t", n, reached, remark + lost)
    rest = float(parts[1].value[0]) if len(parts) > 1 else 0.0
    return _with_data_error(shared, terms, place, (heavy, draws), rest, estimate)


def _planned(
    shared: Shared, terms: Terms, place: int, rests: Rests | None, goal: float, exact: bool
) -> tuple[int, int, int] | str:
    """Pairs to find exactly, pairs to draw and draws of H - G; or that probes of H take less."""
    objective, every = shared.objective, len(terms)
    single = not isinstance(terms, Redrawn)
    probes = PRODUCT * objective.samples * expected_products(goal)
    draw = 0.0 if rests is None else _DRAW * (rests.together + _OVERHEAD)
    if single and (exact or _ALL * every <= PILOT + LEAST):
        heavy = every
        pilot = _only(terms.estimate(every, 0), place)
        spread = mean = 0.0
    else:
        heavy = PILOT if single else 0
        pilot = _only(terms.estimate(heavy, _DRAWS), place)
        spread, mean = _spread(terms.ratios(heavy, _DRAWS)[:, place])
    if rests is not None and not exact:
        size = goal * abs(float(pilot.value[0])) / 2.05
        least = (spread * terms.rest(heavy) / max(size, _TINY)) ** 2
        if PAIR * least + draw * 2 * _FIRST > probes:  # without looking at H - G: its pilot alone may cost more
            return "probes of H take less"
    other = Part(np.zeros(1), np.zeros(1), np.inf) if rests is None else rests.mean(_FIRST)
    deviation = max(goal * abs(float(pilot.value[0] + other.value[0])) / 2.05, _TINY)
    noise = _MORE_CAUTION * math.sqrt(float(other.variance[0]) * _FIRST)
    if single and heavy < every:
        # The number found exactly follows from the plain trace alone, so that all measures find the same.
        first = _spread(terms.ratios(heavy, _DRAWS)[:, 0])
        size = goal * abs(float(terms.estimate(heavy, _DRAWS).value[0])) / 2.05
        heavy = terms.heaviest(*first, size * (1.0 if rests is None else math.sqrt(0.5)))
    # The least cost of a given variance: draws in proportion to the deviation over the root of the cost (Neyman 1934).
    sides = [(spread * terms.rest(heavy), PAIR), (noise, draw or 1.0)]
    root = sum(s * math.sqrt(c) for s, c in sides) / deviation**2
    count = math.ceil(min(noise / math.sqrt(sides[1][1]) * root, 1e12))
    draws = 0
    if heavy < every:
        left = math.sqrt(sides[0][0] * math.sqrt(PAIR) / max(root, _TINY))  # deviation that is the pairs' share
        draws = max(LEAST, math.ceil(draws_to(left, sides[0][0], mean * terms.rest(heavy))))
    if single and heavy + draws >= _ALL * every:
        heavy, draws = every, 0
        root = sides[1][0] / deviation
        count = math.ceil(min(root**2, 1e12))
    if not single:
        draws = min(draws, max(LEAST, math.ceil(_MOST * probes / PAIR)))
    count = 0 if rests is None else max(count, _FIRST)
    if rests is not None:
        if exact:
            count = min(count, max(_FIRST, math.ceil(_MOST * probes / sides[1][1])))
        elif PAIR * (heavy + draws) + sides[1][1] * count > probes:
            return "probes of H take less"
        if count > _WORTH_A_TRIAL:
            _ = objective.plan  # chooses the fastest way to compute products
            shared.pairs.engine = replace(shared.pairs.engine, method=objective.method)
    heavy, draws, count = objective.group.agreed((heavy, draws, count))
    return heavy, draws, count


def expected_products(goal: float) -> float:
    """Products of H that probes take to this accuracy, roughly: a Krylov space holds the outliers."""
    return _AT_ONCE + _FURTHER * 0.05 / goal


def _spread(ratios: np.ndarray) -> tuple[float, float]:
    """Standard deviation of a draw, with caution, and the size of its mean."""
    mean = abs(float(ratios.mean()))
    return _CAUTION * max(float(ratios.std(ddof=1)), 0.02 * mean), mean


def _with_data_error(
    shared: Shared, terms: Terms, place: int, found: tuple[int, int], rest: float, estimate: Estimate
) -> Estimate:
    """Attach the sampling error: what every sample adds to the trace.

    Of a pair that was found it is known. The others have their weight times the mean ratio of the draws; half of them are
    moved up and half down by the ratio's deviation, so that their squares have the right mean too. tr(H - G) is shared out by
    the residuals times the sizes.

    Args:
        found: pairs that were found exactly, draws of the others.
        rest: tr(H - G).
    """
    pairs, (heavy, draws) = shared.pairs, found
    each = np.zeros(len(pairs.residuals))
    exactly = terms.of(np.arange(heavy))[:, place] if heavy else np.zeros(0)
    owner = pairs.sample if terms.length == len(pairs.sample) else np.arange(len(each))
    np.add.at(each, owner[terms.order[:heavy]], exactly)
    if heavy < len(terms):
        ratios = terms.ratios(heavy, draws, 1)[:, place]
        others = np.bincount(owner[terms.order[heavy:]], terms.weights[heavy:], len(each))
        side = np.ones(len(each)) if not isinstance(terms, Redrawn) else np.zeros(len(each))  # there it is mostly of the signs
        side[np.argsort(-others, kind="stable")[1::2]] *= -1.0
        each += others * (ratios.mean() + side * ratios.std(ddof=1))
    bends = pairs.residuals * pairs.sizes
    if rest and bends.sum() > 0:
        each += rest * bends / bends.sum()
    weights = pairs.counted
    values = np.where(weights > 0, each * weights.sum() / np.where(weights > 0, weights, 1.0), 0.0)
    sampling = Sampling.of(values[None], weights)
    return replace(estimate, data_stderr=None if sampling is None else sampling.stderr, sampling=sampling)


def _only(part: Part, place: int) -> Part:
    """One quantity of an estimate."""
    return Part(part.value[place : place + 1], part.variance[place : place + 1], part.freedom)
