"""Zhang et al. 2017 (arXiv:1611.03530): networks fit labels and images that have nothing in them to learn.

Three parts, on scikit-learn's digits and, with --data, on CIFAR-10 images:

- fit: true labels, labels redrawn with probability 20 to 100 %, shuffled, random and Gaussian pixels, without any
  regularizer. How long until 99 % of the training set is fitted, and the test accuracy then.
- regularizers: weight decay, dropout, BatchNorm and augmentation, on true and on random labels.
- depth: perceptrons of 1 to 5 hidden layers, and ResNets of 8, 14 and 20 layers, with partly redrawn labels.

Everything is trained to a training loss of 0.01, or to the largest number of epochs of its recipe.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from experiments.common.document import Claim, verdict, write
from experiments.common.networks import DIGITS, images
from experiments.common.options import Options, options
from experiments.common.statistics import adjusted, detectable, difference, mean, paired_p
from experiments.common.work import Item, Place, each
from experiments.memorization_figure import draw
from landscape import checkpoints
from landscape.tasks import Recipe

FITTED = 0.99
LEVELS = (0.2, 0.4, 0.6, 0.8)
DEPTHS, DEPTH_LEVELS = (1, 2, 3, 4, 5), (0.2, 0.4, 0.6)
RESNETS = (8, 14, 20)
CONDITIONS = ("clean", *(f"labels {p:.0%}" for p in LEVELS), "random labels", "shuffled pixels", "random pixels", "gaussian")
REGULARIZERS = ("none", "weight decay", "dropout", "BatchNorm", "augmentation")
# With a regularizer the training loss may never come down to 0.01; then the run ends here.
REGULARIZED_EPOCHS = {"mlp": 300, "c1": 60}


def corrupted(recipe: Recipe, condition: str) -> Recipe:
    """The recipe with the data of a condition."""
    if condition.startswith("labels"):
        return replace(recipe, corruption="labels", corruption_level=int(condition[7:-1]) / 100)
    return replace(recipe, corruption=condition.replace(" ", "-"))


def regularized(recipe: Recipe, kind: str) -> Recipe | None:
    """The recipe with a regularizer of usual strength; None where the network or its images do not have it."""
    if kind == "none":
        return recipe
    recipe = replace(recipe, epochs=REGULARIZED_EPOCHS[recipe.network])
    plain = recipe.network == "mlp"
    if kind == "BatchNorm":
        return replace(recipe, network_options={**recipe.network_options, "batchnorm": True}) if plain else None
    if kind == "augmentation":
        return None if plain else replace(recipe, augment=True)
    changes: dict[str, dict[str, Any]] = {"weight decay": {"weight_decay": 5e-4}, "dropout": {"dropout": 0.2}}
    return replace(recipe, **changes[kind])


def planned(given: Options) -> list[Item]:
    """All runs of the study."""
    # Convolutional networks take most of the time, and have half of the images.
    half = replace(given, samples=max(given.samples // 2, 10))
    bases = {("digits", "mlp"): DIGITS}
    if given.data:
        bases |= {("cifar10", "mlp"): images("mlp", given), ("cifar10", "c1"): images("c1", half)}
    items: list[Item] = []

    def add(part: str, data: str, network: str, recipe: Recipe, **kind: Any) -> None:
        items.extend(
            {"part": part, "data": data, "network": network, **kind, "seed": s, "recipe": replace(recipe, seed=s).to_json()}
            for s in given.seeds
        )

    for (data, network), recipe in bases.items():
        for condition in CONDITIONS:
            add("fit", data, network, corrupted(recipe, condition), condition=condition)
        for kind in REGULARIZERS:
            for condition in ("clean", "random labels"):
                changed = regularized(corrupted(recipe, condition), kind)
                if changed is not None:
                    add("regularizers", data, network, changed, regularizer=kind, condition=condition)
        if network == "mlp":
            width = dict(recipe.network_options).get("widths", [128])[0]
            for depth in DEPTHS:
                deep = replace(recipe, network_options={"widths": [width] * depth})
                for level in DEPTH_LEVELS if data == "digits" else (0.4,):
                    add("depth", data, "mlp", corrupted(deep, f"labels {level:.0%}"), depth=depth, level=level)
    if given.data:
        for layers in RESNETS:
            recipe = corrupted(images(f"resnet{layers}", half), "labels 40%")
            add("depth", "cifar10", "resnet", recipe, depth=layers, level=0.4)
    return items


def one(item: Item, place: Place) -> Item:
    """Train a run; when it fitted its training set, and how it ended."""
    record = checkpoints.read(place.trained(Recipe(**item["recipe"]))).recipe or {}
    history, final = record["history"], record["final"]
    reached = [h["epoch"] for h in history if h["train_accuracy"] >= FITTED]
    return {
        "epochs_to_fit": reached[0] if reached else None,
        "epochs": final["epochs"],
        "train_accuracy": final["train_accuracy"],
        "train_loss": final["train_loss"],
        "best_train_accuracy": max(h["train_accuracy"] for h in history),
        "test_accuracy": final["test_accuracy"],
        "best_test_accuracy": max(h["test_accuracy"] for h in history),
        "wrong_labels_fitted": final["wrong_labels_fitted"],
        "stopped": final["stopped"],
    }


def table(runs: Sequence[Item]) -> list[Item]:
    """One row for every kind of run: means over seeds with intervals."""
    keys = ("part", "data", "network", "condition", "regularizer", "depth", "level")
    kinds: dict[tuple[Any, ...], list[Item]] = {}
    for run in runs:
        kinds.setdefault(tuple(run["item"].get(k) for k in keys), []).append(run)
    rows = []
    for kind, group in kinds.items():
        row = {k: v for k, v in zip(keys, kind, strict=True) if v is not None}
        for name in ("epochs_to_fit", "train_accuracy", "test_accuracy", "best_test_accuracy", "wrong_labels_fitted"):
            values = [run[name] for run in group if run[name] is not None]
            row[name] = mean(values).to_json() if len(values) == len(group) else None
        rows.append(row | {"seeds": len(group), "fitted": sum(run["best_train_accuracy"] >= FITTED for run in group)})
    return rows


class Runs:
    """The runs of a study, asked for one number of one kind, in the order of the seeds."""

    def __init__(self, runs: Sequence[Item]) -> None:
        self.runs = runs

    def of(self, number: str, **kind: Any) -> list[float]:
        """The number of every run of this kind; a run that never fitted counts with all of its epochs."""
        found = [r for r in self.runs if all(r["item"].get(k) == v for k, v in kind.items())]
        return [r["epochs"] if number == "epochs_to_fit" and r[number] is None else r[number] for r in found]


def judged(runs: Sequence[Item], given: Options) -> Item:
    """The claims of the paper against the runs."""
    known = Runs(runs)
    networks = list(dict.fromkeys((r["item"]["data"], r["item"]["network"]) for r in runs if r["item"]["part"] == "fit"))
    claims = [_fits(known), _chance(known, networks), *_slower(known, networks), _declines(known, networks)]
    claims += [*_regularizers(known, networks), *_depth(known, runs)]
    images_used = (
        f"; CIFAR-10: {given.samples} images for the perceptron, half of them for C1 and ResNets of width {given.width}"
        if given.data
        else ""
    )
    return verdict(
        claims,
        scale=f"{len(given.seeds)} seeds; 1,347 digits, perceptron 64-128-64-10{images_used}",
        departures=[
            "Far fewer weights and images than in the paper, so that it runs on two cores; test accuracies are lower.",
            "Runs without a regularizer stop at a training loss of 0.01; the paper trains for a fixed number of epochs.",
            "The claim on depth is not the paper's: it is an open question.",
        ],
    )


def _fits(known: Runs) -> Claim:
    fit = known.of("best_train_accuracy", part="fit")
    wrong = [w for w in known.of("wrong_labels_fitted", part="fit") if w is not None]
    return Claim(
        "networks fit true labels, wrong labels and noise images alike",
        "training accuracy 99 to 100 % for random labels on CIFAR-10, and for all kinds of pixels",
        f"lowest training accuracy of {len(fit)} runs {min(fit):.1%}; lowest share of wrong labels memorized {min(wrong):.1%}",
        min(fit) >= FITTED,
        numbers={"lowest_train_accuracy": min(fit), "lowest_share_of_wrong_labels_fitted": min(wrong), "runs": len(fit)},
    )


def _chance(known: Runs, networks: Sequence[tuple[str, str]]) -> Claim:
    found = {
        f"{d} {n}": mean(known.of("test_accuracy", part="fit", data=d, network=n, condition="random labels"))
        for d, n in networks
    }
    return Claim(
        "with random labels the test accuracy is that of chance",
        "9.8 to 10.6 % on CIFAR-10",
        "; ".join(f"{k}: {100 * v.value:.1f} % [{100 * v.low:.1f}, {100 * v.high:.1f}]" for k, v in found.items()),
        all(v.low <= 0.1 <= v.high for v in found.values()),
        numbers={k: v.to_json() for k, v in found.items()},
    )


def _slower(known: Runs, networks: Sequence[tuple[str, str]]) -> list[Claim]:
    ratios, faster, p, power = {}, {}, [], []
    for d, n in networks:
        logs = {c: np.log(known.of("epochs_to_fit", part="fit", data=d, network=n, condition=c)) for c in CONDITIONS}
        slowest, clean = logs["random labels"], logs["clean"]
        ratios[f"{d} {n}"] = np.exp([getattr(difference(slowest, clean), a) for a in ("value", "low", "high")])
        power.append(float(np.exp(detectable(slowest, clean))))
        for noise in ("random pixels", "gaussian"):
            faster[f"{d} {n}, {noise}"] = np.exp(
                [getattr(difference(logs[noise], slowest), a) for a in ("value", "low", "high")]
            )
            p.append(paired_p(logs[noise], slowest))
    q = dict(zip(faster, adjusted(p), strict=True))
    told = "{}: {:.2f} times [{:.2f}, {:.2f}]"
    return [
        Claim(
            "random labels take longer to fit than true ones, by a small factor",
            "1 to 3.5 times the steps (figure 1b)",
            "; ".join(told.format(k, *v) for k, v in ratios.items()) + " the epochs",
            all(v[1] > 1 and v[0] < 10 for v in ratios.values()),
            f"a factor of {max(power):.2f}",
            {k: dict(zip(("value", "low", "high"), v.tolist(), strict=True)) for k, v in ratios.items()},
        ),
        Claim(
            "images of noise with true labels are fitted sooner than random labels",
            "random pixels and Gaussian noise converge before random labels (figure 1a)",
            "; ".join(told.format(k, *v) + f", q = {q[k]:.2g}" for k, v in faster.items()) + " the epochs of random labels",
            all(v[2] < 1 and q[k] <= 0.05 for k, v in faster.items()),
            numbers={k: dict(zip(("value", "low", "high"), v.tolist(), strict=True)) | {"q": q[k]} for k, v in faster.items()},
        ),
    ]


def _declines(known: Runs, networks: Sequence[tuple[str, str]]) -> Claim:
    order = ("clean", *(f"labels {p:.0%}" for p in LEVELS), "random labels")
    steps = {}
    for d, n in networks:
        tests = [known.of("test_accuracy", part="fit", data=d, network=n, condition=c) for c in order]
        steps[f"{d} {n}"] = [difference(b, a) for a, b in itertools.pairwise(tests)]
    return Claim(
        "the more labels are wrong, the lower the test accuracy",
        "test error rises steadily with the corruption (figure 1c)",
        "; ".join(f"{k}: steps of {', '.join(f'{100 * s.value:+.1f}' for s in v)} points" for k, v in steps.items()),
        all(s.high < 0 for v in steps.values() for s in v),
        numbers={k: [s.to_json() for s in v] for k, v in steps.items()},
    )


def _regularizers(known: Runs, networks: Sequence[tuple[str, str]]) -> list[Claim]:
    kept, gains = {}, {}
    for d, n in networks:
        for kind in REGULARIZERS[1:]:
            at = {"part": "regularizers", "data": d, "network": n}
            noise = known.of("best_train_accuracy", **at, regularizer=kind, condition="random labels")
            if noise:
                kept[f"{d} {n}, {kind}"] = min(noise)
                own, none = (known.of("test_accuracy", **at, regularizer=k, condition="clean") for k in (kind, "none"))
                gains[f"{d} {n}, {kind}"] = difference(own, none)
    told = "; ".join(f"{k}: {100 * v.value:+.1f} [{100 * v.low:+.1f}, {100 * v.high:+.1f}]" for k, v in gains.items())
    return [
        Claim(
            "explicit regularizers do not prevent that random labels are fitted",
            "all but one of the networks fit random labels with weight decay, dropout or crops (appendix)",
            "; ".join(f"{k}: {v:.1%}" for k, v in kept.items()) + " in the worst seed, within 300 epochs (C1: 60)",
            all(v >= FITTED for v in kept.values()),
            numbers=kept,
        ),
        Claim(
            "regularizers change the test accuracy of true labels by a few points only",
            "3.6 points at most for Inception, 5.2 for AlexNet, 1.0 for a perceptron (table 1)",
            f"{told} points",
            all(abs(v.value) <= 0.06 for v in gains.values()),
            numbers={k: v.to_json() for k, v in gains.items()},
        ),
    ]


def _depth(known: Runs, runs: Sequence[Item]) -> list[Claim]:
    kinds = list(
        dict.fromkeys(
            (r["item"]["data"], r["item"]["network"], r["item"]["level"]) for r in runs if r["item"]["part"] == "depth"
        )
    )
    slopes, p = {}, []
    for d, n, level in kinds:
        depths = RESNETS if n == "resnet" else DEPTHS
        tests = np.array([known.of("test_accuracy", part="depth", data=d, network=n, level=level, depth=k) for k in depths])
        slope = np.polyfit(depths, tests, 1)[0]  # for each seed, accuracy per layer
        slopes[f"{d} {n}, {level:.0%}"] = mean(slope.tolist())
        p.append(paired_p(slope, np.zeros_like(slope)))
    q = adjusted(p)
    told = (
        f"{k}: {100 * v.value:+.2f} [{100 * v.low:+.2f}, {100 * v.high:+.2f}], q = {x:.2g}"
        for (k, v), x in zip(slopes.items(), q, strict=True)
    )
    return [
        Claim(
            "with partly wrong labels deeper networks test better",
            "an open question of a discussion, without a number",
            "; ".join(told) + " points of test accuracy a layer",
            all(v.low > 0 and x <= 0.05 for v, x in zip(slopes.values(), q, strict=True)),
            numbers={k: v.to_json() | {"q": x} for (k, v), x in zip(slopes.items(), q, strict=True)},
        )
    ]


if __name__ == "__main__":
    given = options(__doc__)
    if not given.draw:
        runs = each("memorization", one, planned(given), given)
        write("memorization", given, runs, {"verdict": judged(runs, given), "table": table(runs), "runs": runs})
    draw()
