"""Which networks are trained: settings, batches, and the arms that change one thing at a time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.common.networks import DIGITS, images
from experiments.common.options import Options
from experiments.common.work import Item
from landscape.tasks import Recipe, read_data

SMALL = 16
BATCHES: dict[str, int | float | str] = {"16": SMALL, "10 %": 0.1, "all": "full"}
LARGE = ("10 %", "all")
# The arms. "equal lr" is the study of the paper; the others are what it did not separate.
MAIN, SCALED, STEPS, DECAY = "equal lr", "scaled lr", "equal steps", "weight decay"
EPOCHS, EPOCHS_DECAY = "equal epochs", "equal epochs, weight decay"
WEIGHT_DECAY = 5e-4
MOST_STEPS = 15_000
EQUAL_EPOCHS = 200
LI: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9}
# At the learning rate of the digits the small batch of the perceptron does not fit the images (seed 100, which is not judged).
LI_IMAGES: dict[str, Any] = LI | {"lr": 0.002}

PHI = ("keskar", "keskar_5e-4", "keskar_subspace", "keskar_subspace_5e-4")
# Sharpness that provably survives a rescaling of layers and of neurons, each once: the row-wise measures are those of single
# weights here, for these networks have no pairs of linear maps, and the
# worst adaptive sharpness in l2 is ASAM.
INVARIANT = (
    "keskar_relative", "adaptive_lambda_max", "adaptive_trace", "weight_curvature", "fisher_rao", "asam",
    "first_order_adaptive_linf", "adaptive_average_l2", "pac_bayes_magnitude",
)  # fmt: skip
EVERY = (
    *PHI, "lambda_max", "lambda_min", "trace", "frobenius", "sam", "pac_bayes", "gauss_newton_trace", "empirical_fisher_trace",
    "relative_flatness", "layer_relative_trace", *INVARIANT[:-1], "adaptive_worst_l2", "pac_bayes_magnitude", "path_norm",
    "frobenius_product", "spectral_product", "logit_norm", "input_margin", "output_curvature",
)  # fmt: skip
SOME = (
    *PHI, "lambda_max", "trace", "keskar_relative", "adaptive_trace", "weight_curvature", "fisher_rao",
    "first_order_adaptive_linf", "path_norm", "logit_norm",
)  # fmt: skip
FEW = ("keskar", "trace", "adaptive_trace")


@dataclass(frozen=True)
class Setting:
    """A network on its data with an optimizer.

    Attributes:
        name: in tables and figures.
        recipe: of the small batch at its learning rate.
        samples: training samples.
        measured: the first samples of the training set, on which the measures are computed.
        measures: those of the main arm, for batch 16 and 10 %; all else has `FEW`.
        arms: the arms that are run.
    """

    name: str
    recipe: Recipe
    samples: int
    measured: int
    measures: tuple[str, ...]
    arms: tuple[str, ...]

    def trained(self, arm: str, batch: str, small_steps: int | None = None) -> Recipe:
        """The recipe of a batch in an arm; `small_steps` of the small batch, for equal steps."""
        recipe = replace(self.recipe, batch_size=BATCHES[batch])
        steps = self.steps(recipe)
        # An evaluation costs as much as many steps: with large batches, and with convolutions, not after every epoch.
        every = max(math.ceil(10 / steps), 3 if recipe.network == "c1" else 1)
        recipe = replace(recipe, epochs=math.ceil(MOST_STEPS / steps), evaluate_every=every)
        if arm == SCALED:
            factor = recipe.batch(self.samples) / SMALL
            lr = recipe.lr * (factor if recipe.optimizer == "sgd" else math.sqrt(factor))
            recipe = replace(recipe, lr=lr, epochs=math.ceil(recipe.epochs / 5))  # larger steps, and fewer
        if arm == STEPS:
            if small_steps is None:
                raise ValueError("expected the steps of the small batch")
            epochs = math.ceil(small_steps / steps)
            recipe = replace(recipe, epochs=epochs, evaluate_every=epochs, stop_loss=None)
        if arm in (EPOCHS, EPOCHS_DECAY):
            recipe = replace(recipe, epochs=EQUAL_EPOCHS, evaluate_every=EQUAL_EPOCHS, stop_loss=None)
        return replace(recipe, weight_decay=WEIGHT_DECAY) if arm in (DECAY, EPOCHS_DECAY) else recipe

    def steps(self, recipe: Recipe) -> int:
        """Steps an epoch; a last batch of one sample joins the one before."""
        whole, rest = divmod(self.samples, recipe.batch(self.samples))
        return whole + (rest > 1)

    def batches(self, arm: str) -> tuple[str, ...]:
        """The batches that an arm trains itself; in "scaled lr" and "equal steps" the small batch is that of the main arm."""
        if arm == MAIN:
            return tuple(BATCHES) if self.recipe.network == "mlp" else ("16", "10 %")
        scaled = LARGE if self.recipe.data == "digits" else ("10 %",)
        return {SCALED: scaled, STEPS: ("10 %",)}.get(arm, ("16", "10 %"))


def settings(given: Options) -> tuple[Setting, ...]:
    """The settings of the command line."""
    digits = len(read_data("digits").train_y)
    controls = (MAIN, SCALED, STEPS, DECAY)
    sgd, adam = replace(DIGITS, **LI), replace(DIGITS, optimizer="adam", lr=1e-3, momentum=None)
    found = [
        Setting("digits, MLP, SGD", sgd, digits, digits, EVERY, (*controls, EPOCHS, EPOCHS_DECAY)),
        Setting("digits, MLP, Adam", adam, digits, digits, EVERY, controls),
    ]
    if given.data is not None:
        n = given.samples
        found += [
            Setting("images, MLP, Adam", images("mlp", given), n, min(n, 512), SOME, controls),
            Setting("images, C1, Adam", images("c1", given), n, min(n, 256), SOME, controls),
            Setting("images, MLP, SGD", images("mlp", given, **LI_IMAGES), n, min(n, 512), FEW, (EPOCHS, EPOCHS_DECAY)),
            Setting("images, C1, SGD", images("c1", given, **LI), n, min(n, 256), FEW, (EPOCHS, EPOCHS_DECAY)),
        ]
    return tuple(found)


def items(found: Sequence[Setting], seeds: Sequence[int]) -> list[Item]:
    """The runs of every arm but "equal steps"."""
    return [
        item(setting, arm, batch, seed, setting.trained(arm, batch))
        for setting in found
        for arm in setting.arms
        if arm != STEPS
        for batch in setting.batches(arm)
        for seed in seeds
    ]


def items_of_equal_steps(found: Sequence[Setting], runs: Sequence[Mapping[str, Any]]) -> list[Item]:
    """The runs of "equal steps": as many as the small batch of the same seed took in the main arm."""
    out = []
    for setting in found:
        if STEPS not in setting.arms:
            continue
        for run in runs:
            of = run["item"]
            if (of["setting"], of["arm"], of["batch"]) == (setting.name, MAIN, "16"):
                for batch in setting.batches(STEPS):
                    out.append(item(setting, STEPS, batch, of["seed"], setting.trained(STEPS, batch, run["steps"])))
    return out


def item(setting: Setting, arm: str, batch: str, seed: int, recipe: Recipe) -> Item:
    """A run as a piece of work."""
    recipe = replace(recipe, seed=seed)
    return {
        "setting": setting.name,
        "arm": arm,
        "batch": batch,
        "seed": seed,
        "steps_an_epoch": setting.steps(recipe),
        "measured": setting.measured,
        "measures": list(setting.measures if arm == MAIN and batch != "all" else FEW),
        "recipe": recipe.to_json(),
    }
