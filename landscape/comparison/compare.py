"""Comparison of groups of runs: medians with intervals, differences with tests."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from landscape.comparison.difference import ENOUGH, adjusted, difference
from landscape.comparison.intervals import DRAWS, median_interval
from landscape.comparison.memorized_runs import separation
from landscape.comparison.partial import CONDITIONS, CONTROLS, refuse_unknown
from landscape.comparison.remarks import remarks
from landscape.comparison.with_the_gap import ranking
from landscape.errors import UsageError
from landscape.results import Comparison, Difference, Estimate, Evaluation, GroupValue, Sharpness

Scores = dict[str, dict[str, list[Estimate]]]


def compare(
    groups: Mapping[str, Sequence[Sharpness]],
    gaps: Mapping[str, Sequence[float]] | None = None,
    *,
    train: Mapping[str, Sequence[Evaluation]] | None = None,
    test: Mapping[str, Sequence[Evaluation]] | None = None,
    hyperparameters: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    memorized: Mapping[str, Sequence[bool]] | None = None,
    controls: Sequence[str] = CONTROLS,
    excluded: Sequence[tuple[str, str, str]] = (),
    seed: int = 0,
    draws: int = DRAWS,
) -> Comparison:
    """Compare groups of runs, measure by measure.

    For every measure: the median of each group with a 95 % bootstrap interval (for at least five runs; else the range). For
    every pair of groups: the p-value of an exact permutation test on ranks, its q-value over all measures and pairs
    (Benjamini-Hochberg), Cliff's delta and the ratio of medians with 95 % intervals. Training loss, accuracies and gap are
    tested, too: they are the conditions of the comparison. A q-value is the larger of two. One is adjusted over all tests, so
    that two groups of the same recipe differ significantly in anything with probability at most 5 %. The other is adjusted
    within its family, measures or conditions, so that significant conditions do not make measures significant.

    Over all runs, with intervals: the AUC for telling runs that memorized from all others; Kendall's tau-b with the
    generalization gap; the granulated Psi over recorded hyperparameters; the partial rank correlation with the gap, learning
    rate, batch size and training loss held fixed; the sign error for the gap in the worst environment. The q-values of AUC,
    tau and partial correlation are each over all measures.

    A measure with a nan (not defined for a network, or failed) is left out of all tests, with a remark. Infinite values are
    ranked. Intervals and tests are about other runs of the same recipes, not about other data.

    Args:
        groups: name -> the runs' Sharpness; every measure that all runs have is compared.
        gaps: name -> generalization gap of every run (training accuracy minus test accuracy), in the same order; computed if
            `test` is given and both accuracies are known.
        train: name -> loss and accuracy of every run on training data; default those of its Sharpness, unless that was
            measured on a test split.
        test: name -> loss and accuracy of every run on test data.
        hyperparameters: name -> hyperparameters of every run, for Psi; see `landscape.comparison.hyperparameters`.
        memorized: name -> whether each run memorized, for the AUC; see `landscape.comparison.memorizes`.
        controls: hyperparameters, "train_loss" or "train_accuracy" that the partial correlation holds fixed; those that are
            not recorded, or do not vary, are left out.
        excluded: (group, checkpoint, reason) of runs left out beforehand, for the record.
        seed: seed of the bootstrap and of random permutations; each measure has its own stream.
        draws: resamples of each bootstrap.

    Returns:
        Comparison, with remarks on the limits of its conclusions.

    Raises:
        UsageError: an empty group, lists of different lengths, or a control that no run records.

    Cost: a few seconds for 30 measures in 2 groups of 10 runs, half a minute in 4 groups of 50.

    Accuracy: coverage of every interval and the level of every test are measured in `tests/comparison`.

    Reference: Jiang et al. 2020, arXiv:1912.02178, for rank correlation with the gap. `landscape.comparison.difference`,
        `intervals`, `memorized_runs`, `correlation`, `granulated`, `partial` and `sign_error` cite their methods.

    Example:
        >>> from landscape.results import Measurement
        >>> def run(trace):
        ...     m = {"trace": Measurement(Estimate(trace), "loss / weight^2", ())}
        ...     return Sharpness(Estimate(0.01), None, m, 100)
        >>> result = compare({"small": [run(t) for t in (1.0, 2, 3, 4, 5)], "large": [run(t) for t in (6.0, 7, 8, 9, 10)]})
        >>> trace = result.differences[0]
        >>> trace.delta, round(trace.ratio, 3), round(trace.p * 252, 6), trace.found
        (-1.0, 0.375, 2.0, True)
    """
    if not isinstance(groups, Mapping):
        raise UsageError(
            f"expected groups as a dictionary, found {type(groups).__name__}",
            fix='pass {"small": [ls.sharpness(objective), ...], "large": [...]}',
        )
    for name, runs in groups.items():
        _check_runs(name, runs)
        for other in (gaps, train, test, hyperparameters, memorized):
            if other is not None and len(other.get(name, ())) != len(runs):
                raise UsageError(f"expected {len(runs)} entries for group {name}, found {len(other.get(name, ()))}")
    if hyperparameters is not None:
        refuse_unknown(controls, [h for runs in hyperparameters.values() for h in runs])
    kept = {name: list(runs) for name, runs in groups.items()}
    scores = _scores(kept, gaps, train, test)
    known = dict.fromkeys(m for runs in kept.values() for s in runs for m in s.measures)
    everyone = [s for runs in kept.values() for s in runs]
    lacking = {m: sum(m not in s.measures for s in everyone) for m in known}
    left_out = {m: f"not measured in {k} of {len(everyone)} runs" for m, k in lacking.items() if k}
    measures = {m: {g: [s[m] for s in runs] for g, runs in kept.items()} for m, k in lacking.items() if not k}
    comparison = Comparison(
        groups=kept,
        gaps=None if "gap" not in scores else {g: [e.value for e in runs] for g, runs in scores["gap"].items()},
        table=_table(measures, seed, draws),
        rank_correlation={},
        scores=scores,
        conditions=_table(scores, seed, draws),
        hyperparameters=_varying(kept, hyperparameters),
        left_out=left_out | _undefined(measures) | _undefined(scores),
        excluded=tuple(excluded),
    )
    families = [measures, scores] if len(kept) > 1 else []
    found = [d for family in families for d in _differences(family, comparison.left_out, seed, draws)]
    overall = adjusted([d.p for d in found])
    found = [replace(d, q=max(d.q, q)) for d, q in zip(found, overall, strict=True)]
    comparison = replace(comparison, differences=tuple(found))
    pooled = {m: _pooled(by_group) for m, by_group in measures.items() if m not in comparison.left_out}
    if memorized is not None:
        flags = [flag for g in kept for flag in memorized[g]]
        streams = {m: _stream(seed, m, "memorized") for m in pooled}
        comparison = replace(comparison, memorization=separation(pooled, flags, streams, draws))
    if "gap" in scores and "gap" not in comparison.left_out:
        conditions = {n: _pooled(scores[n]) for n in CONDITIONS if n in scores and n not in comparison.left_out}
        settings = None if hyperparameters is None else [s for runs in comparison.hyperparameters.values() for s in runs]
        ranks = ranking(pooled, _pooled(scores["gap"]), settings, conditions, controls, partial(_stream, seed), draws)
        comparison = replace(comparison, **ranks._asdict())
    warnings, notes = remarks(comparison)
    return replace(comparison, warnings=tuple(warnings), remarks=(*warnings, *notes))


def _check_runs(name: str, runs: Sequence[Sharpness]) -> None:
    """Raise UsageError for an empty group, or for networks that have not been measured."""
    if not isinstance(runs, list | tuple):
        raise UsageError(
            f"expected a list of runs in group {name}, found {type(runs).__name__}", fix=f"put it in a list: [{name}]"
        )
    if not runs:
        raise UsageError(f"expected runs in group {name}, found none")
    for run in runs:
        if not isinstance(run, Sharpness):
            raise UsageError(
                f"expected measured runs (Sharpness) in group {name}, found {type(run).__name__}",
                fix="measure each first: ls.sharpness(objective)",
            )


def _scores(
    groups: dict[str, list[Sharpness]],
    gaps: Mapping[str, Sequence[float]] | None,
    train: Mapping[str, Sequence[Evaluation]] | None,
    test: Mapping[str, Sequence[Evaluation]] | None,
) -> Scores:
    """Losses, accuracies and gap; each only if every run has it."""
    everyone = [s for runs in groups.values() for s in runs]
    if train is None and all(s.provenance.get("split", "train") == "train" for s in everyone):
        train = {g: [Evaluation(s.loss, s.accuracy) for s in runs] for g, runs in groups.items()}
    out: Scores = {}
    for split, given in (("train", train), ("test", test)):
        if given is None:
            continue
        out[f"{split}_loss"] = {g: [e.loss for e in given[g]] for g in groups}
        accuracies = {g: [e.accuracy for e in given[g] if e.accuracy is not None] for g in groups}
        if all(len(accuracies[g]) == len(groups[g]) for g in groups):
            out[f"{split}_accuracy"] = accuracies
    both = "train_accuracy" in out and "test_accuracy" in out
    if gaps is not None or both:
        out["gap"] = {
            g: [
                _gap(
                    None if gaps is None else gaps[g][i],
                    out["train_accuracy"][g][i] if both else None,
                    out["test_accuracy"][g][i] if both else None,
                )
                for i in range(len(groups[g]))
            ]
            for g in groups
        }
    return out


def _gap(value: float | None, train: Estimate | None, test: Estimate | None) -> Estimate:
    """Training accuracy minus test accuracy; they are on different samples, so their variances add."""
    if train is None or test is None:
        return Estimate(math.nan if value is None else float(value), reason="no gap was given" if value is None else None)
    stderr = None if train.stderr is None or test.stderr is None else math.hypot(train.stderr, test.stderr)
    return Estimate(train.value - test.value if value is None else float(value), stderr, "samples", test.n)


def _values(estimates: Sequence[Estimate]) -> np.ndarray:
    return np.array([e.value for e in estimates], float)


def _pooled(by_group: Mapping[str, Sequence[Estimate]]) -> np.ndarray:
    """The values of all runs, group after group."""
    return _values([e for runs in by_group.values() for e in runs])


def _stream(seed: int, *names: str) -> np.random.Generator:
    """A random stream that depends on the seed and on the names, not on what else is compared."""
    return np.random.default_rng([seed, *"/".join(names).encode()])


def _table(quantities: Scores, seed: int, draws: int) -> dict[str, dict[str, GroupValue]]:
    """Median and interval, or range, of every quantity in every group."""
    return {
        name: {group: _group(_values(runs), _stream(seed, name, group), draws) for group, runs in by_group.items()}
        for name, by_group in quantities.items()
    }


def _group(values: np.ndarray, random: np.random.Generator, draws: int) -> GroupValue:
    """Median and interval, or range, of one quantity in one group."""
    a = values[~np.isnan(values)]
    if not len(a):
        return GroupValue(math.nan, math.nan, math.nan, 0, False)
    enough = len(a) >= ENOUGH
    with np.errstate(invalid="ignore"):  # the mean of -inf and inf
        median = float(np.median(a))
    low, high = median_interval(a, random, draws) if enough else (float(a.min()), float(a.max()))
    return GroupValue(median, low, high, len(a), enough)


def _undefined(quantities: Scores) -> dict[str, str]:
    """The quantities that are nan in some run, with the reason of the first such run."""
    out = {}
    for name, by_group in quantities.items():
        lost = [e for runs in by_group.values() for e in runs if math.isnan(e.value)]
        if lost:
            total = sum(map(len, by_group.values()))
            out[name] = f"no value in {len(lost)} of {total} runs: {lost[0].reason or 'not a number'}"
    return out


def _differences(family: Scores, left_out: Mapping[str, str], seed: int, draws: int) -> list[Difference]:
    """All tests of one family, with q-values within the family."""
    found = [
        difference(
            name,
            (a, _values(by_group[a])),
            (b, _values(by_group[b])),
            _stream(seed, name, a, b),
            draws=draws,
        )
        for name, by_group in family.items()
        if name not in left_out
        for a, b in itertools.combinations(by_group, 2)
    ]
    return [replace(d, q=q) for d, q in zip(found, adjusted([d.p for d in found]), strict=True)]


def _varying(
    groups: dict[str, list[Sharpness]], hyperparameters: Mapping[str, Sequence[Mapping[str, Any]]] | None
) -> dict[str, list[dict[str, Any]]]:
    """The hyperparameters that differ between runs; None for a run that lacks one."""
    if hyperparameters is None:
        return {}
    everyone = [h for g in groups for h in hyperparameters[g]]
    keys = dict.fromkeys(k for h in everyone for k in h)
    varying = [k for k in keys if any(h.get(k) != everyone[0].get(k) for h in everyone)]
    return {g: [{k: h.get(k) for k in varying} for h in hyperparameters[g]] for g in groups}
