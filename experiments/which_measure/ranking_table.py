"""The statistics of every measure, as trained and under the adversary's attack."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from experiments.common.work import Item
from experiments.which_measure.networks import FAMILIES
from landscape.comparison import compare
from landscape.comparison.partial import CONTROLS
from landscape.measures import MEASURES
from landscape.results import Comparison, Estimate, Evaluation, Measurement, PartialCorrelation, Sharpness

GENERALIZED, MEMORIZED = "generalized", "memorized"
DRAWS = 4000


def compared(runs: Sequence[Item], moved: dict[str, str], controls: Sequence[str] = CONTROLS) -> Comparison:
    """`landscape compare` of runs that generalized and runs that memorized.

    Args:
        runs: of one network and data set.
        moved: measure -> the kind of run that is handed in moved; a measure that is not in it has its values as trained.
        controls: what the partial correlation holds fixed.
    """
    sides: dict[str, list[Item]] = {
        GENERALIZED: [r for r in runs if is_clean(r)],
        MEMORIZED: [r for r in runs if not is_clean(r)],
    }
    groups, test, settings = {}, {}, {}
    for side, own in sides.items():
        groups[side] = [
            _sharpness(r, {m: r["moved" if moved.get(m) == side else "trained"][m] for m in r["item"]["measures"]}) for r in own
        ]
        test[side] = [Evaluation(Estimate(math.nan), Estimate(r["test_accuracy"])) for r in own]
        settings[side] = [{k: r["item"][k] for k in ("labels", "batch_size", "lr")} for r in own]
    memorized = {side: [side == MEMORIZED] * len(own) for side, own in sides.items()}
    return compare(groups, test=test, hyperparameters=settings, memorized=memorized, controls=controls)


def is_clean(run: Item) -> bool:
    """Whether a run had true labels."""
    return bool(run["item"]["labels"] == "clean")


def _sharpness(run: Item, values: dict[str, float | None]) -> Sharpness:
    """A run as a row of `landscape sharpness`."""
    measures = {
        m: Measurement(Estimate(math.nan if v is None else v, reason="no value" if v is None else None), "", ())
        for m, v in values.items()
    }
    loss, accuracy = Estimate(run["train_loss"]), Estimate(run["train_accuracy"])
    return Sharpness(loss, accuracy, measures, run["item"]["samples"])


def adversary(runs: Sequence[Item]) -> dict[str, str]:
    """For every measure, the kind of run to move: the one after which the AUC is furthest on the wrong side."""
    choice = {}
    for name in runs[0]["item"]["measures"]:
        values = {kind: np.array([r[kind][name] for r in runs], float) for kind in ("trained", "moved")}
        clean = np.array([is_clean(r) for r in runs])

        def auc(moved: str | None, values: dict[str, np.ndarray] = values, clean: np.ndarray = clean) -> float:
            a = values["moved" if moved == MEMORIZED else "trained"][~clean]
            b = values["moved" if moved == GENERALIZED else "trained"][clean]
            return float(stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)))

        sign = 1 if auc(None) >= 0.5 else -1
        choice[name] = min((GENERALIZED, MEMORIZED), key=lambda side: sign * auc(side))
    return choice


def table(runs: Sequence[Item]) -> list[Item]:
    """A row a measure: every statistic as trained and under the attack, what moved it, and whether it survives."""
    choice = adversary(runs)
    found = {"trained": compared(runs, {}), "attacked": compared(runs, choice)}
    within = compared(runs, choice, (*CONTROLS, "labels")).partial
    rows = []
    for name in choice:
        row: Item = {"measure": name, "proven": set(FAMILIES) <= set(MEASURES[name].invariant_to), "moved": choice[name]}
        changes = [abs(r["moved"][name] / r["trained"][name] - 1) for r in runs if r["trained"][name] and r["moved"][name]]
        row["largest_change"] = max(changes, default=0.0)
        for when, comparison in found.items():
            row[when] = _statistics(comparison, name)
        row["within_labels"] = None if row["attacked"] is None else _partial(within[name])
        row["separates"], row["ranks"] = _survives(row, "auc", 0.5), _survives(row, "tau", 0.0)
        rows.append(row)
    return rows


def measured(rows: Sequence[Item]) -> list[Item]:
    """The rows of the measures that have a value for every run, as trained and under the attack."""
    return [row for row in rows if row["trained"] and row["attacked"]]


def _statistics(comparison: Comparison, name: str) -> Item | None:
    """All statistics of a measure; None if it has no value for some run."""
    if name not in comparison.memorization or name not in comparison.rank_correlation:
        return None
    d, t = comparison.memorization[name], comparison.rank_correlation[name]
    psi, error = comparison.granulated[name], comparison.sign_error[name]
    return {
        "auc": {"value": d.auc, "low": d.auc_low, "high": d.auc_high, "p": d.p, "q": d.q},
        "tau": {"value": t.tau, "low": t.low, "high": t.high, "p": t.p, "q": t.q},
        "psi": {"value": psi.psi, "low": psi.low, "high": psi.high, "by_hyperparameter": psi.by_hyperparameter},
        "partial": _partial(comparison.partial[name]),
        "sign_error": {"value": error.worst, "low": error.low, "high": error.high, "environment": error.environment,
                       "environments": len(error.by_environment)},
    }  # fmt: skip


def ranks(runs: Sequence[Item], name: str, among: Sequence[str]) -> Item:
    """The rank of a measure among others by |tau| of its values as trained with the gap, and its 95 % interval.

    1 is the largest |tau|: a measure that falls with the gap ranks it as well as one that rises. The interval is that of
    networks drawn again, as independent draws; tau is Kendall's tau-b, in which a network has no pair with itself.
    """
    gap = np.array([r["train_accuracy"] - r["test_accuracy"] for r in runs])
    random = np.random.default_rng(0)
    drawn = [np.bincount(random.integers(len(runs), size=len(runs)), minlength=len(runs)) for _ in range(DRAWS)]
    weights = np.array([np.ones(len(runs)), *drawn])

    def signs(x: np.ndarray) -> np.ndarray:
        return np.sign(x[:, None] - x)

    def pairs(kinds: np.ndarray) -> np.ndarray:
        return ((weights @ kinds) * weights).sum(axis=1)

    of_gap, taus = signs(gap), {}
    for m in among:
        own = signs(np.array([r["trained"][m] for r in runs], float))
        untied = pairs(np.abs(own)) * pairs(np.abs(of_gap))
        taus[m] = np.abs(pairs(own * of_gap)) / np.sqrt(np.where(untied > 0, untied, np.inf))
    found = 1 + sum((tau > taus[name] + 1e-12).astype(int) for tau in taus.values())
    low, high = (int(x) for x in np.quantile(found[1:], (0.025, 0.975), method="inverted_cdf"))
    return {"rank": int(found[0]), "low": low, "high": high, "of": len(taus)}


def _partial(found: PartialCorrelation) -> Item:
    """A partial correlation as a statistic."""
    return {"value": found.rho, "low": found.low, "high": found.high, "p": found.p, "q": found.q, "controls": found.controls}


def side(found: Item, chance: float) -> int:
    """1 or -1 for a statistic that is significantly above or below chance, 0 for one that is not, or has no interval."""
    if found["low"] is None or found["q"] > 0.05 or found["low"] <= chance <= found["high"]:
        return 0
    return 1 if found["low"] > chance else -1


def _survives(row: Item, statistic: str, chance: float) -> bool:
    """Whether a statistic is significant as trained, and on the same side under the attack."""
    if row["trained"] is None or row["attacked"] is None:
        return False
    before, after = (side(row[when][statistic], chance) for when in ("trained", "attacked"))
    return before != 0 and before == after
