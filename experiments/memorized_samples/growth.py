"""How the AUROC grows with the number of images, and what else stands between it and the bar: width, depth, augmentation.

One share of wrong labels, all four with the whole of CIFAR-10, and the scores that cost no more than a forward pass an epoch:
cumulative loss and forgetting. The recipes, their epochs among them, were chosen with a seed that is not judged.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from experiments.common.document import read
from experiments.common.options import Options
from experiments.common.work import Item, Place
from experiments.memorized_samples.runs import CLASSES, WRONG, recipes
from landscape import checkpoints
from landscape.checkpoints import CheckpointFiles
from landscape.memorization import detection
from landscape.memorization.training_scores import forgetting_events
from landscape.tasks import Recipe, read_data

SHARE = 0.05
# The images: those of --data, and those of --larger, which are the whole of CIFAR-10 re-encoded as JPEG (quality 75).
OWN, JPEG = "unaltered", "JPEG"
PLAIN, WIDE, AUGMENTED, DEEP = "two convolutions", "twice as wide", "augmented", "VGG-9, augmented"
DEEP_WIDE = "VGG-9 twice as wide, augmented, cosine"
VARIANTS = (PLAIN, WIDE, AUGMENTED, DEEP, DEEP_WIDE)
WHOLE = 50_000  # images: all of CIFAR-10's for training


def variants(given: Options) -> dict[str, Recipe]:
    """The recipe of the study, and others: wider; on images shifted and flipped in training; deeper on such images;
    deeper and wider, with a learning rate that falls to zero."""
    plain = recipes(given)["cifar10"]
    return {
        PLAIN: plain,
        WIDE: replace(plain, network_options={"width": 2 * given.width}),
        AUGMENTED: replace(plain, augment=True),
        DEEP: replace(plain, network="vgg9", augment=True, lr=2e-3),
        DEEP_WIDE: replace(
            plain, network="vgg9", network_options={"width": 2 * given.width}, augment=True, lr=2e-3, batch_size=64,
            schedule="cosine",
        ),
    }  # fmt: skip


# Which of them on how many images, with how many seeds at most, for how many epochs, and the share of wrong labels. All but the
# whole of CIFAR-10 takes some quarter of an hour of one core, each run of that a little less; see the seconds in the results.
GRID = (
    (OWN, PLAIN, 5_000, 3, 20, SHARE),
    (OWN, DEEP, 5_000, 3, 20, SHARE),
    (OWN, AUGMENTED, 5_000, 3, 20, SHARE),
    (OWN, WIDE, 1_000, 5, 20, SHARE),
    (OWN, DEEP, 1_000, 3, 20, SHARE),
    (JPEG, DEEP, 5_000, 3, 10, SHARE),
    (JPEG, DEEP, 10_000, 3, 10, SHARE),
    (JPEG, DEEP_WIDE, WHOLE, 3, 10, SHARE),
    *((JPEG, DEEP_WIDE, WHOLE, 1, 10, wrong) for wrong in WRONG if wrong != SHARE),
)
# One change at a time: (images, variant, number of them) after and before.
CHANGED = {
    "a network twice as wide (1,000 images)": ((OWN, WIDE, 1_000), (OWN, PLAIN, 1_000)),
    "augmentation (5,000 images)": ((OWN, AUGMENTED, 5_000), (OWN, PLAIN, 5_000)),
    "VGG-9 in place of two convolutions (5,000 images, augmented)": ((OWN, DEEP, 5_000), (OWN, AUGMENTED, 5_000)),
}


def planned_growth(given: Options) -> list[Item]:
    """The runs: as many images as are given, and what the results have that are judged again or extended."""
    if given.data is None:
        return []
    known, sizes = set[tuple[Any, ...]](), dict[str, int]()
    if given.judge or given.extend:
        runs = read("memorized_samples").get("growth_runs", [])
        known = {tuple(r["item"][key] for key in ("images", "variant", "images_used", "wrong", "seed")) for r in runs}
    if not given.judge:
        sizes = {kind: len(read_data(spec).train_y) for kind, spec in ((OWN, given.data), (JPEG, given.larger)) if spec}
    return [
        {"images": images, "variant": variant, "images_used": samples, "wrong": wrong, "seed": seed, "recipe": replace(
            variants(given)[variant], samples=samples, epochs=epochs, seed=seed, evaluate_every=5 if images == OWN else 10,
            corruption="labels", corruption_level=wrong * CLASSES / (CLASSES - 1),
        ).to_json()}
        for images, variant, samples, seeds, epochs, wrong in GRID
        for seed in given.seeds[:seeds]
        if (images, variant, samples, wrong, seed) in known or samples <= sizes.get(images, 0)
    ]  # fmt: skip


def followed(item: Item, place: Place) -> Item:
    """Train a run, and the AUROC of its cheap scores: of the cumulative loss after every epoch, and of forgetting."""
    if item["images"] == JPEG:
        place = replace(place, data=place.larger)
    recipe = Recipe(**item["recipe"])
    path = place.trained(recipe, keep_every=1)
    task = place.task(recipe, keep_every=1)
    objective, wrong = task.objective(), task.extras["wrong_labels"].numpy()
    total, right, found = np.zeros(len(wrong)), [], []
    for theta, buffers in CheckpointFiles(path.with_name(f"{path.stem}-trajectory"), task.model).points():
        each = objective.evaluate(theta, dict(buffers)).each
        total = total + np.asarray(each["loss"], dtype=float)
        right.append(np.asarray(each["accuracy"], dtype=float))
        found.append(detection(total, wrong))
    events = forgetting_events(np.array(right))
    scores = {"cumulative_loss": found[-1], "forgetting": detection(events, wrong)}
    final = (checkpoints.read(path).recipe or {})["final"]
    return {
        "auroc": {name: {"value": d.auroc, "low": d.low, "high": d.high} for name, d in scores.items()},
        "after_epochs": [d.auroc for d in found],
        "wrong_labels": int(wrong.sum()),
        **{key: final[key] for key in ("train_accuracy", "test_accuracy", "wrong_labels_fitted")},
    }
