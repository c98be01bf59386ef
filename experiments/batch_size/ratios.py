"""Large batch over small batch, paired by seed: one row for every setting, arm, batch and quantity."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.batch_size.plan import LARGE, MAIN, SCALED, STEPS
from experiments.common.statistics import LEVEL, adjusted, asked, detectable, difference, exp, mean, paired_p

Runs = Sequence[dict[str, Any]]
Row = dict[str, Any]
# Training losses are the same if the interval of their ratio lies within.
MATCHED = (0.8, 1.25)
Pairs = Sequence[tuple[float | None, float | None]]
# Quantities beside the measures that are positive and compared by their ratio.
SCORES = ("distance", "norm", "steps", "epochs", "train_loss")


def rows(runs: Runs) -> list[Row]:
    """The ratios of all quantities, and the differences of test accuracy in points.

    q-values are over all measures of an arm, or over the networks for a score. Where the training losses of the two batches are
    not the same, a measure has its ratio per unit of loss, too.
    """
    out: list[tuple[Row, Pairs]] = []
    kinds = dict.fromkeys((r["item"]["setting"], r["item"]["arm"], r["item"]["batch"]) for r in runs)
    for setting, arm, batch in kinds:
        if batch not in LARGE:
            continue
        pairs = paired(runs, setting, arm, batch)
        where = {"setting": setting, "arm": arm, "batch": batch}
        names = dict.fromkeys(name for _, large in pairs for name in large["measures"])
        losses = [(s["train_loss"], b["train_loss"]) for s, b in pairs]
        found = ratio(losses)
        matched = found is not None and MATCHED[0] <= found["ratio"]["low"] and found["ratio"]["high"] <= MATCHED[1]
        for name in names:
            # An arm without a small batch of its own takes that of the main arm, which may have more measures.
            values = [(s["measures"].get(name), b["measures"].get(name)) for s, b in pairs]
            row = ratio(values)
            if row is not None:
                beside = {} if matched else {"per_loss": per_loss(values, losses)}
                out.append(({**where, "quantity": name, "kind": "measure", "matched": matched} | row | beside, values))
        for name in SCORES:
            values = [(s[name], b[name]) for s, b in pairs]
            row = ratio(values)
            if row is not None:
                out.append(({**where, "quantity": name, "kind": "score"} | row, values))
        if pairs:
            small, large = zip(*[(100 * s["test_accuracy"], 100 * b["test_accuracy"]) for s, b in pairs], strict=True)
            row = {**where, "quantity": "test accuracy", "kind": "difference"} | change(small, large)
            out.append((row, list(zip(small, large, strict=True))))
    tests: dict[tuple[str, str], list[tuple[Row, Pairs]]] = {}
    for row, values in out:
        tests.setdefault((row["arm"], "" if row["kind"] == "measure" else row["quantity"]), []).append((row, values))
    for own in tests.values():
        known = adjusted([row["p"] for row, _ in own])
        for (row, values), q in zip(own, known, strict=True):
            row |= {"q": q, "detectable": smallest(values, asked(known), logarithmic="ratio" in row)}
    return [row for row, _ in out]


def ratio(values: Pairs) -> Row | None:
    """Geometric mean of large / small over seeds, with its interval; None unless all numbers are there and positive."""
    if not values or not all(s is not None and b is not None and s > 0 and b > 0 for s, b in values):
        return None
    small, large = np.array(values, dtype=float).T
    return {
        "small": mean(small.tolist()).to_json(),
        "large": mean(large.tolist()).to_json(),
        "ratio": difference(np.log(large), np.log(small)).exp().to_json(),
        "p": paired_p(np.log(large).tolist(), np.log(small).tolist()),
    }


def per_loss(values: Pairs, losses: Pairs) -> dict[str, Any] | None:
    """The ratio of a measure over that of the training loss; None if a loss is not positive."""
    found = ratio(
        [(s / a, b / c) if s and b and a and c else (None, None) for (s, b), (a, c) in zip(values, losses, strict=True)]
    )
    return None if found is None else found["ratio"]


def change(small: Sequence[float], large: Sequence[float]) -> Row:
    """Mean of large - small over seeds, with its interval."""
    return {
        "small": mean(small).to_json(),
        "large": mean(large).to_json(),
        "difference": difference(large, small).to_json(),
        "p": paired_p(large, small),
    }


def smallest(values: Pairs, level: float, *, logarithmic: bool) -> float:
    """The smallest effect that these seeds would have found with probability 0.8 in a test of this level.

    That is a difference, or if `logarithmic` a factor above 1.
    """
    small, large = np.array(values, dtype=float).T
    return exp(detectable(np.log(large), np.log(small), level=level)) if logarithmic else detectable(large, small, level=level)


def find(table: Sequence[Row], quantity: str, *, arm: str, batch: str) -> dict[str, Row]:
    """For each setting that has it, the row of a quantity."""
    wanted = {"quantity": quantity, "arm": arm, "batch": batch}
    return {r["setting"]: r for r in table if all(r[k] == v for k, v in wanted.items())}


def direction(row: Row) -> int:
    """1 if large is above small, -1 if below, 0 if these seeds cannot tell or the q-value is above 5 %.

    Near a minimum of the cross-entropy curvature grows with the loss. A measure taken at losses that differ counts only if it
    differs in the same direction per unit of loss.
    """
    signs = set(readings(row).values())
    return signs.pop() if len(signs) == 1 else 0


def readings(row: Row) -> dict[str, int]:
    """The direction as it was measured, and per unit of loss; the same where the losses are."""
    known, equal = (row["ratio"], 1.0) if "ratio" in row else (row["difference"], 0.0)
    sign = 0 if row.get("q", 0.0) > LEVEL else _side(known, equal)
    if "per_loss" not in row:
        return {"as measured": sign, "per unit of loss": sign}
    return {"as measured": sign, "per unit of loss": 0 if row["per_loss"] is None else _side(row["per_loss"], 1.0)}


def _side(found: dict[str, Any], equal: float) -> int:
    """1 if an interval is above, -1 if below, 0 if it holds the value."""
    return int(found["low"] > equal) - int(found["high"] < equal)


def settings(runs: Runs, arm: str) -> list[str]:
    """The settings in which 10 % of the data were tried in an arm, whether or not all runs came down to their loss."""
    return list(dict.fromkeys(r["item"]["setting"] for r in runs if (r["item"]["arm"], r["item"]["batch"]) == (arm, "10 %")))


def directions(runs: Runs, arm: str, found: Mapping[str, Row]) -> list[int]:
    """`direction` in every setting of an arm; 0 in one without a row."""
    return [direction(found[s]) if s in found else 0 for s in settings(runs, arm)]


def paired(runs: Runs, setting: str, arm: str, batch: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(small, large) of every seed; none if a run did not come down to its loss."""
    of_small = MAIN if arm in (SCALED, STEPS) else arm
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for run in runs:
        item = run["item"]
        if item["setting"] == setting and (item["arm"], item["batch"]) in ((of_small, "16"), (arm, batch)):
            found["16" if item["batch"] == "16" else "large", item["seed"]] = run
    seeds = sorted({seed for _, seed in found})
    both = [(found["16", s], found["large", s]) for s in seeds if ("16", s) in found and ("large", s) in found]
    return both if all(s["fitted"] and b["fitted"] for s, b in both) else []
