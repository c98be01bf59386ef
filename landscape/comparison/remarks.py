"""Remarks on a comparison: mismatched training losses, and limits of the conclusions."""

import math
from collections import Counter

from landscape.comparison.correlation import ENOUGH as ENOUGH_FOR_TAU
from landscape.comparison.difference import ENOUGH, smallest_p
from landscape.results import FALSE_DISCOVERY, Comparison
from landscape.results.sharpness import WIDE


def remarks(comparison: Comparison) -> tuple[list[str], list[str]]:
    """(warnings, notes), each one line."""
    warnings = [*_mismatch(comparison), *_repeated(comparison)]
    notes = [
        *_untested_losses(comparison),
        *_spread(comparison),
        *_small_groups(comparison),
        *_reachable(comparison),
        *(f"{name} is in no test: {why}" for name, why in comparison.left_out.items()),
        *(f"{checkpoint} of {group} is left out: {why}" for group, checkpoint, why in comparison.excluded),
        *_infinite(comparison),
        *_memorization(comparison),
        *_correlation(comparison),
        *_partial(comparison),
    ]
    return warnings, notes


def _mismatch(comparison: Comparison) -> list[str]:
    """Groups with significantly different training losses."""
    found = [d for d in comparison.differences if d.name == "train_loss" and d.found]
    if not found:
        return []
    tests = "; ".join(f"{d.a} / {d.b}: q = {d.q:.2g}" for d in found)
    return [
        f"TRAINING LOSSES DIFFER: {_medians(comparison)}; {tests}. Curvature changes with the loss: compare at a matched one "
        "(--match-loss)"
    ]


def _untested_losses(comparison: Comparison) -> list[str]:
    """Pairs of groups that are too small for a test of their training losses, with the medians."""
    pairs = [f"{d.a} / {d.b}" for d in comparison.differences if d.name == "train_loss" and d.smallest_p > FALSE_DISCOVERY]
    if not pairs:
        return []
    return [
        f"whether training losses differ cannot be tested for {', '.join(pairs)} (too few runs): {_medians(comparison)}; "
        "curvature changes with the loss"
    ]


def _spread(comparison: Comparison) -> list[str]:
    """The range of the training losses of single runs, if it is wide."""
    by_group = comparison.scores.get("train_loss")
    if by_group is None or "train_loss" in comparison.left_out:
        return []
    losses = [e.value for runs in by_group.values() for e in runs]
    low, high = min(losses), max(losses)
    if high <= WIDE * max(low, 0.0):
        return []
    factor = f" (factor {high / low:.3g})" if low > 0 else ""
    return [f"training losses of single runs range from {low:.4g} to {high:.4g}{factor}; curvature changes with the loss"]


def _medians(comparison: Comparison) -> str:
    """Median training loss of every group."""
    return "median " + ", ".join(f"{v.median:.4g} in {g}" for g, v in comparison.conditions["train_loss"].items())


def _repeated(comparison: Comparison) -> list[str]:
    """Files that occur several times, which makes every interval too short."""
    digests = Counter(s.sha256 for runs in comparison.groups.values() for s in runs if s.sha256 is not None)
    twice = [s.checkpoint or "a run" for runs in comparison.groups.values() for s in runs if s.sha256 and digests[s.sha256] > 1]
    if not twice:
        return []
    return [f"THE SAME FILE SEVERAL TIMES: {', '.join(twice)}; train runs independently, or every interval is too short"]


def _small_groups(comparison: Comparison) -> list[str]:
    """Groups that are too small for intervals."""
    small = [f"{name} ({len(runs)})" for name, runs in comparison.groups.items() if len(runs) < ENOUGH]
    if not small:
        return []
    return [
        f"fewer than {ENOUGH} runs in {', '.join(small)}: no interval for their medians, effect sizes and ratios; "
        "braces are the range of these runs, which allows no conclusion about other runs"
    ]


def _reachable(comparison: Comparison) -> list[str]:
    """The smallest p-value for the sizes of the groups, if it limits the findings."""
    tests = len(comparison.differences)
    sizes = dict.fromkeys(d.n for d in comparison.differences)
    out = []
    for m, n in sizes:
        least, ways = smallest_p(m, n), math.comb(m + n, m)
        share = f"{m} against {n} runs: the smallest p-value they can give is {min(2, ways)}/{ways} = {least:.2g}"
        if least > FALSE_DISCOVERY:
            out.append(f"{share}: no difference can be significant at {FALSE_DISCOVERY:.0%}, for any values".replace("%", " %"))
        elif (needed := math.ceil(least * tests / FALSE_DISCOVERY - 1e-9)) > 1:
            out.append(
                f"{share}; with {tests} tests, q = {FALSE_DISCOVERY} needs at least {needed} tests with that p-value".replace(
                    "%", " %"
                )
            )
    return out


def _infinite(comparison: Comparison) -> list[str]:
    """Measures with infinite values, which are ranked but have no ratio."""
    lost = [
        name for name in comparison.table if any(math.isinf(s[name].value) for runs in comparison.groups.values() for s in runs)
    ]
    return [f"infinite values in {', '.join(lost)}: ranked as the largest or smallest, without a ratio"] if lost else []


def _correlation(comparison: Comparison) -> list[str]:
    """Limits of Kendall's tau and Psi."""
    runs = sum(map(len, comparison.groups.values()))
    if "gap" not in comparison.scores:
        return ["no rank correlation with the generalization gap: there is no accuracy on a test split"]
    out = []
    if "gap" in comparison.left_out or runs < 3:
        return ["no rank correlation with the generalization gap: fewer than three runs with a gap"]
    constant = [m for m in comparison.table if m not in comparison.rank_correlation and m not in comparison.left_out]
    if constant:
        out.append(f"no rank correlation of {', '.join(constant)}: the measure or the gap is the same in all runs")
    if runs < ENOUGH_FOR_TAU and comparison.rank_correlation:
        out.append(f"{runs} runs in all: no interval for Kendall's τ, which needs {ENOUGH_FOR_TAU}")
    if comparison.rank_correlation and any(len(r) > 1 for r in comparison.groups.values()) and len(comparison.groups) > 1:
        out.append(
            "τ, its p and its interval treat all runs as independent; runs of one recipe are similar, so a few groups that "
            "differ in measure and gap can cause a τ: Ψ compares only runs that differ in a single hyperparameter"
        )
    for name, statistics in (("Ψ", comparison.granulated), ("worst sign error", comparison.sign_error)):
        reasons = dict.fromkeys(s.reason for s in statistics.values() if s.reason)
        out += [f"{name}: {reason}" for reason in reasons]
    passed_over = max((e.passed_over for e in comparison.sign_error.values() if not e.reason), default=0)
    if passed_over:
        out.append(
            f"worst sign error: {passed_over} pairs of settings that differ in one hyperparameter are passed over, for fewer "
            f"than {ENOUGH} runs each or no significant difference of the gap"
        )
    return out


def _partial(comparison: Comparison) -> list[str]:
    """Limits of the partial correlation."""
    if not comparison.rank_correlation:
        return []
    if not comparison.partial:
        return ["no partial rank correlation: nothing that could be held fixed varies, or there are too few runs"]
    lost = [m for m in comparison.rank_correlation if m not in comparison.partial]
    out = [f"no partial rank correlation of {', '.join(lost)}: what is held fixed determines the rank"] if lost else []
    found = next(iter(comparison.partial.values()))
    if found.low is None:
        out.append(f"no interval for the partial ρ: {found.n} runs are too few to hold {', '.join(found.controls)} fixed")
    return out


def _memorization(comparison: Comparison) -> list[str]:
    """Limits of the AUC for runs that memorized."""
    if not comparison.memorization:
        return []
    sizes = next(iter(comparison.memorization.values())).n
    if min(sizes) < ENOUGH:
        return [f"{sizes[0]} runs memorized, {sizes[1]} did not: no interval for the AUC, which needs {ENOUGH} of each"]
    if len(comparison.groups) > 2:
        return [
            "the AUC for runs that memorized pools groups: it is about their mixture, in the shares that they have here, and a "
            "measure can separate the pooled runs by what else differs between the groups"
        ]
    return []
