"""The claims of Arpit et al. against the runs of `experiments.patterns_first.runs`."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from experiments.common.document import Claim, verdict
from experiments.common.options import Options
from experiments.common.statistics import Interval, adjusted, detectable, difference, mean, paired_p
from experiments.common.work import Item

NOISE = ("labels 20%", "labels 40%", "labels 60%", "labels 80%")
MEMORIZED = (*NOISE, "random labels", "gaussian")
# lambda_max within this share of 2 / lr.
NEAR = 0.1

Of = Callable[[Item], float | None]


class Runs:
    """The runs of a study, asked for one number of one kind, in the order of the seeds."""

    def __init__(self, runs: Sequence[Item]) -> None:
        self.runs = runs
        self.data = list(dict.fromkeys(r["item"]["data"] for r in runs))

    def of(self, number: Of, kind: str = "stochastic", **item: str) -> list[float]:
        """The number of every run of this kind; nan where a run has none."""
        found = [r for r in self.runs if r["item"]["kind"] == kind and all(r["item"][k] == v for k, v in item.items())]
        return [math.nan if (value := number(r)) is None else value for r in found]

    def pairs(self, number: Of, conditions: Sequence[str], other: str) -> dict[str, tuple[list[float], list[float]]]:
        """For every data set and condition, the number there and for the other condition."""
        return {
            f"{d}, {c}": (self.of(number, data=d, condition=c), self.of(number, data=d, condition=other))
            for d in self.data
            for c in conditions
        }


def judged(runs: Sequence[Item], given: Options) -> Item:
    """The verdict of the study."""
    known = Runs(runs)
    claims = [
        *_patterns_first(known), _critical(known), _critical_rises(known), _critical_memorizing(known), _gini(known),
        _edge(known),
    ]  # fmt: skip
    pictures = (
        f"; {given.samples} CIFAR-10 images, perceptron 3072-{16 * given.width}-{16 * given.width}-10" if given.data else ""
    )
    radius = runs[0]["item"]["radius"]
    return verdict(
        claims,
        scale=f"{len(given.seeds)} seeds; 1,347 digits, perceptron 64-128-64-10{pictures}",
        departures=[
            "The paper has MNIST and CIFAR-10 with perceptrons of 4,096 units and convolutional networks.",
            f"Critical samples are searched in a box of half-width {radius:g} on the scale of 0 to 255, ten times the paper's: in "
            "the paper's box, networks as small as these have none, clean or not.",
            "Loss sensitivity is averaged over up to 60 epochs, not over the steps.",
            "Critical samples are searched among the first 500 digits and 250 images; the curvature is that of all digits and of "
            "these images.",
            "Images are trained with Adam, which has no edge at 2 / lr. Stochastic gradient descent need not reach the edge; "
            "full-batch descent should. The edge of stability is not a claim of the paper (Cohen et al. 2021).",
        ],
    )


def table(runs: Sequence[Item]) -> list[Item]:
    """One row for every kind of stochastic run: means over seeds with intervals, at the end and where the trace is largest."""
    known, rows = Runs(runs), []
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
    for d in known.data:
        for c in ("clean", *MEMORIZED):
            found = {name: known.of(number, data=d, condition=c) for name, number in numbers.items()}
            told = {name: mean(v).to_json() if np.isfinite(v).all() else None for name, v in found.items()}
            rows.append({"data": d, "condition": c, **told})
    return rows


def _patterns_first(known: Runs) -> list[Claim]:
    """The three claims on the order in which right labels, wrong labels and the test set are learned."""
    ratios, peaks, orders = {}, {}, {}
    for d in known.data:
        for c in NOISE:
            right, wrong, at = (
                np.array(known.of(lambda r, k=k: r[k], data=d, condition=c)) for k in ("half_right", "half_wrong", "peak_epoch")
            )
            ratios[f"{d}, {c}"] = np.log(wrong) - np.log(right)
            orders[f"{d}, {c}"] = np.log(wrong) - np.log(at)
            peaks[f"{d}, {c}"] = np.array(known.of(lambda r: r["peak_above_final"], data=d, condition=c))
    return [
        _factor(
            "half of the right labels are fitted before half of the wrong ones",
            "networks learn simple patterns first (section 4; figure 7, without a number)",
            "times the epochs",
            ratios,
        ),
        _shift(
            "the test accuracy has a peak, and falls as wrong labels are memorized, at 20 % and more of them",
            "validation accuracy peaks before noise is fitted, then falls (figure 7, without a number)",
            "points from the peak to the end",
            {k: (v.tolist(), [0.0] * len(v)) for k, v in peaks.items()},
            unit=100.0,
        ),
        _factor(
            "the peak comes before half of the wrong labels are fitted",
            "validation accuracy peaks before noise is fitted (figure 7, without a number)",
            "times the epochs of the peak",
            orders,
        ),
    ]


def _critical(known: Runs) -> Claim:
    return _shift(
        "more samples are critical for noise than for real data, along training",
        "the critical sample ratio is higher for noise in inputs and in labels (figures 7 and 8, without a number)",
        "points of the mean over training, above clean",
        known.pairs(lambda r: float(np.mean([m["csr"] for m in r["measured"]])), MEMORIZED, "clean"),
        unit=100.0,
    )


def _critical_rises(known: Runs) -> Claim:
    kinds = {f"{d}, {c}": {"data": d, "condition": c} for d in known.data for c in MEMORIZED}
    ends: dict[str, Of] = {"last": lambda r: r["measured"][-1]["csr"], "first": lambda r: r["measured"][0]["csr"]}
    return _shift(
        "more samples are critical at the end of training on noise than after the first epoch",
        "the critical sample ratio rises through training, networks learn more complex functions (section 4)",
        "points from the first epoch to the last",
        {k: (known.of(ends["last"], **v), known.of(ends["first"], **v)) for k, v in kinds.items()},
        unit=100.0,
    )


def _critical_memorizing(known: Runs) -> Claim:
    def near(run: Item, epoch: float | None) -> float | None:
        return None if epoch is None else min(run["measured"], key=lambda m: abs(math.log(m["epoch"] / max(epoch, 1.0))))["csr"]

    kinds = {f"{d}, {c}": {"data": d, "condition": c} for d in known.data for c in NOISE}
    return _shift(
        "more samples are critical when half of the wrong labels are fitted than at the peak of the test accuracy",
        "the critical sample ratio rises as noise is fitted (figure 7, without a number)",
        "points",
        {
            k: (
                known.of(lambda r: near(r, r["half_wrong"]), **v),
                known.of(lambda r: near(r, r["peak_epoch"]), **v),
            )
            for k, v in kinds.items()
        },
        unit=100.0,
    )


def _gini(known: Runs) -> Claim:
    pairs = known.pairs(lambda r: r["gini"], ("gaussian", "random labels"), "clean")
    return _shift(
        "few samples have most of the loss sensitivity for real data, but not for noise: the Gini coefficient is higher",
        "higher for real data than for random images and random labels (figure 3, without a number)",
        "above noise",
        {k: (clean, noise) for k, (noise, clean) in pairs.items()},
    )


def at_edge(run: Item) -> float | None:
    """Median of lambda_max lr / 2 from the first time it is at least 1 to the last; None if it never is."""
    ratio = np.array(run["lambda_max"]) / run["edge"]
    above = np.flatnonzero(ratio >= 1)
    return float(np.median(ratio[above[0] : above[-1] + 1])) if len(above) else None


def _edge(known: Runs) -> Claim:
    found = {c: known.of(at_edge, "descent", condition=c) for c in ("clean", "labels 40%")}
    told = {c: mean(v) for c, v in found.items()}
    return Claim(
        "full-batch gradient descent takes lambda_max to 2 / lr and stays there, until the loss is small",
        "lambda_max hovers at or just above 2 / lr (Cohen et al. 2021, arXiv:2103.00065, figure 1; not in this paper)",
        "; ".join(f"digits, {c}: {v} of 2 / lr" for c, v in told.items()) + f" (median while there; within {NEAR:.0%} is near)",
        all(v.low >= 1 - NEAR and v.high <= 1 + NEAR for v in told.values()),
        numbers={c: v.to_json() for c, v in told.items()},
    )


def _factor(claim: str, published: str, unit: str, logs: dict[str, np.ndarray]) -> Claim:
    """A claim that factors, given as logarithms for every seed, are above 1 everywhere."""
    zero = {k: [0.0] * len(v) for k, v in logs.items()}
    found = {k: _exp(mean(v.tolist())) for k, v in logs.items()}
    q = dict(zip(logs, adjusted([paired_p(v, zero[k]) for k, v in logs.items()]), strict=True))
    return Claim(
        claim,
        published,
        "; ".join(f"{k}: {v}" for k, v in found.items()) + f" {unit} (largest q = {max(q.values()):.2g})",
        all(v.low > 1 and q[k] <= 0.05 for k, v in found.items()),
        f"a factor of {max(math.exp(detectable(v, zero[k])) for k, v in logs.items()):.3g}",
        {k: v.to_json() | {"q": q[k]} for k, v in found.items()},
    )


def _shift(
    claim: str, published: str, words: str, pairs: dict[str, tuple[list[float], list[float]]], unit: float = 1.0
) -> Claim:
    """A claim that the first of two paired numbers is the larger one everywhere; numbers are told in 1 / `unit`."""
    found = {k: difference(np.multiply(a, unit), np.multiply(b, unit)) for k, (a, b) in pairs.items()}
    q = dict(zip(pairs, adjusted([paired_p(a, b) for a, b in pairs.values()]), strict=True))
    return Claim(
        claim,
        published,
        "; ".join(f"{k}: {v}" for k, v in found.items()) + f" {words} (largest q = {max(q.values()):.2g})",
        all(v.low > 0 and q[k] <= 0.05 for k, v in found.items()),
        f"{max(unit * detectable(a, b) for a, b in pairs.values()):.3g}" + (" points" if unit == 100 else ""),
        {k: v.to_json() | {"q": q[k]} for k, v in found.items()},
    )


def _exp(logs: Interval) -> Interval:
    """The interval of a factor from that of its logarithm."""
    return Interval(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.n)
