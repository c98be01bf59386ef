"""Partial rank correlation of a measure with the generalization gap, hyperparameters and training loss held fixed."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from landscape.comparison.correlation import ENOUGH, unanimous
from landscape.comparison.granulated import levels
from landscape.comparison.intervals import DRAWS, percentiles, resampled
from landscape.errors import UsageError
from landscape.results import PartialCorrelation

# What is held fixed unless told otherwise: the two hyperparameters that move sharpness most, and the loss at which it is taken.
CONTROLS = ("lr", "batch_size", "train_loss")
# What can be held fixed beside hyperparameters.
CONDITIONS = ("train_loss", "train_accuracy")
# With fewer degrees of freedom the interval is nearly [-1, 1]; it would say that it says nothing.
ENOUGH_FREEDOM = 5
# A hyperparameter with at least this many runs a value is held fixed value by value.
_RUNS_A_VALUE = 5
_BLOCK = 4_000_000  # numbers in memory at once


def refuse_unknown(names: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a control that is none of the usual ones, no loss or accuracy of training, and in no run's hyperparameters.

    Raises:
        UsageError: as said.
    """
    recorded = dict.fromkeys(k for s in settings for k in s)
    for name in names:
        if name not in (*CONTROLS, *CONDITIONS, *recorded):
            there = ", ".join((*CONDITIONS, *recorded))
            raise UsageError(f"expected a control that the runs record, found {name!r}", fix=f"choose among {there}")


class Controls:
    """Quantities that are held fixed.

    A hyperparameter enters as one indicator for each of its values, so that no effect of it, monotone or not, is left; one
    with fewer than five runs a value on average, like a learning rate drawn at random, enters by its ranks if it is a number
    and as indicators if not. A loss or an accuracy enters by its ranks. Effects of several controls add.

    Args:
        settings: hyperparameters of every run; one that does not vary is left out.
        scores: name -> one value per run, e.g. the training loss.
        names: what is held fixed; a name that is in neither, or does not vary, is left out.
    """

    def __init__(self, settings: Sequence[Mapping[str, Any]], scores: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        varying, rows = levels(settings)
        names = [n for n in dict.fromkeys(names) if n in varying or (n in scores and len(set(scores[n])) > 1)]
        self.names = tuple(names)
        fixed, ranked = [], []
        for name in names:
            if name not in varying:
                ranked.append(scores[name])
                continue
            column = [row[varying.index(name)] for row in rows]
            known = list(dict.fromkeys(column))
            numbers = [None if text is None else json.loads(text) for text in column]
            if len(known) * _RUNS_A_VALUE > len(rows) and all(_is_number(x) for x in numbers):
                ranked.append(np.array(numbers, float))
            else:
                fixed += [np.array([value == k for value in column], float) for k in known[1:]]
        self.indicators = np.array(fixed).reshape(len(fixed), len(rows))
        self.below = [_below(x) for x in ranked]

    def __len__(self) -> int:
        """Number of regressors."""
        return len(self.indicators) + len(self.below)


def partial_spearman(
    x: np.ndarray, y: np.ndarray, controls: Controls, random: np.random.Generator, draws: int = DRAWS
) -> PartialCorrelation | None:
    """Spearman's correlation of x and y, the controls held fixed.

    The mid-ranks of x and of y are regressed on the controls by least squares, and rho is Pearson's correlation of the two
    residuals. With one control that enters by its ranks it is the textbook formula
    (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)) of Spearman correlations. If x and y are independent at every value of
    a single categorical control, rho of the population is 0.

    The interval is a percentile bootstrap over runs, ranks taken anew in every resample. It covers 93 to 99.9 % for 10 to 40
    runs, one to four regressors and rho between 0 and 0.84: too wide rather than too short for few degrees of freedom. The
    p-value is from Student's t with n - 2 - k degrees of freedom, k the number of regressors; its level is 3 to 7 % at 5 %.
    If all residuals are proportional, resamples cannot disagree; the interval then ends as for Kendall's tau, with half as many
    pairs as degrees of freedom. Runs are assumed to be independent.

    Args:
        x, y: one value per run; infinities are ranked.
        controls: what is held fixed.
        random, draws: generator, and number of bootstrap resamples.

    Returns:
        PartialCorrelation with q = nan; None if nothing is held fixed, no degree of freedom is left, or the controls determine
            the ranks of x or y.

    Reference: Kendall and Stuart 1973, The Advanced Theory of Statistics 2, chapter 27, for partial correlation; Jiang et al.
        2020, arXiv:1912.02178, section 2.2, for conditioning on hyperparameters, there by mutual information.

    Example:
        The measure follows the gap only because both follow the batch size.
        >>> random = np.random.default_rng(0)
        >>> batch = np.repeat([16, 64, 256], 200)
        >>> measure, gap = np.sqrt(batch) + random.normal(size=600), -100 / batch + random.normal(size=600)
        >>> held = Controls([{"batch_size": int(b)} for b in batch], {}, ["batch_size"])
        >>> found = partial_spearman(measure, gap, held, random, 500)
        >>> bool(stats.spearmanr(measure, gap).statistic > 0.7), found.low < 0 < found.high
        (True, True)
    """
    n, freedom = len(x), len(x) - 2 - len(controls)
    if not len(controls) or freedom < 1:
        return None
    below = _below(x), _below(y)
    rho = float(_partial(np.ones((1, n)), *below, controls)[0])
    if math.isnan(rho):
        return None
    low = high = None
    if n >= ENOUGH and freedom >= ENOUGH_FREEDOM:
        blocks = np.array_split(resampled(n, random, draws), 1 + draws * n * (len(controls) + 2) // _BLOCK)
        drawn = np.concatenate([_partial(block, *below, controls) for block in blocks])
        low, high = unanimous(rho, freedom // 2) if abs(rho) > 1 - 1e-9 else percentiles(drawn[np.isfinite(drawn)])
    t = abs(rho) * math.sqrt(freedom / max(1 - rho * rho, 1e-300))
    return PartialCorrelation(rho, float(2 * stats.t.sf(t, freedom)), math.nan, low, high, n, controls.names)


def _partial(weights: np.ndarray, x: np.ndarray, y: np.ndarray, controls: Controls) -> np.ndarray:
    """rho for each row of weights of the runs; nan if a residual vanishes."""
    ranks = [weights @ below for below in (x, y, *controls.below)]
    columns = np.stack([*ranks, *(np.broadcast_to(row, weights.shape) for row in controls.indicators)], axis=1)
    columns = columns - ((columns * weights[:, None]).sum(2) / weights.sum(1)[:, None])[:, :, None]
    size = np.sqrt((columns**2 * weights[:, None]).sum(2, keepdims=True))
    columns = columns / np.where(size > 0, size, 1.0)
    products = (columns * weights[:, None]) @ columns.transpose(0, 2, 1)
    # What is left of the correlations of x and y after regression: a Schur complement.
    across, among = products[:, :2, 2:], products[:, 2:, 2:]
    left = products[:, :2, :2] - across @ np.linalg.pinv(among, rcond=1e-9, hermitian=True) @ across.transpose(0, 2, 1)
    own = left[:, 0, 0], left[:, 1, 1]
    there = np.minimum(*own) > 1e-9
    scale = np.sqrt(np.where(there, own[0] * own[1], 1.0))
    return np.where(there, np.clip(left[:, 0, 1] / scale, -1, 1), np.nan)


def _below(x: np.ndarray) -> np.ndarray:
    """(i, j): 1 if run i has a smaller value than run j, 1/2 if an equal one; a row of weights times it is weighted ranks."""
    return (x[:, None] < x).astype(float) + 0.5 * (x[:, None] == x)


def _is_number(x: Any) -> bool:
    """Whether a hyperparameter's value can be ranked."""
    return isinstance(x, int | float) and not isinstance(x, bool)
