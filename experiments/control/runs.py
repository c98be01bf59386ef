"""The runs of the study: every control in three strengths, and early stopping."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from experiments.common.networks import DIGITS, images
from experiments.common.options import Options
from experiments.common.work import Item, Place
from experiments.control.front import chosen_by_halves
from experiments.control.table import CONTROLS, NONE
from landscape import checkpoints
from landscape.tasks import Recipe


def bases(given: Options) -> dict[str, Recipe]:
    """The baseline of each data set."""
    noisy: dict[str, Any] = {"corruption": "labels", "corruption_level": 0.4, "stop_loss": None, "momentum": 0.9}
    found = {"digits": replace(DIGITS, network_options={"widths": [256, 128]}, lr=0.03, epochs=80, **noisy)}
    if given.data:
        found["cifar10"] = images("mlp", given, optimizer="sgd", lr=0.003, epochs=20, **noisy)
    return found


def planned(given: Options) -> list[Item]:
    """All runs of the study."""
    items: list[Item] = []
    for seed, (data, base) in itertools.product(given.seeds, bases(given).items()):
        settings: list[tuple[str, Any, Recipe]] = [(NONE, None, base)]
        base = replace(base, evaluate_every=10)  # only the baseline needs every epoch, for early stopping
        for control, (field, strengths) in CONTROLS.items():
            extra: dict[str, Any] = {"optimizer": "sam"} if control == "SAM" else {}
            settings += [(control, s, replace(base, **extra, **{field: s})) for s in strengths]
        items += [
            {"data": data, "control": c, "strength": s, "seed": seed, "recipe": replace(r, seed=seed).to_json()}
            for c, s, r in settings
        ]
    return items


def one(item: Item, place: Place) -> Item:
    """Train a run; how much it memorized, and how it tests. The baseline also tells where early stopping ends it."""
    recipe, baseline = Recipe(**item["recipe"]), item["control"] == NONE
    keep = 1 if baseline else None
    path = place.trained(recipe, keep_every=keep)
    record = checkpoints.read(path).recipe or {}
    final, history = record["final"], record["history"]
    names = ("wrong_labels_fitted", "clean_labels_fitted", "test_accuracy", "train_loss")
    result: Item = {name: final[name] for name in names}
    if baseline:
        task = place.task(recipe, keep_every=keep)
        x, y = task.data("test")
        right = []
        for row in history:
            kept = path.with_name(f"{path.stem}-trajectory") / f"epoch-{row['epoch']:04d}.safetensors"
            task.model.load_state_dict(checkpoints.read(kept).weights().state)
            with torch.inference_mode():
                right.append((task.model.eval()(x).argmax(1) == y).numpy())
        rows, accuracy = chosen_by_halves(np.array(right))
        chosen = [history[k] for k in rows]
        result["early_stopping"] = {
            "epochs": [h["epoch"] for h in chosen],
            "test_accuracy": accuracy,
            **{name: float(np.mean([h[name] for h in chosen])) for name in names[:2]},
        }
        result["history"] = {name: [h[name] for h in history] for name in ("epoch", "wrong_labels_fitted", "test_accuracy")}
    return result
