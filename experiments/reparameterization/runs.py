"""The runs of the study: networks moved along their symmetries, every measure before and after."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import landscape as ls
from experiments.common.networks import DIGITS, images
from experiments.common.options import Options
from experiments.common.work import Item, Place
from experiments.reparameterization.flattest import diagonal, flattest, scaled_trace
from landscape.measures import measure_all
from landscape.reparam import Symmetries, apply, move, trace_blocks
from landscape.results import Measurement
from landscape.surfaces import random_direction
from landscape.tasks import Recipe

CONDITIONS = ("clean", "random-labels")
SAMPLES = 128
# Measured at every move, and at some moves also those that take longer.
QUICK = (
    "lambda_max", "trace", "frobenius", "sam", "adaptive_lambda_max", "adaptive_trace", "asam",
    "adaptive_average_l2", "first_order_adaptive_linf", "layer_relative_trace", "relative_flatness", "weight_curvature",
    "fisher_rao", "path_norm", "frobenius_product", "spectral_product", "logit_norm", "input_margin", "critical_sample_ratio",
    "output_curvature",
)  # fmt: skip
SLOW = ("keskar", "keskar_relative", "asam_published", "pac_bayes", "pac_bayes_magnitude")
# (family, alpha, with the slow measures); "flattest" is the rescaling with the smallest trace.
PLAIN = (
    ("layer", 0.1, False), ("layer", 0.3, False), ("layer", 3.0, False), ("layer", 10.0, True), ("node", 10.0, False),
    ("shift", 10.0, False), ("flattest layer", None, False), ("flattest node", None, True),
)  # fmt: skip
NORMALIZED = (*((family, 10.0, False) for family in ("norm-out", "norm-in", "bias")), ("norm-out", 100.0, False))
# Of the factor with the smallest trace: where the trace must be larger.
AROUND = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)
IMAGES = (("layer", 10.0, False), ("flattest layer", None, False), ("flattest node", None, False))


def planned(given: Options) -> list[Item]:
    """Every network and its moves."""
    # In small batches BatchNorm is too noisy for random labels to be fitted.
    normalized = replace(DIGITS, network_options={"batchnorm": True}, batch_size=128)
    kinds: list[tuple[str, Recipe, Sequence[tuple[str, float | None, bool]]]] = [
        ("mlp", DIGITS, PLAIN),
        ("mlp with BatchNorm", normalized, NORMALIZED),
    ]
    if given.data:
        kinds.append(("mlp", images("mlp", given), IMAGES))
    return [
        {
            "data": recipe.data,
            "network": network,
            "condition": condition,
            "seed": seed,
            "samples": SAMPLES,
            "recipe": replace(recipe, corruption=condition, seed=seed).to_json(),
            "moves": [list(m) for m in moves],
        }
        for network, recipe, moves in kinds
        for condition in CONDITIONS
        for seed in given.seeds
    ]


def one(item: Item, place: Place) -> Item:
    """Every measure of a network as trained and after every move, and how flat it can be made."""
    task = place.task(Recipe(**item["recipe"]))
    model, x = task.model.double().eval(), task.train[0][: item["samples"]].double()
    objective = task.objective(samples=item["samples"], dtype="float64")
    symmetries = ls.find_symmetries(model, x[:2])
    names = [*QUICK, *(SLOW if any(slow for *_, slow in item["moves"]) else ())]
    before = measure_all(objective, names, seed=item["seed"])
    exact = {} if any(unit.buffers for unit in symmetries) else bounds(model, symmetries, x)
    scales = exact.pop("scales", {})
    moves = []
    for family, alpha, slow in item["moves"]:
        other = moved(model, symmetries, family, alpha, item["seed"], scales)
        chosen = [*QUICK, *(SLOW if slow else ())]
        found = ls.certificate(
            objective,
            other,
            measures=chosen,
            symmetry=family.removeprefix("flattest "),
            seed=item["seed"],
            before=before,
        )
        moves.append(
            {
                "family": family,
                "alpha": alpha,
                "delta": found.max_delta_logit / found.logit_scale,
                "values": {row.name: _plain(row.after.value) for row in found.rows},
                "verdicts": {row.name: row.verdict for row in found.rows},
            }
        )
    final = (task.recipe or {})["final"]
    return {
        "final": {k: final[k] for k in ("epochs", "train_loss", "train_accuracy", "test_accuracy", "stopped")},
        "families": list(symmetries.families),
        "values": {name: _plain(m.estimate.value) for name, m in before.items()},
        "errors": {"trace": trace_error(before)},
        "survives": {name: list(m.invariant_to) for name, m in before.items()},
        "moves": moves,
        "flattening": exact,
    }


def moved(
    model: nn.Module, symmetries: Symmetries, family: str, alpha: float | None, seed: int, scales: Mapping[str, torch.Tensor]
) -> nn.Module:
    """The network after a move."""
    if family.startswith("flattest"):
        return apply(model, symmetries, scales[family])
    random = torch.Generator().manual_seed(seed)
    return move(model, symmetries, family, alpha=alpha or 1.0, generator=random)


def bounds(model: nn.Module, symmetries: Symmetries, x: torch.Tensor) -> dict[str, Any]:
    """The smallest trace over alpha of one layer, by its formula and where it is reached, and over all layers and neurons."""
    curvature = diagonal(model, x)
    unit = symmetries.default
    blocks = trace_blocks(symmetries, unit, curvature)

    def rescaled(alpha: float) -> float:
        """The trace of the network with this factor of the layer, from its own derivatives."""
        other = apply(model, symmetries, symmetries.layerwise({unit.name: alpha}))
        return float(sum(c.sum() for c in diagonal(other, x).values()))

    scales = {f"flattest {kind}": flattest(curvature, symmetries, node=kind == "node") for kind in ("layer", "node")}
    return {
        "trained": float(sum(c.sum() for c in curvature.values())),
        "unit": unit.name,
        "multiplied": blocks.multiplied,
        "divided": blocks.divided,
        "rest": blocks.rest,
        "bound": blocks.bound,
        "alpha": blocks.flattest,
        "reached": rescaled(blocks.flattest),
        "around": [[f, rescaled(f * blocks.flattest)] for f in AROUND],
        **{kind: float(scaled_trace(curvature, symmetries, s)) for kind, s in scales.items()},
        "scales": scales,
    }


def surfaces(given: Options) -> list[Item]:
    """The lines through the clean and the memorizing network of every seed, as trained and moved."""
    return [
        {"condition": condition, "seed": seed, "samples": 500, "points": 41}
        | {"recipe": replace(DIGITS, corruption=condition, seed=seed).to_json()}
        for condition in CONDITIONS
        for seed in given.seeds
    ]


def surface(item: Item, place: Place) -> Item:
    """Loss on a random line, raw and filter-normalized, as trained, one layer times 10, and every neuron by up to 10."""
    task = place.task(Recipe(**item["recipe"]))
    model = task.model.double().eval()
    objective = task.objective(samples=item["samples"], dtype="float64")
    symmetries = ls.find_symmetries(model, task.train[0][:2].double())
    versions = {"trained": objective} | {
        kind: objective.with_model(moved(model, symmetries, kind, 10.0, item["seed"], {})) for kind in ("layer", "node")
    }
    curves = []
    for kind, version in versions.items():
        for norm, span in (("none", 0.05), ("filter", 1.0)):
            direction = random_direction(version, seed=item["seed"], norm=norm)
            found = ls.line(version, direction, span=(-span, span), grid=item["points"], random_check=False)
            curves.append(
                {
                    "version": kind,
                    "norm": norm,
                    "at": found.coordinates[0].tolist(),
                    "loss": [_plain(float(v)) for v in found.values["loss"]],
                }
            )
    return {"curves": curves}


def trace_error(before: Mapping[str, Measurement]) -> float | None:
    """Half-width of the interval of the estimated trace."""
    interval = before["trace"].estimate.interval()
    return None if interval is None else (interval[1] - interval[0]) / 2


def _plain(value: float) -> float | None:
    """A number, or None where it is not finite."""
    return value if math.isfinite(value) else None
