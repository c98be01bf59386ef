"""The runs of the study: transformers, measured as trained and moved."""

from dataclasses import asdict

import torch
from torch import nn

import landscape as ls
from experiments.common.options import Options
from experiments.common.work import Item, Place
from experiments.symmetries.figure import ALL, CLEAN, NOISE, PAIR
from experiments.symmetries.transformer import Recipe, task, trained
from landscape import checkpoints
from landscape.errors import NumericalError
from landscape.reparam import move
from landscape.tasks import Task

MEASURES = [
    "lambda_max", "trace", "sam", "pac_bayes", "adaptive_lambda_max", "adaptive_trace", "first_order_adaptive_linf", "asam",
    "pac_bayes_magnitude", "row_lambda_max", "row_trace", "weight_curvature", "fisher_rao", "critical_sample_ratio",
    "input_margin", "output_curvature",
]  # fmt: skip
SAMPLES = 256
# Largest relative change of the outputs, up to a constant that the loss ignores.
SAME = 1e-6
# Factors between 1/alpha and alpha, and the condition number of the matrices. All families together, at the sizes of the pairs,
# give weights so uneven that finite differences no longer confirm the derivatives.
SIZES = {PAIR: {"alpha": 1.0, "condition": 1000.0}, ALL: {"alpha": 2.0, "condition": 100.0}}


def planned(given: Options) -> list[Item]:
    """A clean and a memorizing transformer for every seed, with the moves of the clean one."""
    return [
        {
            "recipe": asdict(Recipe(labels, seed)),
            "seed": seed,
            "networks": list(networks),
            "sizes": {kind: SIZES[kind] for kind in networks if kind in SIZES},
            "measures": MEASURES,
            "samples": SAMPLES,
        }
        for seed in given.seeds
        for labels, networks in (("clean", (CLEAN, PAIR, ALL)), ("random-labels", (NOISE,)))
    ]


def one(item: Item, place: Place) -> Item:
    """Train a transformer and measure it, as trained and moved."""
    recipe = Recipe(**item["recipe"])
    path = trained(recipe, place.runs / "networks")
    kept, whole = checkpoints.read(path), task(recipe, path)
    model, x = whole.model.double(), whole.train[0].double()
    symmetries = ls.find_symmetries(model, x[:2])
    exact = tuple(family for family in symmetries.families if family != "norm-in")
    networks = []
    for kind in item["networks"]:
        families = {PAIR: ("pair",), ALL: exact}.get(kind, ())
        random = torch.Generator().manual_seed(recipe.seed)
        other = move(model, symmetries, families, **item["sizes"][kind], generator=random) if families else model
        networks.append({"network": kind, "seed": recipe.seed, "moved": list(families)} | measured(item, model, other, whole))
    return {
        "training": {"sha256": kept.sha256, **(kept.recipe or {})},
        "exist": list(symmetries.families),
        "unread": list(symmetries.unread),
        "networks": networks,
    }


def measured(item: Item, model: nn.Module, other: nn.Module, whole: Task) -> Item:
    """The measures of a network that computes the same function as `model`."""
    x = whole.train[0].double()
    with torch.no_grad():
        before, after = (outputs - outputs.mean(dim=1, keepdim=True) for outputs in (model(x), other(x)))
        change = float((after - before).abs().max() / before.abs().max())
    if not change < SAME:
        raise NumericalError(f"expected the same function, found outputs that differ by {change:.1e} of the largest")
    objective = ls.Objective(other, nn.CrossEntropyLoss(), whole.train, dtype="float64").subset(item["samples"])
    test = whole.objective("test").evaluate().accuracy
    return {
        "outputs_change": change,
        "test_accuracy": None if test is None else test.value,
        "sharpness": ls.sharpness(objective, item["measures"]).to_json(),
    }
