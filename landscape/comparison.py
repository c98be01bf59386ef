"""Comparing groups of minima: medians with intervals, and rank correlation with the generalization gap."""

import math

import numpy as np
from scipy import stats

from landscape.errors import UsageError
from landscape.results import Comparison, GroupValue, Sharpness

# Below this many runs a bootstrap of the median says nothing: its resamples are a handful of the same numbers.
_ENOUGH = 5


def compare(groups: dict[str, list[Sharpness]], gaps: dict[str, list[float]] | None = None, *, seed: int = 0) -> Comparison:
    """Put groups of runs side by side, measure by measure.

    Args:
        groups: name -> the runs' Sharpness; every measure that all runs have is compared.
        gaps: name -> generalization gap of every run (training accuracy less test accuracy), in the same order.
        seed: of the bootstrap.

    Returns:
        Comparison: the median of each group with a 95 % percentile bootstrap interval (five runs or more; else the range),
            Kendall's
        tau-b of each measure with the gap over all runs (three runs or more), and remarks on what cannot be concluded.

    Raises:
        UsageError: an empty group.

    Reference: Jiang et al. 2020, arXiv:1912.02178, for rank correlation with the gap; the training losses should be alike.
    """
    for name, runs in groups.items():
        if not runs:
            raise UsageError(f"expected runs in group {name}, found none")
    everyone = [s for runs in groups.values() for s in runs]
    names = [m for m in everyone[0].measures if all(m in s.measures for s in everyone)]
    random = np.random.default_rng(seed)
    table, taus = {}, {}
    flat_gaps = None if gaps is None else [g for name in groups for g in gaps[name]]
    for m in names:
        table[m] = {name: _group([s[m].value for s in runs], random) for name, runs in groups.items()}
        values = [s[m].value for s in everyone]
        if flat_gaps is not None and len(values) >= 3 and all(map(math.isfinite, values)):
            tau = stats.kendalltau(values, flat_gaps)
            if math.isfinite(tau.statistic):
                taus[m] = (float(tau.statistic), float(tau.pvalue))
    return Comparison(groups, gaps, table, taus, remarks=tuple(_remarks(groups, everyone)))


def _group(values: list[float], random: np.random.Generator) -> GroupValue:
    """Median and interval, or range, of one group."""
    a = np.asarray(values)
    if len(a) < _ENOUGH or not np.isfinite(a).all():
        return GroupValue(float(np.median(a)), float(a.min()), float(a.max()), len(a), False)
    medians = np.median(random.choice(a, (10_000, len(a))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return GroupValue(float(np.median(a)), float(low), float(high), len(a), True)


def _remarks(groups: dict[str, list[Sharpness]], everyone: list[Sharpness]) -> list[str]:
    """What the reader must know before believing a difference."""
    out = []
    small = [f"{name} ({len(runs)})" for name, runs in groups.items() if len(runs) < _ENOUGH]
    if small:
        out.append(
            f"fewer than {_ENOUGH} runs in {', '.join(small)}: "
            "brackets are the range of these runs; nothing can be concluded about others"
        )
    losses = [s.loss.value for s in everyone]
    if max(losses) > 1.5 * min(losses) + 1e-12:
        out.append(
            f"training losses run from {min(losses):.3g} to {max(losses):.3g}: "
            "curvature shrinks with the loss, compare at a matched one"
        )
    return out
