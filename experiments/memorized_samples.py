"""Garg et al. 2024 (arXiv:2307.05831): samples that were memorized are told by their curvature, and wrong labels found by it.

Labels of 1, 2, 5 and 10 % of the training samples are made wrong. A network is trained until it has memorized them, and
`landscape samples` scores every sample: at the end of training (loss, loss sensitivity, input curvature, curvature in the
weights) and over training (cumulative loss, means of the input scores, forgetting). How well does each score find the wrong
labels (AUROC)? Beside it confident learning by cleanlab, from probabilities of networks that did not see the sample (5-fold
cross-validation with the same recipe); where cleanlab is not installed, the result of the run that had it is kept.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import landscape as ls
from experiments.common.document import RESULTS, Claim, read, verdict, write
from experiments.common.options import Options, options
from experiments.common.statistics import Interval, adjusted, detectable, difference, mean, paired_p
from experiments.common.work import Item, Place, each
from experiments.memorized_samples_figure import draw
from landscape import checkpoints
from landscape.checkpoints import CheckpointFiles
from landscape.memorization import detection
from landscape.tasks import Recipe, train

BAR = 0.97
WRONG = (0.01, 0.02, 0.05, 0.10)
FOLDS = 5
# Every redrawn label is wrong with probability 0.9, as there are ten classes.
CLASSES = 10
AT_THE_END = ["loss", "loss_sensitivity", "input_curvature", "gauss_newton_trace", "top_curvature"]
EVERY_EPOCH, SOME_EPOCHS = ["cumulative_loss", "forgetting"], ["mean_loss_sensitivity", "mean_input_curvature"]
SCORES = [*EVERY_EPOCH, *SOME_EPOCHS, *AT_THE_END]
# Epochs between two checkpoints of the means of the input scores, which cost as much as ten epochs of training each.
STRIDE = 5
# Published on CIFAR-10 with 1, 2, 5, 10 % wrong labels, a ResNet-18 and all 50,000 images.
PUBLISHED = {
    "mean_input_curvature": (0.972, 0.978, 0.980, 0.982),
    "cumulative_loss": (0.985, 0.986, 0.987, 0.987),
}
PEER = "confident learning"


def recipes(given: Options) -> dict[str, Recipe]:
    """The recipes, fixed beforehand by how many epochs it takes to memorize 10 % of wrong labels with another seed."""
    common = Recipe(batch_size=32, optimizer="adam", evaluate_every=5)
    found = {"digits": replace(common, network="mlp", network_options={"widths": [256, 128]}, lr=2e-3, epochs=40)}
    if given.data:
        found["cifar10"] = replace(
            common, network="digits-cnn", network_options={"width": given.width}, data="cifar10", samples=given.samples,
            lr=3e-3, epochs=20,
        )  # fmt: skip
    return found


def planned(given: Options) -> list[Item]:
    """All runs of the study."""
    return [
        {"data": data, "wrong": wrong, "seed": seed, "recipe": replace(
            recipe, seed=seed, corruption="labels", corruption_level=wrong * CLASSES / (CLASSES - 1)
        ).to_json()}
        for data, recipe in recipes(given).items() for wrong in WRONG for seed in given.seeds
    ]  # fmt: skip


def one(item: Item, place: Place) -> Item:
    """Train a run and score its samples; the AUROC of every score, with its interval over samples."""
    recipe = Recipe(**item["recipe"])
    path = place.trained(recipe, keep_every=1)
    task = place.task(recipe, keep_every=1)
    files = CheckpointFiles(path.with_name(f"{path.stem}-trajectory"), task.model)
    objective, wrong = task.objective(), task.extras["wrong_labels"]
    asked: list[tuple[list[str], Any]] = [
        (AT_THE_END, None),
        (EVERY_EPOCH, files.points()),
        (SOME_EPOCHS, files[STRIDE::STRIDE].points()),
    ]
    found = {}
    for names, points in asked:
        found |= ls.samples(objective, names, trajectory=points, wrong=wrong).detection
    final = (checkpoints.read(path).recipe or {})["final"]
    return {
        "auroc": {name: {"value": d.auroc, "low": d.low, "high": d.high} for name, d in found.items()},
        "wrong_labels": int(wrong.sum()),
        **{key: final[key] for key in ("train_accuracy", "test_accuracy", "wrong_labels_fitted")},
    }


def confident_learning(item: Item, place: Place) -> Item:
    """AUROC of cleanlab's label quality, from probabilities out of sample."""
    from cleanlab.rank import get_label_quality_scores

    recipe = Recipe(**item["recipe"])
    task = place.task(recipe, keep_every=1)
    x, y = task.data("train")
    folds = np.random.default_rng(item["seed"]).permutation(len(y)) % FOLDS
    probabilities = np.zeros((len(y), CLASSES))
    for k in range(FOLDS):
        inside, outside = torch.from_numpy(folds != k), torch.from_numpy(folds == k)
        with tempfile.TemporaryDirectory() as folder:
            data = f"{folder}/fold.safetensors"
            tensors = {"train_x": x[inside], "train_y": y[inside], "test_x": x[outside], "test_y": y[outside]}
            save_file(
                {name: t.contiguous() for name, t in tensors.items()}, data, {"classes": ",".join(map(str, range(CLASSES)))}
            )
            plain = replace(recipe, data="safetensors", samples=None, corruption="clean", corruption_level=None)
            run = train(plain, out=f"{folder}/fold-run.safetensors", data_path=data, device=place.device)
            outputs = ls.load(run.path, data=f"safetensors:{data}").objective("test").outputs()
            probabilities[folds == k] = outputs.double().softmax(1).numpy()
    wrong = task.extras["wrong_labels"].numpy()
    quality = {
        PEER: get_label_quality_scores(y.numpy(), probabilities),
        f"{PEER}, adjusted": get_label_quality_scores(y.numpy(), probabilities, adjust_pred_probs=True),
    }
    found = {name: detection(-scores, wrong) for name, scores in quality.items()}
    return {
        "auroc": {name: {"value": d.auroc, "low": d.low, "high": d.high} for name, d in found.items()},
        "accuracy_out_of_sample": float((probabilities.argmax(1) == y.numpy()).mean()),
        "cleanlab": version("cleanlab"),
    }


def peer_runs(items: Sequence[Item], given: Options) -> Item:
    """Confident learning for every run: now, if cleanlab is installed, else as the results that are there have it."""
    try:
        own = [item | {"peer": f"cleanlab {version('cleanlab')}"} for item in items]
        found = {"cleanlab": version("cleanlab"), "runs": each("memorized_samples", confident_learning, own, given)}
    except PackageNotFoundError:
        kept = read("memorized_samples")["peer"] if Path(RESULTS / "memorized_samples.json").exists() else {}
        known = {_key(run["item"]): run for run in kept.get("runs", [])}
        runs = [known[_key(item)] for item in items if _key(item) in known]
        print(f"cleanlab: not installed; {len(runs)} of {len(items)} results of an earlier run are kept")
        return {"cleanlab": kept.get("cleanlab"), "now": "not installed", "runs": runs}
    return found | {"now": "installed"}


def _key(item: Item) -> str:
    """What tells a run from all others."""
    return str(sorted(Recipe(**item["recipe"]).to_json().items()))


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
    if all(v.low >= bar for v in found):
        return True
    return False if any(v.high < bar for v in found) else None


def judged(runs: Sequence[Item], peer: Item, given: Options) -> Item:
    """The claims against the runs."""
    table = Table(runs, peer["runs"])
    fitted = [run["wrong_labels_fitted"] for run in runs]
    claims = [_best(table, data) for data in table.data]
    claims += [_published(table, name) for name in PUBLISHED if "cifar10" in table.data]
    claims += _orders(table)
    tests = {d: np.mean([r["test_accuracy"] for r in runs if r["item"]["data"] == d]) for d in table.data}
    images = f"; {given.samples} CIFAR-10 images, convolutional network of width {given.width}" if given.data else ""
    return verdict(
        claims,
        scale=f"{len(given.seeds)} seeds; 1,347 digits, perceptron 64-256-128-10{images}; "
        f"wrong labels memorized: {min(fitted):.0%} or more in every run, {np.mean(fitted):.0%} on average; "
        f"test accuracy {', '.join(f'{v:.0%} on {d}' for d, v in tests.items())}",
        departures=[
            "Far fewer images than the papers' 50,000, and a perceptron or two convolutions instead of a ResNet-18: "
            "a network of a low test accuracy has not learned what a wrong label contradicts",
            "The recipes were fixed before the runs, by how many epochs memorize the labels of another seed",
            "Labels are redrawn with probability p / 0.9, so that a share p is really wrong; the number varies with the seed",
            f"The means of input scores are over every {STRIDE}th epoch, cumulative loss and forgetting over every epoch",
            "Input curvature is the squared norm over h squared, on normalized inputs, h = 1e-3, 10 signs",
            "No augmentation and no weight decay",
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
        numbers={"score": name, "auroc": [v.to_json() for v in found]},
        key="best AUROC",
    )


def _published(table: Table, name: str) -> Claim:
    """A score's numbers beside the paper's on CIFAR-10."""
    found = [mean(table.of("cifar10", wrong, name)) for wrong in WRONG]
    return Claim(
        f"cifar10: {name} reaches the published AUROC",
        f"{', '.join(f'{p:.3f}' for p in PUBLISHED[name])} with all of CIFAR-10",
        _told(found),
        all(v.high >= p for v, p in zip(found, PUBLISHED[name], strict=True)),
        numbers={"auroc": [v.to_json() for v in found], "published": list(PUBLISHED[name])},
        key="published AUROC",
    )


def _orders(table: Table) -> list[Claim]:
    """Which score is better, on both data sets, by the mean over the shares of wrong labels, paired by seed."""
    asked = [
        ("cumulative_loss", "mean_input_curvature", "the cumulative loss finds more than the input curvature",
         "0.986 against 0.978"),
        ("mean_input_curvature", "input_curvature", "the input curvature finds more averaged over training than at its end",
         "averaged over epochs in the paper, without a number for the end"),
        ("cumulative_loss", PEER, "the cumulative loss finds more than confident learning",
         "0.985 to 0.987 against 0.855 to 0.891"),
        ("mean_input_curvature", PEER, "the input curvature finds more than confident learning",
         "0.972 to 0.982 against 0.855 to 0.891"),
    ]  # fmt: skip
    asked = [row for row in asked if {row[0], row[1]} <= set(table.names)]
    pairs = {(a, b, d): (table.over_levels(d, a), table.over_levels(d, b)) for a, b, *_ in asked for d in table.data}
    q = dict(zip(pairs, adjusted([paired_p(*values) for values in pairs.values()]), strict=True))
    claims = []
    for a, b, claim, published in asked:
        gaps = {d: difference(*pairs[a, b, d]) for d in table.data}
        told = (f"{d}: {v.value:+.3f} [{v.low:+.3f}, {v.high:+.3f}], q = {q[a, b, d]:.2g}" for d, v in gaps.items())
        claims.append(
            Claim(
                claim, published, "; ".join(told) + " in AUROC, mean of the four shares",
                _larger([(v, q[a, b, d]) for d, v in gaps.items()]),
                f"{max(detectable(*pairs[a, b, d], tests=len(pairs)) for d in table.data):.3f} in AUROC",
                {d: v.to_json() | {"q": q[a, b, d]} for d, v in gaps.items()},
                question=b == "input_curvature",
            )
        )  # fmt: skip
    return claims


def _larger(found: Sequence[tuple[Interval, float]]) -> bool | None:
    """Whether all differences are positive at q <= 0.05; False if one is negative, or none is positive; else None."""
    if all(v.value > 0 and q <= 0.05 for v, q in found):
        return True
    return False if any(v.value < 0 and q <= 0.05 for v, q in found) else None


if __name__ == "__main__":
    given = options(__doc__)
    if not given.draw:
        items = planned(given)
        runs = each("memorized_samples", one, items, given)
        peer = peer_runs(items, given)
        write(
            "memorized_samples", given, [*runs, *(peer["runs"] if peer["now"] == "installed" else [])],
            {"verdict": judged(runs, peer, given), "table": Table(runs, peer["runs"]).rows(), "runs": runs, "peer": peer},
        )  # fmt: skip
    draw()
