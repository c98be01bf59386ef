"""Worst-environment sign error: whether a measure orders the generalization gap under every single change of a recipe."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape.comparison.difference import ENOUGH
from landscape.comparison.granulated import levels, sign
from landscape.comparison.intervals import LEVEL, superiority_interval
from landscape.results import SignError


@dataclass(frozen=True)
class Environments:
    """Pairs of settings that differ in a single hyperparameter and in the gap.

    Attributes:
        runs: name -> indices of the runs of the first setting, and of the second.
        passed_over: number of pairs of settings with a single difference that have too few runs or no difference of the gap.
    """

    runs: dict[str, tuple[np.ndarray, np.ndarray]]
    passed_over: int


def environments(settings: Sequence[Mapping[str, Any]], gaps: np.ndarray) -> Environments:
    """Find the environments among runs with these hyperparameters and gaps.

    Two settings are an environment if they differ in one hyperparameter, have at least five runs each, and the 95 % interval
    of the probability that a run of the first has the larger gap does not contain 1/2. Where the order of the gap is chance,
    so is the sign error of every measure, and the worst of many such errors would be near 1.

    Example:
        >>> settings = [{"lr": lr} for lr in (0.1, 0.2) for _ in range(5)]
        >>> environments(settings, np.arange(10.0)).runs
        {'lr 0.1 / 0.2': (array([0, 1, 2, 3, 4]), array([5, 6, 7, 8, 9]))}
    """
    names, rows = levels(settings)
    members: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        members[row].append(i)
    found, passed_over = {}, 0
    for a, b in itertools.combinations(members, 2):
        differing = [c for c in range(len(names)) if a[c] != b[c]]
        if len(differing) != 1:
            continue
        first, second = np.array(members[a]), np.array(members[b])
        if min(len(first), len(second)) < ENOUGH or not _ordered(gaps[first], gaps[second]):
            passed_over += 1
            continue
        (c,) = differing
        rest = ", ".join(f"{n} {_told(v)}" for k, (n, v) in enumerate(zip(names, a, strict=True)) if k != c)
        found[f"{names[c]} {_told(a[c])} / {_told(b[c])}{f' ({rest})' if rest else ''}"] = first, second
    return Environments(found, passed_over)


def sign_error(values: np.ndarray, gaps: np.ndarray, found: Environments) -> SignError:
    """The largest sign error of a measure over the environments, with an interval.

    The sign error of an environment is the mean of (1 - sign(m_i - m_j) sign(g_i - g_j)) / 2 over its pairs of runs, one of
    each setting; a tie counts 1/2. Larger values are taken to predict a larger gap.

    The largest of k estimates lies above the largest of k truths. The interval allows for that: its upper end is the largest
    of the environments' upper ends at 2.5 %, its lower end the largest of their lower ends at 2.5 % / k. It holds the truth
    with at least 95 % if the intervals of single environments do (`superiority_interval`, for another statistic of all
    pairs). It is wide for many environments of few runs, and covers 95 to 100 % for 5 to 10 runs and one to six environments.

    Args:
        values: the measure, one value per run; infinities are ranked.
        gaps: generalization gap, one per run.
        found: the environments among these runs.

    Returns:
        SignError in [0, 1]; all None, with a reason, if there is no environment.

    Reference: Dziugaite et al. 2020, arXiv:2010.11924, robust sign error, with environments as there: two settings that differ
        in one hyperparameter, and all pairs of seeds. Deviations: the paper weights a pair by Hoeffding's bound for the
        difference of its gaps on the test set; here environments without a significant difference of the gap over seeds are
        left out, and pairs count alike.

    Example:
        >>> gaps = np.arange(10.0)
        >>> found = environments([{"lr": lr} for lr in (0.1, 0.2) for _ in range(5)], gaps)
        >>> sign_error(-gaps, gaps, found).worst, sign_error(gaps**3, gaps, found).worst
        (1.0, 0.0)
    """
    if not found.runs:
        reason = f"of {found.passed_over} pairs of settings that differ in one hyperparameter, none has {ENOUGH} runs each "
        return SignError(None, None, None, None, {}, found.passed_over, reason + "and a significant difference of the gap")
    errors = {name: _errors(values, gaps, *runs) for name, runs in found.runs.items()}
    means = {name: float(e.mean()) for name, e in errors.items()}
    tail = (1 - LEVEL) / 2
    high = max(superiority_interval(e, tail)[1] for e in errors.values())
    low = max(superiority_interval(e, tail / len(errors))[0] for e in errors.values())
    where = max(means, key=means.__getitem__)
    return SignError(means[where], low, high, where, means, found.passed_over)


def _errors(values: np.ndarray, gaps: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """0, 1/2 or 1 for every pair of runs of two settings."""
    return (1 - sign(values[first][:, None], values[second]) * sign(gaps[first][:, None], gaps[second])) / 2


def _ordered(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether it is known which setting has the larger gap."""
    low, high = superiority_interval((1 + sign(a[:, None], b)) / 2)
    return not low <= 0.5 <= high


def _told(value: str | None) -> str:
    """A hyperparameter's value in an environment's name."""
    return "unset" if value in (None, "null") else value.strip('"')
