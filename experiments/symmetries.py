"""Dinh et al. 2017 (arXiv:1703.04933) for transformers: a clean network that looks sharper than one that memorized.

Small transformers on patches of the digits, trained on true and on random labels to loss 0.01. The clean ones are moved along
the symmetries of attention, without a change of their function: along the pairs alone (a matrix between
queries and keys, and between values and the output, of every head), and along every family of symmetries that they have, but
for norm-in, which holds only nearly here. Float64, the first 256 training samples.
"""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import nn

import landscape as ls
from experiments.common.document import Claim, verdict, write
from experiments.common.options import Options, options
from experiments.common.work import Item, Place, each
from experiments.symmetries_figure import ALL, CLEAN, NOISE, PAIR, draw
from experiments.transformer import Recipe, task, trained
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
# Largest relative change of a measure that has not moved, and of the outputs, up to a constant that the loss ignores.
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


def compared(networks: Sequence[Item]) -> list[Item]:
    """For each measure: its values by network and seed, what it is proven to survive, and what the moves did to it."""
    values = {(n["network"], n["seed"], name): n["sharpness"]["measures"][name] for n in networks for name in MEASURES}
    seeds = sorted({n["seed"] for n in networks})
    rows = []
    for name in MEASURES:
        row: Item = {"measure": name, "invariant_to": values[CLEAN, seeds[0], name]["invariant_to"]}
        row["values"] = {kind: [values[kind, s, name]["value"] for s in seeds] for kind in (CLEAN, NOISE, PAIR, ALL)}
        own, noise = row["values"][CLEAN], row["values"][NOISE]
        row["clean_below_random_labels"] = sum(a < b for a, b in zip(own, noise, strict=True))
        for arm in (PAIR, ALL):
            families = next(n["moved"] for n in networks if n["network"] == arm)
            after = row["values"][arm]
            row[arm] = {
                "survives": set(families) <= set(row["invariant_to"]),
                "largest_change": max(abs(b / a - 1) if a else abs(b) for a, b in zip(own, after, strict=True)),
                "above_random_labels": sum(a > b for a, b in zip(after, noise, strict=True)),
            }
        rows.append(row)
    return rows


def judged(rows: Sequence[Item], seeds: int) -> Item:
    """The verdict: pairs fake every measure without a proof against them, and nothing moves that is proven not to."""
    open_ = [row for row in rows if not row[PAIR]["survives"]]
    faked = [row["measure"] for row in open_ if row[PAIR]["above_random_labels"] == seeds]
    claimed = [(row, arm) for arm in (PAIR, ALL) for row in rows if row[arm]["survives"]]
    broken = [f"{row['measure']} ({arm})" for row, arm in claimed if row[arm]["largest_change"] > SAME]
    still = {
        arm: [row["measure"] for row, a in claimed if a == arm and row[arm]["largest_change"] <= SAME] for arm in (PAIR, ALL)
    }
    claims = [
        Claim(
            "a clean transformer, moved along its pairs, looks sharper than a memorizing one by every measure without a proof",
            "Dinh et al. 2017 for rectified networks: any sharpness for one function",
            f"{len(faked)} of {len(open_)} such measures, in all of {seeds} seeds",
            len(faked) == len(open_),
            numbers={"faked": faked, "can be faked": [row["measure"] for row in open_]},
        ),
        Claim(
            "measures that are proven to survive a family of symmetries do not move along it",
            "the proofs in the docstrings",
            f"{len(still[PAIR])} measures stay along the pairs, {len(still[ALL])} along every family; {len(broken)} moved",
            not broken,
            numbers={"still along the pairs": still[PAIR], "still along every symmetry": still[ALL], "moved": broken},
            question=True,
        ),
    ]
    return verdict(
        claims,
        scale=f"{seeds} seeds; 512 digits in 16 patches, 1 block, 2 heads; measured on {SAMPLES} training samples in float64",
        departures=["The paper treats rectified networks; this is its argument for the symmetries of attention."],
    )


if __name__ == "__main__":
    given = options(__doc__)
    if not given.draw:
        runs = each("symmetries", one, planned(given), given)
        networks = [network for run in runs for network in run["networks"]]
        rows = compared(networks)
        document = {
            "samples": SAMPLES,
            "sizes": SIZES,
            "families": runs[0]["exist"],
            "outputs_change": max(n["outputs_change"] for n in networks),
            "verdict": judged(rows, len(given.seeds)),
            "rows": rows,
            "runs": runs,
        }
        write("symmetries", given, runs, document, images=False)
    draw()
