"""The claims of the study against the AUROC of its runs."""

import math
from collections.abc import Sequence

import numpy as np

from experiments.common.document import Claim, verdict
from experiments.common.options import Options
from experiments.common.statistics import (
    Interval,
    adjusted,
    asked,
    departure,
    detectable,
    difference,
    direction,
    every,
    mean,
    paired_p,
    within,
)
from experiments.common.work import Item
from experiments.memorized_samples.growth_claims import Growth, growth_claims, growth_departures
from experiments.memorized_samples.runs import PEER, SCORES, STRIDE, WRONG

BAR = 0.97
MARGIN = 0.005  # of AUROC: below, two scores are as good
# Published on CIFAR-10 with 1, 2, 5, 10 % wrong labels, a ResNet-18 and all 50,000 images.
PUBLISHED = {
    "mean_input_curvature": (0.972, 0.978, 0.980, 0.982),
    "cumulative_loss": (0.985, 0.986, 0.987, 0.987),
}


class Table:
    """AUROC of all scores and of the peer, by data and share of wrong labels, in the order of the seeds."""

    def __init__(self, runs: Sequence[Item], peer: Sequence[Item]) -> None:
        self._values: dict[tuple[str, float, str], list[float]] = {}
        for run in (*runs, *peer):
            for name, found in run["auroc"].items():
                self._values.setdefault((run["item"]["data"], run["item"]["wrong"], name), []).append(found["value"])
        self.data = list(dict.fromkeys(run["item"]["data"] for run in runs))
        self.names = list(dict.fromkeys(name for _, _, name in self._values))

    def of(self, data: str, wrong: float, name: str) -> list[float]:
        """AUROC of one score."""
        return self._values.get((data, wrong, name), [])

    def over_levels(self, data: str, name: str) -> list[float]:
        """For every seed, the mean over the shares of wrong labels."""
        return np.mean([self.of(data, wrong, name) for wrong in WRONG], axis=0).tolist()

    def rows(self) -> list[Item]:
        """Means over seeds with intervals."""
        return [
            {"data": data, "wrong": wrong, "score": name, "auroc": mean(self.of(data, wrong, name)).to_json()}
            for data in self.data for name in self.names for wrong in WRONG if self.of(data, wrong, name)
        ]  # fmt: skip


def _told(found: Sequence[Interval]) -> str:
    """Numbers for 1, 2, 5, 10 % wrong labels."""
    return ", ".join(f"{v.value:.3f} [{v.low:.3f}, {v.high:.3f}]" for v in found)


def _at_least(found: Sequence[Interval], bar: float) -> bool | None:
    """Whether all are at least the bar: None if an interval holds it and none lies below."""
    return every([within(v, bar, math.inf) for v in found])


def judged(runs: Sequence[Item], peer: Item, growth: Growth, given: Options) -> Item:
    """The claims against the runs."""
    table = Table(runs, peer["runs"])
    fitted = [run["wrong_labels_fitted"] for run in runs]
    claims = [_best(table, data) for data in table.data]
    claims += [_published(table, name) for name in PUBLISHED if "cifar10" in table.data]
    claims += _orders(table)
    claims += growth_claims(growth, BAR)
    tests = {d: np.mean([r["test_accuracy"] for r in runs if r["item"]["data"] == d]) for d in table.data}
    images = f"; {given.samples} CIFAR-10 images, convolutional network of width {given.width}" if given.data else ""
    sets = {"digits": "digits", "cifar10": f"{given.samples:,} CIFAR-10 images"}
    best = {d: claim.numbers for d, claim in zip(table.data, claims, strict=False)}
    return verdict(
        claims,
        headline="wrong labels among right ones are found with an AUROC, by the best score, of "
        + "; ".join(f"{min(v['value'] for v in found['auroc']):.3f} or more on {sets[d]}" for d, found in best.items())
        + growth.with_all_images(),
        scale=f"{len(given.seeds)} seeds; 1,347 digits, perceptron 64-256-128-10{images}; "
        f"wrong labels memorized: {min(fitted):.0%} or more in every run, {np.mean(fitted):.0%} on average; "
        f"test accuracy {', '.join(f'{v:.0%} on {d}' for d, v in tests.items())}",
        departures=[
            f"Far fewer images than the papers' 50,000{', but where they are named' if growth.whole else ''}, and a perceptron "
            "or two convolutions instead of a ResNet-18: a network of a low test accuracy has not learned what a wrong label "
            "contradicts",
            *([f"Only the first {given.samples} training images are used; --samples takes more"] if given.data else []),
            "The recipes were fixed before the runs, by how many epochs memorize the labels of another seed",
            "Labels are redrawn with probability p / 0.9, so that a share p is really wrong; the number varies with the seed",
            f"The means of input scores are over every {STRIDE}th epoch, cumulative loss and forgetting over every epoch",
            "Input curvature is the squared norm over h squared, on normalized inputs, h = 1e-3, 10 signs",
            f"No augmentation{', but where it is named,' if growth.points else ''} and no weight decay",
            "Confident learning is cleanlab's label quality, the probability of the label out of sample. It has the same "
            "recipe, and stops in every fold at the epoch with the smallest loss on what is "
            "left out, which is also the fold that it then scores, in its favour; the figure has its end of training, too, "
            "which was compared before",
            "Rules changed after the first results: scores that differ by less than 0.005 are as good as each other, a "
            "published number is reached if the whole interval is, and confident learning stops early. Later: where a "
            "score leaves less room than that below 1, what is no better does not count as refuted",
            *(growth_departures(growth) if growth.points else []),
        ],
    )


def _best(table: Table, data: str) -> Claim:
    """The bar: the score with the largest mean."""
    name = max(SCORES, key=lambda n: np.mean(table.over_levels(data, n)))
    found = [mean(table.of(data, wrong, name)) for wrong in WRONG]
    return Claim(
        f"{data}: the best score finds 1, 2, 5 and 10 % wrong labels with an AUROC of at least {BAR}",
        "0.985, 0.986, 0.987, 0.987 by cumulative loss on CIFAR-10",
        f"{name}: {_told(found)}",
        _at_least(found, BAR),
        f"an AUROC {max(departure(table.of(data, wrong, name), BAR) for wrong in WRONG):.2g} from {BAR}",
        numbers={"score": name, "auroc": [v.to_json() for v in found]},
        question=data == "digits",  # the published numbers are of CIFAR-10
    )


def _published(table: Table, name: str) -> Claim:
    """A score's numbers beside the paper's on CIFAR-10."""
    found = [mean(table.of("cifar10", wrong, name)) for wrong in WRONG]
    return Claim(
        f"cifar10: {name} reaches the published AUROC",
        f"{', '.join(f'{p:.3f}' for p in PUBLISHED[name])} with all of CIFAR-10",
        _told(found),
        every([within(v, p, math.inf) for v, p in zip(found, PUBLISHED[name], strict=True)]),
        f"an AUROC {max(departure(table.of('cifar10', w, name), p) for w, p in zip(WRONG, PUBLISHED[name], strict=True)):.2g} "
        "from the published one",
        numbers={"auroc": [v.to_json() for v in found], "published": list(PUBLISHED[name])},
    )


def _orders(table: Table) -> list[Claim]:
    """Which score is better, on both data sets, by the mean over the shares of wrong labels, paired by seed."""
    orders = [
        ("cumulative_loss", "mean_input_curvature", "the cumulative loss finds more than the input curvature",
         "0.986 against 0.978"),
        ("mean_input_curvature", "input_curvature", "the input curvature finds more averaged over training than at its end",
         "averaged over epochs in the paper, without a number for the end"),
        ("cumulative_loss", PEER, "the cumulative loss finds more than confident learning",
         "0.985 to 0.987 against 0.855 to 0.891"),
        ("mean_input_curvature", PEER, "the input curvature finds more than confident learning",
         "0.972 to 0.982 against 0.855 to 0.891"),
    ]  # fmt: skip
    orders = [row for row in orders if {row[0], row[1]} <= set(table.names)]
    pairs = {(a, b, d): (table.over_levels(d, a), table.over_levels(d, b)) for a, b, *_ in orders for d in table.data}
    q = dict(zip(pairs, adjusted([paired_p(*values) for values in pairs.values()]), strict=True))
    claims = []
    for a, b, claim, published in orders:
        gaps = {d: difference(*pairs[a, b, d]) for d in table.data}
        told = (f"{d}: {v.value:+.3f} [{v.low:+.3f}, {v.high:+.3f}], q = {q[a, b, d]:.2g}" for d, v in gaps.items())
        claims.append(
            Claim(
                claim, published, "; ".join(told) + f" in AUROC, mean of the four shares (as good: less than {MARGIN:g})"
                + _full({d: pairs[a, b, d][1] for d in table.data}),
                _larger([(v, q[a, b, d], 1.0 - float(np.mean(pairs[a, b, d][1]))) for d, v in gaps.items()]),
                f"{max(detectable(*pairs[a, b, d], level=asked(list(q.values()))) for d in table.data):.3f} in AUROC",
                {d: v.to_json() | {"q": q[a, b, d]} for d, v in gaps.items()},
                question=b == "input_curvature",
            )
        )  # fmt: skip
    return claims


def _full(others: dict[str, list[float]]) -> str:
    """On which data the other score leaves no room for a better one."""
    found = [d for d, values in others.items() if 1.0 - np.mean(values) < MARGIN]
    return f"; no room to be better on {', '.join(found)}" if found else ""


def _larger(found: Sequence[tuple[Interval, float, float]]) -> bool | None:
    """Whether all differences are surely positive and no smaller than `MARGIN`; False if one is surely not; else None.

    Each has its q-value, and the room that the other score leaves below an AUROC of 1. Where that is less than `MARGIN`, no
    score could be better by as much: only a score that is surely worse refutes the claim there.
    """

    def one(v: Interval, q: float, room: float) -> bool | None:
        if room < MARGIN:
            return False if direction(v, q) == -1 else None
        return False if v.high < MARGIN else True if direction(v, q) == 1 and v.value >= MARGIN else None

    return every([one(*row) for row in found])
