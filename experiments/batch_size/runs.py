"""The pieces of work: a trained network with its measures, and the line between two of them."""

import math
from collections.abc import Sequence
from typing import Any

import torch

import landscape as ls
from experiments.batch_size.plan import LARGE, MAIN, Setting
from experiments.common.work import Item, Place
from landscape import checkpoints
from landscape.errors import NumericalError
from landscape.tasks import Recipe, build

# Keskar et al. draw the line from 1 before the small-batch minimum (0) to 1 beyond the large-batch one (1).
SPAN, GRID = (-1.0, 2.0), 25


def one(item: Item, place: Place) -> Item:
    """Train a network; its scores, its distance from the start, and its measures.

    A run whose loss is not finite, or that did not come down to the loss at which it should stop, has no measures.
    """
    recipe = Recipe(**item["recipe"])
    try:
        path = place.trained(recipe)
    except NumericalError as error:
        return {"stopped": str(error), "fitted": False}
    record: Any = checkpoints.read(path).recipe
    final = record["final"]
    fitted = recipe.stop_loss is None or final["train_loss"] <= recipe.stop_loss
    scores = ("epochs", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "stopped")
    result = {name: final[name] for name in scores if name in final}
    result |= {"fitted": fitted, "steps": final["epochs"] * item["steps_an_epoch"]}
    if not fitted:
        return result
    task = place.task(recipe)
    start = build(record["network"]["name"], seed=recipe.seed, **record["network"]["options"])
    with torch.no_grad():
        pairs = list(zip(start.parameters(), task.model.parameters(), strict=True))
        result["distance"] = math.sqrt(sum(float((b.cpu() - a).double().square().sum()) for a, b in pairs))
        result["norm"] = math.sqrt(sum(float(b.double().square().sum()) for _, b in pairs))
    found = ls.sharpness(task.objective(samples=item["measured"]), item["measures"])
    result["measures"] = {name: _number(m.estimate.value) for name, m in found.measures.items()}
    return result


def line(item: Item, place: Place) -> Item:
    """Loss and accuracy on the line from the small-batch minimum (0) to the large-batch one (1)."""
    tasks = [place.task(Recipe(**item[end])) for end in ("small", "large")]
    start, end = (t.objective(samples=item["measured"]) for t in tasks)
    found = ls.interpolation(start, end, span=SPAN, grid=GRID, test=tasks[0].objective("test"))
    return {
        "at": [float(t) for t in found.coordinates[0]],
        "values": {name: [_number(float(v)) for v in values] for name, values in found.values.items()},
        "barrier": {name: _number(b.height) for name, b in found.barriers.items()},
        "distance": float((end.theta - start.theta).norm()),
    }


def lines(found: Sequence[Setting], runs: Sequence[Item]) -> list[Item]:
    """The lines of the main arm, one for each seed."""
    known = {tuple(r["item"][k] for k in ("setting", "arm", "batch", "seed")): r for r in runs if r["fitted"]}
    out = []
    for setting in found:
        for batch in LARGE if setting.recipe.network == "mlp" else LARGE[:1]:
            for (name, arm, kind, seed), small in known.items():
                large = known.get((setting.name, MAIN, batch, seed))
                if (name, arm, kind) == (setting.name, MAIN, "16") and large is not None:
                    out.append({
                        "setting": setting.name, "batch": batch, "seed": seed, "measured": setting.measured,
                        "small": small["item"]["recipe"], "large": large["item"]["recipe"],
                    })  # fmt: skip
    return out


def _number(value: float) -> float | None:
    """None for what JSON cannot hold."""
    return value if math.isfinite(value) else None
