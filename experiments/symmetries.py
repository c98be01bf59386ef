"""Dinh et al. 2017 (arXiv:1703.04933) for transformers: a clean network that looks sharper than one that memorized.

Small transformers on patches of the digits, trained on true and on random labels to loss 0.01. The clean ones are moved along
the symmetries of attention, without a change of their function: along the pairs alone (a matrix between
queries and keys, and between values and the output, of every head), and along every family of symmetries that they have, but
for norm-in, which holds only nearly here. Float64, the first 256 training samples. A network is trained and measured once;
what is done is kept in --runs.
"""

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

import landscape as ls
from experiments.common.document import FIGURES, Claim, read, verdict, write
from experiments.common.options import Options, options
from experiments.transformer import Recipe, task, trained
from landscape import checkpoints
from landscape.errors import NumericalError
from landscape.reparam import move
from landscape.report import save

MEASURES = [
    "lambda_max", "trace", "sam", "pac_bayes", "adaptive_lambda_max", "adaptive_trace", "first_order_adaptive_linf", "asam",
    "pac_bayes_magnitude", "row_lambda_max", "row_trace", "weight_curvature", "fisher_rao", "critical_sample_ratio",
    "input_margin", "output_curvature",
]  # fmt: skip
SAMPLES = 256
# Largest relative change of a measure that has not moved, and of the outputs, up to a constant that the loss ignores.
SAME = 1e-6
CLEAN, NOISE, PAIR, ALL = "clean", "random labels", "clean, moved along its pairs", "clean, moved along every symmetry"
# Factors between 1/alpha and alpha, and the condition number of the matrices. All families together, at the sizes of the pairs,
# give weights so uneven that finite differences no longer confirm the derivatives.
SIZES = {PAIR: {"alpha": 1.0, "condition": 1000.0}, ALL: {"alpha": 2.0, "condition": 100.0}}
STYLES = {CLEAN: ("#0072B2", "o"), PAIR: ("#D55E00", "^"), ALL: ("#CC79A7", "s")}


def measured(recipe: Recipe, kind: str, runs: Path) -> dict:
    """The measures of a network of the study, computed once."""
    kept = runs / f"symmetries-{kind.replace(', ', '-').replace(' ', '-')}-{recipe.seed}.json"
    asked = {"measures": MEASURES, "samples": SAMPLES, "size": SIZES.get(kind), "recipe": asdict(recipe)}
    if kept.exists():
        found = json.loads(kept.read_text())
        if found["asked"] == asked:
            return found
    started, whole = time.perf_counter(), task(recipe, trained(recipe, runs))
    model, x = whole.model.double(), whole.train[0].double()
    symmetries = ls.find_symmetries(model, x[:2])
    exact = tuple(family for family in symmetries.families if family != "norm-in")
    families = {PAIR: ("pair",), ALL: exact}.get(kind, ())
    random = torch.Generator().manual_seed(recipe.seed)
    other = move(model, symmetries, families, **SIZES[kind], generator=random) if families else model
    with torch.no_grad():
        before, after = (outputs - outputs.mean(dim=1, keepdim=True) for outputs in (model(x), other(x)))
        change = float((after - before).abs().max() / before.abs().max())
    if not change < SAME:
        raise NumericalError(f"expected the same function, found outputs that differ by {change:.1e} of the largest")
    result = ls.sharpness(ls.Objective(other, nn.CrossEntropyLoss(), whole.train, dtype="float64").subset(SAMPLES), MEASURES)
    test = whole.objective("test").evaluate().accuracy
    found = {
        "asked": asked,
        "network": kind,
        "seed": recipe.seed,
        "moved": list(families),
        "exist": list(symmetries.families),
        "unread": list(symmetries.unread),
        "outputs_change": change,
        "test_accuracy": None if test is None else test.value,
        "sharpness": result.to_json(),
        "seconds": round(time.perf_counter() - started, 1),
    }
    kept.write_text(json.dumps(found, allow_nan=False) + "\n")
    print(f"{kind}, seed {recipe.seed}: {found['seconds']:.0f} s, outputs changed by {change:.1e}\n{result}\n", flush=True)
    return found


def training(recipe: Recipe, runs: Path) -> dict:
    """The digest of a checkpoint, its recipe, and what came of it."""
    kept = checkpoints.read(trained(recipe, runs))
    return {"sha256": kept.sha256, **(kept.recipe or {})}


def compared(networks: list[dict]) -> list[dict]:
    """For each measure: its values by network and seed, what it is proven to survive, and what the moves did to it."""
    values = {(n["network"], n["seed"], name): n["sharpness"]["measures"][name] for n in networks for name in MEASURES}
    seeds = sorted({n["seed"] for n in networks})
    rows = []
    for name in MEASURES:
        row: dict = {"measure": name, "invariant_to": values[CLEAN, seeds[0], name]["invariant_to"]}
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


def judged(rows: list[dict], seeds: int) -> dict:
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
        ),
    ]
    return verdict(
        claims,
        scale=f"{seeds} seeds; 512 digits in 16 patches, 1 block, 2 heads; measured on {SAMPLES} training samples in float64",
        departures=["The paper treats rectified networks; this is its argument for the symmetries of attention."],
    )


def draw(document: dict) -> Figure:
    """Every measure of the clean networks, as trained and moved, over its value for the memorizing network of the same seed."""

    def proof(row: dict) -> tuple[bool, bool]:
        return row[ALL]["survives"], row[PAIR]["survives"]

    rows = sorted(document["rows"], key=proof)
    figure = Figure(figsize=(8.4, 6.6), layout="constrained")
    ax = figure.subplots()
    for place, row in enumerate(rows):
        for offset, (kind, (colour, marker)) in zip((-0.22, 0.0, 0.22), STYLES.items(), strict=True):
            ratios = [a / b for a, b in zip(row["values"][kind], row["values"][NOISE], strict=True) if a > 0 and b > 0]
            style = {"color": colour, "ms": 5, "mec": "white", "mew": 0.4, "label": kind if place == 0 else None}
            ax.plot(ratios, [place + offset] * len(ratios), marker, **style)
        if not any(value for kind in STYLES for value in row["values"][kind]):
            ax.text(1.0, place, "  0 for all of the clean networks", va="center", fontsize=8, color="#6b6b6b")
        if place and proof(row) != proof(rows[place - 1]):
            ax.axhline(place - 0.5, color="#444444", lw=0.8)
    ax.axvline(1.0, color="black", lw=1.0, ls="--")
    words = {(False, False): "", (False, True): "  (survives pairs)", (True, True): "  (survives all)"}
    ax.set_yticks(range(len(rows)), [row["measure"] + words[proof(row)] for row in rows], fontsize=8)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_xlabel("value / value of the network trained on random labels (dashed: equal)", fontsize=8.5)
    ax.grid(axis="x", color="#e4e4e4", lw=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.3, 1.0), ncols=3, frameon=False, fontsize=8)
    title = "A clean transformer, moved along its symmetries: the same function, any sharpness"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    figure.supxlabel(caption(document), x=0.01, ha="left", fontsize=7.5, color="#6b6b6b")
    return figure


def caption(document: dict) -> str:
    """What was trained, how it was moved, and the verdict."""
    clean, noise = (
        100 * statistics.median(n["test_accuracy"] for n in document["networks"] if n["network"] == kind)
        for kind in (CLEAN, NOISE)
    )
    pair, whole = document["sizes"][PAIR], document["sizes"][ALL]
    return (
        f"Digits in 16 patches, 1 block, 2 heads, training loss 0.01; {len(document['seeds'])} seeds, a mark each; "
        f"{document['samples']} training samples, float64.\n"
        f"Moved at random: along pairs by matrices of condition {pair['condition']:g}; along everything but norm-in by "
        f"matrices of condition\n{whole['condition']:g} and factors up to {whole['alpha']:g}. "
        f"Outputs changed by at most {document['outputs_change']:.0e} of the largest. "
        f"Median test accuracy: clean {clean:.1f} %, random labels {noise:.1f} %. Verdict: {document['verdict']['verdict']}."
    )


def studied(given: Options) -> dict:
    """The document of the study."""
    networks = []
    for seed in given.seeds:
        for kind in (CLEAN, PAIR, ALL, NOISE):
            recipe = Recipe("random-labels" if kind == NOISE else "clean", seed)
            networks.append(measured(recipe, kind, given.runs))
    rows = compared(networks)
    return {
        "samples": SAMPLES,
        "seeds": list(given.seeds),
        "sizes": SIZES,
        "families": networks[0]["exist"],
        "outputs_change": max(n["outputs_change"] for n in networks),
        "training": [
            training(Recipe(labels, seed), given.runs) for seed in given.seeds for labels in ("clean", "random-labels")
        ],
        "verdict": judged(rows, len(given.seeds)),
        "rows": rows,
        "networks": networks,
    }


if __name__ == "__main__":
    given = options(__doc__)
    if not given.draw:
        document = studied(given)
        write("symmetries", given, document["networks"], document, images=False)
    save(draw(read("symmetries")), FIGURES / "symmetries", formats=("png",))
