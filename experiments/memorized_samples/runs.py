"""The runs of the study: scores of every sample, and confident learning beside them."""

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
from experiments.common.document import RESULTS, read
from experiments.common.options import Options
from experiments.common.work import Item, Place, each
from landscape import checkpoints
from landscape.checkpoints import CheckpointFiles
from landscape.memorization import detection
from landscape.tasks import Recipe, train

WRONG = (0.01, 0.02, 0.05, 0.10)
FOLDS = 5
# Every redrawn label is wrong with probability 0.9, as there are ten classes.
CLASSES = 10
AT_THE_END = ["loss", "loss_sensitivity", "input_curvature", "gauss_newton_trace", "top_curvature"]
EVERY_EPOCH, SOME_EPOCHS = ["cumulative_loss", "forgetting"], ["mean_loss_sensitivity", "mean_input_curvature"]
SCORES = [*EVERY_EPOCH, *SOME_EPOCHS, *AT_THE_END]
# Epochs between two checkpoints of the means of the input scores, which cost as much as ten epochs of training each.
STRIDE = 5
PEER, PEER_AT_END = "confident learning", "confident learning, at the end of training"


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


def confident_learning_out_of_sample(item: Item, place: Place) -> Item:
    """AUROC of cleanlab's label quality, from probabilities out of sample: by the recipe of the run, which memorizes, and by
    the epoch at which the loss on the fold that is left out is smallest."""
    from cleanlab.rank import get_label_quality_scores

    recipe = Recipe(**item["recipe"])
    task = place.task(recipe, keep_every=1)
    x, y = task.data("train")
    folds = np.random.default_rng(item["seed"]).permutation(len(y)) % FOLDS
    probabilities = {name: np.zeros((len(y), CLASSES)) for name in (PEER, PEER_AT_END)}
    for k in range(FOLDS):
        inside, outside = torch.from_numpy(folds != k), torch.from_numpy(folds == k)
        with tempfile.TemporaryDirectory() as folder:
            data = f"{folder}/fold.safetensors"
            tensors = {"train_x": x[inside], "train_y": y[inside], "test_x": x[outside], "test_y": y[outside]}
            save_file(
                {name: t.contiguous() for name, t in tensors.items()}, data, {"classes": ",".join(map(str, range(CLASSES)))}
            )
            plain = replace(recipe, data="safetensors", samples=None, corruption="clean", corruption_level=None)
            plain = replace(plain, evaluate_every=1)
            run = train(plain, out=f"{folder}/run.safetensors", data_path=data, device=place.device, keep_every=1)
            best = min(run.record["history"], key=lambda h: h["test_loss"])["epoch"]
            for name, path in ((PEER, f"{run.trajectory}/epoch-{best:04d}.safetensors"), (PEER_AT_END, run.path)):
                outputs = ls.load(path, data=f"safetensors:{data}").objective("test").outputs()
                probabilities[name][folds == k] = outputs.double().softmax(1).numpy()
    wrong, labels = task.extras["wrong_labels"].numpy(), y.numpy()
    found = {name: detection(-get_label_quality_scores(labels, p), wrong) for name, p in probabilities.items()}
    return {
        "auroc": {name: {"value": d.auroc, "low": d.low, "high": d.high} for name, d in found.items()},
        "accuracy_out_of_sample": {name: float((p.argmax(1) == labels).mean()) for name, p in probabilities.items()},
        "cleanlab": version("cleanlab"),
    }


def peer_runs(items: Sequence[Item], given: Options) -> Item:
    """Confident learning for every run: now, if cleanlab is installed, else as the results that are there have it.

    Results that are judged again or extended keep theirs.
    """
    if given.judge or given.extend:
        kept: Item = read("memorized_samples")["peer"]
        return kept
    try:
        own = [item | {"peer": f"cleanlab {version('cleanlab')}"} for item in items]
        found = {
            "cleanlab": version("cleanlab"),
            "runs": each("memorized_samples", confident_learning_out_of_sample, own, given),
        }
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
