"""What the runs with more images say: how the AUROC grows with their number, and what else moves it."""

import math
from collections.abc import Sequence

import numpy as np

from experiments.common.document import Claim
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
from experiments.memorized_samples.growth import CHANGED, DEEP_WIDE, JPEG, OWN, PLAIN, SHARE, VARIANTS, WHOLE
from experiments.memorized_samples.runs import WRONG

Point = tuple[str, str, int]  # images, variant, how many
BY = "cumulative_loss"


class Growth:
    """Runs by their images, variant and number of images; the study's own runs with the same share are the smallest size."""

    def __init__(self, runs: Sequence[Item], growth: Sequence[Item], samples: int) -> None:
        own = [r for r in runs if r["item"]["data"] == "cifar10" and r["item"]["wrong"] == SHARE]
        self.points: dict[Point, dict[int, Item]] = {}
        self.whole: dict[float, list[Item]] = {}  # the runs with all images, by share
        for run in own if growth else []:
            self.points.setdefault((OWN, PLAIN, samples), {})[run["item"]["seed"]] = run
        for run in growth:
            item = run["item"]
            point = (item["images"], item["variant"], item["images_used"])
            if item["wrong"] == SHARE:
                self.points.setdefault(point, {})[item["seed"]] = run
            if point == (JPEG, DEEP_WIDE, WHOLE):
                self.whole.setdefault(item["wrong"], []).append(run)

    def with_all_images(self) -> str:
        """The smallest mean over the shares with all of CIFAR-10, in words; "" if that was not run."""
        means = [float(np.mean([r["auroc"][BY]["value"] for r in runs])) for runs in self.whole.values()]
        return f"; {min(means):.3f} or more on all {WHOLE:,} of them as JPEG" if means else ""

    def auroc(self, point: Point, seeds: Sequence[int] | None = None, epochs: int | None = None) -> list[float]:
        """AUROC of the cumulative loss of some seeds, or all; at the end of training, or after some epochs."""
        runs = [self.points[point][s] for s in seeds or sorted(self.points[point])]
        if epochs in (None, self.epochs(point)):
            return [r["auroc"][BY]["value"] for r in runs]
        return [r["after_epochs"][epochs] for r in runs]

    def epochs(self, point: Point) -> int:
        """Epochs of training."""
        return int(next(iter(self.points[point].values()))["item"]["recipe"]["epochs"])

    def curve(self, images: str, variant: str) -> tuple[list[Point], list[int], int]:
        """The points of a recipe by their size, the seeds that all of them have, and the epochs that all of them have."""
        points = [(images, variant, n) for n in self.sizes(images, variant)]
        seeds = set.intersection(*(set(self.points[p]) for p in points))
        return points, sorted(seeds), min(self.epochs(p) for p in points)

    def sizes(self, images: str, variant: str) -> list[int]:
        """Numbers of images that were tried."""
        return sorted(n for i, v, n in self.points if (i, v) == (images, variant))

    def curves(self) -> list[tuple[str, str]]:
        """Images and variants, with more than one size."""
        return [
            pair
            for pair in dict.fromkeys((i, v) for v in VARIANTS for i in (OWN, JPEG))
            if len(self.sizes(*pair)) > 1
        ]  # fmt: skip

    def rows(self) -> list[Item]:
        """A row for every point: AUROCs, accuracies, and what a run took."""
        return [self._row(point) for point in sorted(self.points, key=lambda p: (VARIANTS.index(p[1]), -len(p[0]), p[2]))]

    def _row(self, point: Point) -> Item:
        """One point."""
        runs = [run for _, run in sorted(self.points[point].items())]
        row: Item = {"images": point[0], "variant": point[1], "samples": point[2], "seeds": len(runs)}
        row["epochs"] = self.epochs(point)
        for name in (BY, "forgetting"):
            row[name] = mean([r["auroc"][name]["value"] for r in runs]).to_json()
        for name in ("train_accuracy", "test_accuracy", "wrong_labels_fitted", "seconds"):
            row[name] = float(np.mean([r[name] for r in runs]))
        # The study's own runs have other scores as well, which take most of their time, and no AUROC by epochs.
        row["alone"] = all("after_epochs" in r for r in runs)
        row["after_epochs"] = np.mean([r["after_epochs"] for r in runs], axis=0).tolist() if row["alone"] else None
        return row


def growth_claims(found: Growth, bar: float) -> list[Claim]:
    """Questions of ours; none where there are no such runs."""
    if not found.points:
        return []
    whole = [_with_all_images(found, bar)] if found.whole else []
    return [_grows(found), _reaches(found, bar), *whole, *_changes(found)]


def growth_departures(found: Growth) -> list[str]:
    """Where the runs with more images depart, and how their recipes were chosen."""
    told = [
        f"With more images there is one share of wrong labels, {SHARE:.0%}"
        f"{', but with all of CIFAR-10,' if found.whole else ','} and two scores: input "
        "curvature at a checkpoint costs as much as 30 passes for the loss, and confident learning four times the training and "
        "more",
        "The recipes with more images were chosen by one seed that is not judged (100), on 5,000 unaltered images for 20 "
        "epochs: the study's network with and without augmentation, VGG-9 with and without it; VGG-9 begins with as many "
        "channels as the study's. The batch (32), Adam and its learning rate (2e-3 for VGG-9) were not searched",
        "The intervals of three seeds cover the mean in some 75 % of cases, not in 95 %",
        "Augmented networks have hardly fitted the wrong labels when training ends: what finds them is that they are not "
        "learned, not that they are memorized",
    ]
    if any(images == JPEG for images, _, _ in found.points):
        told.append(
            "Images called JPEG are CIFAR-10 re-encoded (quality 75, 4:2:0), interleaved by class; the test images are of the "
            "same kind. They have a curve of their own, with fewer epochs, and curves are compared after as many epochs as all "
            "of their sizes have"
        )
    if found.whole:
        told.append(
            f"The recipe for all {WHOLE:,} images ({DEEP_WIDE}, batch 64) was tried once, with seed 100 and 5% wrong labels, "
            "and not searched; the shares beside 5% have one seed, whose interval is over samples"
        )
    return told


def name_of(images: str, samples: int) -> str:
    """How many images, and which."""
    return f"{samples:,}{' as JPEG' if images == JPEG else ''}"


def _grows(found: Growth) -> Claim:
    """The slope over doublings, of each seed that has all sizes, for each curve by itself."""
    told, numbers, signs, seen = [], {}, [], []
    slopes = {pair: _slopes(found, *pair) for pair in found.curves()}
    q = dict(zip(slopes, adjusted([paired_p(v, [0.0] * len(v)) for v in slopes.values()]), strict=True))
    for (images, variant), values in slopes.items():
        (points, seeds, epochs), slope = found.curve(images, variant), mean(values)
        at = [mean(found.auroc(p, seeds, epochs)) for p in points]
        each = ", ".join(f"{_three(v)} with {name_of(images, p[2])}" for p, v in zip(points, at, strict=True))
        sign = f"{slope.value:+.4f} [{slope.low:+.4f}, {slope.high:+.4f}] a doubling, q = {q[images, variant]:.2g}"
        told.append(f"{variant}, {epochs} epochs, {len(seeds)} seeds: {each}, that is {sign}")
        signs.append(direction(slope, q[images, variant]))
        seen.append(departure(values, 0.0, asked(list(q.values()))))
        numbers[f"{variant}, {images}"] = {
            "sizes": found.sizes(images, variant),
            "epochs": epochs,
            "auroc": [v.to_json() for v in at],
            "slope": slope.to_json(),
        }
    return Claim(
        f"cifar10: the more images, the better the cumulative loss finds {SHARE:.0%} wrong labels",
        "0.987 with 50,000 images, and no other number of them",
        "; ".join(told),
        every([{1: True, -1: False, 0: None}[s] for s in signs]),
        f"{max(seen):.3f} in AUROC a doubling" if seen else "",
        numbers,
        question=True,
    )


def _slopes(found: Growth, images: str, variant: str) -> list[float]:
    """AUROC for each doubling of the number of images, by least squares, for every seed that has all sizes."""
    points, seeds, epochs = found.curve(images, variant)
    values = np.array([found.auroc(p, seeds, epochs) for p in points])
    return np.polyfit(np.log2([p[2] for p in points]), values, 1)[0].tolist() if seeds else []


def _reaches(found: Growth, bar: float) -> Claim:
    """The largest mean beside the bar, and the number of images at which its curve would meet it."""
    best = max(found.points, key=lambda p: float(np.mean(found.auroc(p))))
    values = found.auroc(best)
    at, ahead = mean(values), _needed(found, best, bar)
    told = f"best of {len(found.points)}, {best[1]}, {name_of(best[0], best[2])}: {_three(at)}"
    if ahead is not None:
        told += (
            f"; if 1 - AUROC goes on to fall as a power of the number of images, {bar} would take "
            f"{_images(ahead.value)} [{_images(ahead.low)}, {_images(ahead.high)}] of them"
        )
    return Claim(
        f"cifar10: some recipe and number of images find {SHARE:.0%} wrong labels with an AUROC of at least {bar}",
        "0.987 by cumulative loss, with a ResNet-18 and 50,000 images",
        told,
        within(at, bar, math.inf),
        f"an AUROC {departure(values, bar):.2g} from {bar}",
        {"best": list(best), "auroc": at.to_json(), "needed": None if ahead is None else ahead.to_json()},
        question=True,
    )


def _with_all_images(found: Growth, bar: float) -> Claim:
    """The bar at each share, with all of CIFAR-10: over seeds, or for a single seed over its samples."""
    told, numbers, answers, seen = [], {}, [], []
    for wrong in WRONG:
        runs = found.whole.get(wrong, [])
        values = [r["auroc"][BY]["value"] for r in runs]
        if len(runs) > 1:
            at = mean(values)
            seen.append(departure(values, bar))
        elif runs:
            at = Interval(values[0], runs[0]["auroc"][BY]["low"], runs[0]["auroc"][BY]["high"], 1)
        answers.append(within(at, bar, math.inf) if runs else None)
        if runs:
            told.append(f"{wrong:.0%}: {_three(at)} ({'one seed, over samples' if len(runs) == 1 else f'{len(runs)} seeds'})")
            numbers[f"{wrong:g}"] = at.to_json()
    return Claim(
        f"cifar10: with all {WHOLE:,} images, re-encoded as JPEG, the cumulative loss finds 1, 2, 5 and 10 % wrong labels with "
        f"an AUROC of at least {bar}",
        "0.985, 0.986, 0.987, 0.987, with a ResNet-18 and as many images",
        f"{DEEP_WIDE}; " + "; ".join(told),
        every(answers),
        f"an AUROC {max(seen):.2g} from {bar}" if seen else "",
        numbers,
    )


def _needed(found: Growth, best: Point, bar: float) -> Interval | None:
    """How many images would meet the bar, if 1 - AUROC falls as a power of their number; from the curve of the best point.

    The mean and interval are those of the logarithm over seeds. None where there is one size, or the curve does not fall.
    """
    points, seeds, epochs = found.curve(*best[:2])
    if len(points) < 2 or len(seeds) < 2:
        return None
    logs = np.log(1 - np.array([found.auroc(p, seeds, epochs) for p in points]))
    slope, start = np.polyfit(np.log([p[2] for p in points]), logs, 1)
    if np.any(slope >= 0):
        return None
    return mean(((math.log(1 - bar) - start) / slope).tolist()).exp()


def _changes(found: Growth) -> list[Claim]:
    """What each change does on as many images, paired by seed."""
    pairs: dict[str, tuple[list[float], list[float]]] = {}
    for words, (a, b) in CHANGED.items():
        if {a, b} <= set(found.points):
            seeds = sorted(set(found.points[a]) & set(found.points[b]))
            pairs[words] = found.auroc(a, seeds), found.auroc(b, seeds)
    q = dict(zip(pairs, adjusted([paired_p(*v) for v in pairs.values()]), strict=True))
    claims = []
    for words, values in pairs.items():
        gap = difference(*values)
        claims.append(
            Claim(
                f"cifar10: {words} raises the AUROC of the cumulative loss for {SHARE:.0%} wrong labels",
                "not separated",
                f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], q = {q[words]:.2g} in AUROC ({gap.n} seeds)",
                {1: True, -1: False, 0: None}[direction(gap, q[words])],
                f"{detectable(*values, level=asked(list(q.values()))):.3f} in AUROC",
                gap.to_json() | {"q": q[words]},
                question=True,
            )
        )
    return claims


def _three(v: Interval) -> str:
    """An AUROC with its interval."""
    return f"{v.value:.3f} [{v.low:.3f}, {v.high:.3f}]"


def _images(n: float) -> str:
    """A number of images, to two digits."""
    return f"{float(f'{n:.2g}'):,.0f}" if n < 1e9 else f"{n:.1g}"
