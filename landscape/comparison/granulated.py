"""Granulated rank correlation of a measure with the generalization gap, between runs that differ in one hyperparameter."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from landscape.comparison.correlation import unanimous
from landscape.comparison.intervals import DRAWS, percentiles, resampled
from landscape.results import Granulated

# Entries of a recipe that are not hyperparameters: seeds, and settings that do not affect training.
BOOKKEEPING = {"seed", "corruption_seed", "evaluate_every", "schema", "history", "final", "versions", "seconds"}
# An interval needs at least this many runs and pairs.
ENOUGH_RUNS, ENOUGH_PAIRS = 8, 10
_BLOCK = 4_000_000  # weights of pairs in memory at once


def hyperparameters(recipe: Mapping[str, Any] | None) -> dict[str, Any]:
    """The hyperparameters of a run: the values of a checkpoint's recipe, without seeds and bookkeeping.

    A recipe of `landscape train` has them under "training"; options of the network are named "network_options.width". The
    number of epochs is not a hyperparameter if the run stopped earlier, at its training loss. A corruption and its level are
    one hyperparameter, "labels 0.4", so that clean labels and 40 % of redrawn ones differ in one.

    Example:
        >>> hyperparameters({"training": {"lr": 0.1, "seed": 3, "epochs": 9}, "final": {"stopped": "loss"}})
        {'lr': 0.1}
    """
    recipe = recipe or {}
    found = recipe.get("training", recipe)
    stopped = recipe.get("final", {}).get("stopped") if isinstance(recipe.get("final"), Mapping) else None
    out: dict[str, Any] = {}
    for key, value in found.items() if isinstance(found, Mapping) else ():
        if key in BOOKKEEPING or (key == "epochs" and stopped == "loss"):
            continue
        if isinstance(value, Mapping):
            out |= {f"{key}.{k}": v for k, v in value.items() if k not in BOOKKEEPING}
        else:
            out[key] = value
    level = out.pop("corruption_level", None)
    return out if level is None else out | {"corruption": f"{out.get('corruption')} {level:g}"}


@dataclass(frozen=True)
class Granules:
    """The pairs of runs that differ in a single hyperparameter.

    Attributes:
        pairs: (pairs, 2) indices of the runs.
        granule: (pairs,) index of a pair's granule: its hyperparameter, and the values of all others.
        owner: (granules,) index of a granule's hyperparameter.
        names: names of the hyperparameters that vary over the runs.
    """

    pairs: np.ndarray
    granule: np.ndarray
    owner: np.ndarray
    names: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of pairs for every hyperparameter."""
        held = np.bincount(self.owner[self.granule], minlength=len(self.names)) if len(self.pairs) else [0] * len(self.names)
        return {name: int(count) for name, count in zip(self.names, held, strict=True)}


def granules(settings: Sequence[Mapping[str, Any]]) -> Granules:
    """Find the pairs among runs with these hyperparameters; a missing key counts as a distinct value."""
    names, rows = levels(settings)
    pairs, granule, owner = [], [], []
    known: dict[tuple[Any, ...], int] = {}
    for i, j in itertools.combinations(range(len(rows)), 2):
        differing = [c for c in range(len(names)) if rows[i][c] != rows[j][c]]
        if len(differing) != 1:
            continue
        held = (differing[0], *(rows[i][c] for c in range(len(names)) if c != differing[0]))
        if held not in known:
            known[held] = len(known)
            owner.append(differing[0])
        pairs.append((i, j))
        granule.append(known[held])
    return Granules(np.array(pairs, int).reshape(-1, 2), np.array(granule, int), np.array(owner, int), names)


def levels(settings: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str | None, ...]]]:
    """Names of the hyperparameters that vary, and their values in every run, as JSON; None for a run that lacks one.

    Example:
        >>> levels([{"lr": 0.1, "batch": 8}, {"lr": 0.2, "batch": 8}])
        (('lr',), [('0.1',), ('0.2',)])
    """
    keys = list(dict.fromkeys(key for s in settings for key in s))
    columns = {k: [json.dumps(s[k], sort_keys=True, default=str) if k in s else None for s in settings] for k in keys}
    varying = {k: column for k, column in columns.items() if len(set(column)) > 1}
    return tuple(varying), list(zip(*varying.values(), strict=True)) if varying else [() for _ in settings]


def granulated(
    values: np.ndarray, gaps: np.ndarray, found: Granules, random: np.random.Generator, draws: int = DRAWS
) -> Granulated:
    """Psi of one measure: the mean over hyperparameters of the mean over granules of the pairs' agreement.

    A granule contains the runs that share all hyperparameters but one. Its value is the mean of sign(m_i - m_j) sign(g_i - g_j)
    over its pairs of runs that differ in that one; runs that differ only in the seed are not paired. psi of a hyperparameter
    is the mean over its granules, and Psi the mean of psi over the hyperparameters with pairs. A tie counts 0.

    Args:
        values: the measure, one value per run; infinities are ranked.
        gaps: generalization gap, one per run.
        found: the pairs among these runs.
        random: generator of the bootstrap.
        draws: number of bootstrap resamples.

    Returns:
        Granulated: Psi in [-1, 1], its parts, and a 95 % percentile interval from resampling runs. A pair has the product of
            its runs' multiplicities as weight, so no run is paired with itself. For fewer than 8 runs in pairs, or fewer than
            10 pairs of a hyperparameter, the interval is None, with a reason.

    Reference: Jiang et al. 2020, arXiv:1912.02178, equations 4 and 5, where a granule has one run per value and no ties.
    """
    names = [n for n, count in found.counts.items() if count]
    if not names:
        varying = ", ".join(found.names)
        reason = f"no two runs differ in one of {varying} only" if varying else "no recorded hyperparameter varies"
        return Granulated(None, None, None, {}, found.counts, reason)
    i, j = found.pairs.T
    agreement = sign(values[i], values[j]) * sign(gaps[i], gaps[j])
    parts, psi = _psi(np.ones((1, len(values))), agreement, found)
    by_name = {name: float(parts[0, found.names.index(name)]) for name in names}
    runs, least = len(np.unique(found.pairs)), min(found.counts[n] for n in names)
    if runs < ENOUGH_RUNS or least < ENOUGH_PAIRS:
        reason = f"no interval: {runs} runs in pairs (8 needed), {least} pairs of one hyperparameter (10 needed)"
        return Granulated(float(psi[0]), None, None, by_name, found.counts, reason)
    weights = resampled(len(values), random, draws)
    blocks = np.array_split(weights, 1 + weights.size * len(agreement) // len(values) // _BLOCK)
    drawn = np.concatenate([_psi(block, agreement, found)[1] for block in blocks])
    low, high = percentiles(drawn[np.isfinite(drawn)])
    if low == high:
        low, high = unanimous(float(psi[0]), runs // 2)
    missing = [n for n, count in found.counts.items() if not count]
    lacking = f"no two runs differ in {', '.join(missing)} only" if missing else None
    return Granulated(float(psi[0]), low, high, by_name, found.counts, lacking)


def _psi(weights: np.ndarray, agreement: np.ndarray, found: Granules) -> tuple[np.ndarray, np.ndarray]:
    """psi of every hyperparameter, and Psi, for each row of weights of the runs; nan if no pair has weight."""
    w = weights[:, found.pairs[:, 0]] * weights[:, found.pairs[:, 1]]
    rows = np.arange(len(found.granule))
    inside = csr_array((np.ones(len(rows)), (rows, found.granule)), shape=(len(rows), len(found.owner)))
    total = w @ inside
    with np.errstate(invalid="ignore", divide="ignore"):
        means = ((w * agreement) @ inside) / total
        own = np.eye(len(found.names))[found.owner]
        seen = (total > 0).astype(float)
        parts = (np.nan_to_num(means) @ own) / (seen @ own)
        there = np.isfinite(parts)
        return parts, np.nan_to_num(parts).sum(1) / there.sum(1)


def sign(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """sign(a - b), with equal infinities equal."""
    return (a > b).astype(float) - (a < b)
