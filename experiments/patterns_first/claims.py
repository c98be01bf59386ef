"""The claims of Arpit et al. against the runs of `experiments.patterns_first.runs`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from experiments.common.document import Claim, verdict
from experiments.common.options import Options
from experiments.common.statistics import (
    LEVEL,
    Interval,
    adjusted,
    asked,
    detectable,
    difference,
    direction,
    equality,
    every,
    everywhere,
    exp,
    mean,
    paired_p,
    within,
)  # fmt: skip
from experiments.common.work import Item

NAMES = {"digits": "digits", "cifar10": "CIFAR-10"}
NOISE = ("labels 20%", "labels 40%", "labels 60%", "labels 80%")
MEMORIZED = (*NOISE, "random labels", "gaussian")
# lambda_max within this share of 2 / lr.
NEAR = 0.05
FEWEST = 3  # measured points above 2 / lr that make a plateau
CEILING = 0.8  # a critical sample ratio above which it can hardly rise

Of = Callable[[Item], float | None]


class Runs:
    """The runs of one data set, asked for one number of one kind, in the order of the seeds."""

    def __init__(self, runs: Sequence[Item]) -> None:
        self.runs = runs

    def of(self, number: Of, condition: str, kind: str = "stochastic") -> list[float]:
        """The number of every run of this kind; nan where a run has none."""
        found = [r for r in self.runs if (r["item"]["kind"], r["item"]["condition"]) == (kind, condition)]
        return [math.nan if (value := number(r)) is None else value for r in found]


def by_data(runs: Sequence[Item]) -> dict[str, Runs]:
    """The runs of every data set, by its name."""
    names = dict.fromkeys(r["item"]["data"] for r in runs)
    return {NAMES[name]: Runs([r for r in runs if r["item"]["data"] == name]) for name in names}


def judged(runs: Sequence[Item], given: Options) -> Item:
    """The verdict of the study: every claim for each data set by itself."""
    claims = []
    for name, known in by_data(runs).items():
        own = [*_patterns_first(known), _critical(known), _critical_rises(known), _critical_memorizing(known), _gini(known)]
        claims += [replace(claim, claim=f"{name}: {claim.claim}") for claim in own]
    claims.append(_edge(by_data(runs)["digits"]))
    width, radius = 16 * given.width, runs[0]["item"]["radius"]
    pictures = f"; {given.samples} CIFAR-10 images, perceptron 3072-{width}-{width}-10" if given.data else ""
    later = {
        name: [row["value"] for row in _patterns_first(known)[0].numbers.values()] for name, known in by_data(runs).items()
    }
    return verdict(
        claims,
        headline="half of the wrong labels take more epochs than half of the right ones: "
        + "; ".join(f"{min(v):.3g} to {max(v):.3g} times as many on {name}" for name, v in later.items()),
        scale=f"{len(given.seeds)} seeds; 1,347 digits, perceptron 64-128-64-10{pictures}",
        departures=[
            "Networks and data sets are far smaller than in the paper.",
            "A perceptron finds little to generalize from in so few CIFAR-10 images, so that there is hardly a pattern to be "
            "learned first.",
            f"Critical samples are searched in a box of half-width {radius:g} on the scale of 0 to 255, ten times the paper's, "
            "in which networks as small as these have none, clean or not.",
            "Training goes on to a loss of 0.01, where margins are large and hardly a sample is critical in any network.",
            "Loss sensitivity is the sum of absolute derivatives, averaged over up to 60 epochs and not over the steps.",
            "Critical samples are searched among the first 500 digits and 250 images; the curvature is that of all digits and "
            "of these images.",
            "Rules changed after the first results: the plateau is a mean within 5 % over at least three points (before: a "
            "median within 10 %); conditions in which nearly all samples are critical after the first epoch, or in which "
            "the peak is not sure or comes no sooner than wrong labels are fitted, do not decide what should rise from there.",
            "What is fitted by the end of the first epoch counts as fitted then, for nothing is measured before.",
            "Images are trained with Adam, which has no edge at 2 / lr. Stochastic gradient descent need not reach the edge; "
            "full-batch descent should. The edge of stability is not a claim of the paper (Cohen et al. 2021).",
        ],
    )


def table(runs: Sequence[Item]) -> list[Item]:
    """One row for every kind of stochastic run: means over seeds with intervals, at the end and where the trace is largest."""
    rows = []
    numbers: dict[str, Of] = {
        "half_right": lambda r: r["half_right"],
        "half_wrong": lambda r: r["half_wrong"],
        "epochs": lambda r: r["final"]["epochs"],
        "test_accuracy": lambda r: r["final"]["test_accuracy"],
        "peak_above_final": lambda r: r["peak_above_final"],
        "gini": lambda r: r["gini"],
        "final_csr": lambda r: r["measured"][-1]["csr"],
        "largest_csr": lambda r: max(m["csr"] for m in r["measured"]),
        "final_lambda_max": lambda r: r["measured"][-1]["lambda_max"],
        "largest_lambda_max": lambda r: max(m["lambda_max"] for m in r["measured"]),
        "final_trace": lambda r: sum(r["measured"][-1]["traces"].values()),
        "largest_trace": lambda r: max(sum(m["traces"].values()) for m in r["measured"]),
    }
    for data, known in by_data(runs).items():
        for c in ("clean", *MEMORIZED):
            found = {name: known.of(number, c) for name, number in numbers.items()}
            told = {name: mean(v).to_json() if np.isfinite(v).all() else None for name, v in found.items()}
            rows.append({"data": data, "condition": c, **told})
    return rows


def _patterns_first(known: Runs) -> list[Claim]:
    """The three claims on the order in which right labels, wrong labels and the test set are learned."""
    # Nothing is measured between the untrained network and the end of the first epoch: what is fitted by then counts as that.
    right, wrong, at = (
        {c: np.maximum(known.of(lambda r, k=key: r[k], c), 1.0) for c in NOISE}
        for key in ("half_right", "half_wrong", "peak_epoch")
    )
    above = {c: known.of(lambda r: r["peak_above_final"], c) for c in NOISE}
    peaks = _shift(
        "the test accuracy has a peak, and falls as wrong labels are memorized, at 20 % and more of them",
        "the accuracy on clean data peaks before noise is fitted, then falls (without a number)",
        "points from the peak to the end",
        {c: (v, [0.0] * len(v)) for c, v in above.items()},
        unit=100.0,
    )
    there = [c for c, row in peaks.numbers.items() if row["q"] <= LEVEL and row["low"] > 0]
    before = _factor(
        "the peak comes before half of the wrong labels are fitted",
        "the accuracy on clean data peaks before noise is fitted (without a number)",
        "times the epochs of the peak",
        {c: np.log(wrong[c] / at[c]) for c in NOISE},
        left_out=[c for c in NOISE if c not in there],
        why="no sure peak",
    )
    return [
        _factor(
            "half of the right labels are fitted before half of the wrong ones",
            "networks learn simple patterns first (without a number)",
            "times the epochs",
            {c: np.log(wrong[c] / right[c]) for c in NOISE},
        ),
        peaks,
        before,
    ]


def _critical(known: Runs) -> Claim:
    def along(run: Item) -> float:
        return float(np.mean([m["csr"] for m in run["measured"]]))

    return _shift(
        "more samples are critical for noise than for real data, along training",
        "the critical sample ratio is higher for noise in inputs and in labels (without a number)",
        "points of the mean over log-spaced epochs, above clean",
        {c: (known.of(along, c), known.of(along, "clean")) for c in MEMORIZED},
        unit=100.0,
    )


def _critical_rises(known: Runs) -> Claim:
    start = {c: float(np.mean(known.of(lambda r: r["measured"][0]["csr"], c))) for c in MEMORIZED}
    return _shift(
        "more samples are critical at the end of training on noise than after the first epoch",
        "the critical sample ratio rises through training (without a number)",
        "points from the first epoch to the last",
        {
            c: (known.of(lambda r: r["measured"][-1]["csr"], c), known.of(lambda r: r["measured"][0]["csr"], c))
            for c in MEMORIZED
        },
        unit=100.0,
        left_out=[c for c, ratio in start.items() if ratio > CEILING],
        why=f"more than {CEILING:.0%} are critical after the first epoch already",
    )


def _critical_memorizing(known: Runs) -> Claim:
    def near(run: Item, epoch: float | None) -> float | None:
        return None if epoch is None else min(run["measured"], key=lambda m: abs(math.log(m["epoch"] / max(epoch, 1.0))))["csr"]

    peak, half = ({c: known.of(lambda r, k=k: r[k], c) for c in NOISE} for k in ("peak_epoch", "half_wrong"))
    return _shift(
        "more samples are critical when half of the wrong labels are fitted than at the peak of the test accuracy",
        "the critical sample ratio rises as noise is fitted (without a number)",
        "points",
        {c: (known.of(lambda r: near(r, r["half_wrong"]), c), known.of(lambda r: near(r, r["peak_epoch"]), c)) for c in NOISE},
        unit=100.0,
        left_out=[c for c in NOISE if np.median(np.divide(peak[c], half[c])) >= 1],
        why="the peak does not come before",
    )


def _gini(known: Runs) -> Claim:
    clean = known.of(lambda r: r["gini"], "clean")
    return _shift(
        "few samples have most of the loss sensitivity for real data, but not for noise: the Gini coefficient is higher",
        "higher for real data than for noise (without a number)",
        "above noise",
        {c: (clean, known.of(lambda r: r["gini"], c)) for c in ("gaussian", "random labels")},
    )


def at_edge(run: Item) -> float | None:
    """Mean of lambda_max lr / 2 from the first time it is at least 1 to the last; None if it is so fewer than three times.

    The bar of squared losses (`experiments.bars.edge_of_stability`) goes to the end of training; under cross-entropy lambda_max
    falls as the loss vanishes.
    """
    ratio = np.array(run["lambda_max"]) / run["edge"]
    above = np.flatnonzero(ratio >= 1)
    return float(np.mean(ratio[above[0] : above[-1] + 1])) if len(above) >= FEWEST else None


def _edge(known: Runs) -> Claim:
    words, numbers, plateaus = [], {}, []
    near: list[bool | None] = []
    for c in ("clean", "labels 40%"):
        found = known.of(at_edge, c, "descent")
        there = [v for v in found if math.isfinite(v)]
        plateaus.append(there)
        told = mean(there) if there else Interval(math.nan, math.nan, math.nan, 0)
        plateau = f"{told} of 2 / lr in {len(there)}" if there else "no plateau in any"
        words.append(f"{c}: {plateau} of {len(found)} seeds")
        numbers[c] = told.to_json() | {"reached": len(there), "seeds": len(found)}
        near.append(within(told, 1 - NEAR, 1 + NEAR) if len(there) == len(found) else None)
    return Claim(
        "digits: full-batch gradient descent takes lambda_max to 2 / lr and keeps it there until the loss is small",
        "lambda_max hovers at or just above 2 / lr (Cohen et al. 2021, arXiv:2103.00065; not in this paper)",
        f"{'; '.join(words)} (mean from the first to the last time above it; at least {FEWEST} points above it; within "
        f"{NEAR:.0%} is near)",
        every(near),
        equality(plateaus, NEAR, "% of 2 / lr", unit=100),
        numbers=numbers,
        question=True,
    )


def _factor(
    claim: str, published: str, unit: str, logs: dict[str, np.ndarray], left_out: Sequence[str] = (), why: str = ""
) -> Claim:
    """A claim that factors, given as logarithms for every seed, are above 1 in every condition; as `_shift` judges it."""
    zero = {k: [0.0] * len(v) for k, v in logs.items()}
    found = {k: mean(v.tolist()).exp() for k, v in logs.items()}
    q = dict(zip(logs, adjusted([paired_p(v, zero[k]) for k, v in logs.items()]), strict=True))
    return Claim(
        claim,
        published,
        "; ".join(f"{k}: {v}" for k, v in found.items())
        + f" {unit} (largest q = {max(q.values()):.2g}){_told_apart(left_out, why)}",
        _answer({k: direction(v, q[k], 1.0) for k, v in found.items()}, left_out),
        f"a factor of {max(exp(detectable(v, zero[k], level=asked(list(q.values())))) for k, v in logs.items()):.3g}",
        {k: v.to_json() | {"q": q[k]} for k, v in found.items()},
    )


def _shift(
    claim: str, published: str, words: str, pairs: dict[str, tuple[list[float], list[float]]], unit: float = 1.0,
    left_out: Sequence[str] = (), why: str = "",
) -> Claim:  # fmt: skip
    """A claim that the first of two paired numbers is the larger one in every condition; told in 1 / `unit`.

    Conditions that are left out, for a reason, decide nothing: the others can refute the claim, and not confirm it.
    """
    found = {k: difference(np.multiply(a, unit), np.multiply(b, unit)) for k, (a, b) in pairs.items()}
    q = dict(zip(pairs, adjusted([paired_p(a, b) for a, b in pairs.values()]), strict=True))
    level = asked(list(q.values()))
    return Claim(
        claim,
        published,
        "; ".join(f"{k}: {v}" for k, v in found.items())
        + f" {words} (largest q = {max(q.values()):.2g}){_told_apart(left_out, why)}",
        _answer({k: direction(v, q[k]) for k, v in found.items()}, left_out),
        f"{unit * max(detectable(a, b, level=level) for a, b in pairs.values()):.3g}" + (" points" if unit == 100 else ""),
        {k: v.to_json() | {"q": q[k]} for k, v in found.items()},
    )


def _answer(signs: dict[str, int], left_out: Sequence[str]) -> bool | None:
    """Whether all conditions point upwards; with some left out, only whether one of the others points downwards."""
    answer = everywhere([sign for c, sign in signs.items() if c not in left_out])
    return answer if not left_out or answer is False else None


def _told_apart(left_out: Sequence[str], why: str) -> str:
    """Which conditions are not judged."""
    return f"; not judged, for {why}: {', '.join(left_out)}" if left_out else ""
