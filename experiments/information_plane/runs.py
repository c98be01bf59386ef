"""The runs of the study: the information in every hidden layer, through training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import landscape as ls
from experiments.common.options import Options
from experiments.common.work import Item, Place
from experiments.information_plane.claims import KDE, NEIGHBOURS
from experiments.information_plane.networks import LABELS, WIDTHS, labels_of, logarithmic, trained
from landscape.results import MutualInformation

SETTINGS: dict[str, dict[str, Any]] = {
    "bits": {"epochs": 300, "batch": 256, "lr": 2e-3},
    "digits": {"epochs": 1000, "batch": 256, "lr": 2e-3},
}
MEASURED = 12  # epochs


def planned(given: Options) -> list[Item]:
    """The four kinds of networks; all seeds of a kind are trained side by side."""
    return [
        {"task": task, "activation": activation, "seeds": list(given.seeds), "measured": MEASURED, **settings}
        for task, settings in SETTINGS.items()
        for activation in ("tanh", "relu")
    ]


def one(item: Item, place: Place) -> Item:
    """Train the networks of a kind and follow their hidden layers."""
    task, seeds = item["task"], item["seeds"]
    at = logarithmic(item["epochs"], item["measured"])
    how = {k: item[k] for k in ("epochs", "batch", "lr")}
    shots = list(trained(task, item["activation"], seeds, at=at, **how))
    labels = labels_of(task, seeds).numpy()
    out = []
    for k, network in enumerate((label, seed) for label in LABELS for seed in seeds):
        layers = [[shot.layers[i][k].numpy() for shot in shots] for i in range(len(WIDTHS[task]) - 2)]
        found = [_followed(states, labels[k], item["activation"], network[1]) for states in layers]
        out.append({
            "labels": network[0], "seed": network[1], "layers": found,
            "train_accuracy": [s.train[k] for s in shots], "test_accuracy": [s.test[k] for s in shots],
        })  # fmt: skip
    return {"epochs": [s.epoch for s in shots], "samples": labels.shape[1], "networks": out}


def _followed(states: Sequence[np.ndarray], labels: np.ndarray, activation: str, seed: int) -> Item:
    """A layer through training: estimate -> {"inputs": bits at every epoch, "labels": bits}."""
    rows = np.random.default_rng(seed).permutation(len(labels))
    some, few = np.sort(rows[:KDE]), np.sort(rows[:NEIGHBOURS])
    # As the papers: for tanh from -1 to 1, for rectifiers up to the largest activation of the training.
    span = (-1.0, 1.0) if activation == "tanh" else (0.0, max(float(t.max()) for t in states) or 1.0)
    found: dict[str, list[MutualInformation]] = {}
    for t in states:
        parts = {
            "binned": _bits(t, labels, "binned", "binned"),
            "binned, fixed range": _bits(t, labels, "binned", "binned", span=span),
            "kde 0.001": _bits(t[some], labels[some], "kde", "kde_upper", noise=1e-3),
            "kde 0.1": _bits(t[some], labels[some], "kde", "kde_upper", noise=0.1),
            "knn": _bits(t[few], labels[few], "knn", "knn", noise=1e-3),
        }
        for name, bits in parts.items():
            found.setdefault(name, []).append(bits)
    return {n: {"inputs": [b.inputs for b in bits], "labels": [b.labels for b in bits]} for n, bits in found.items()}


def _bits(t: np.ndarray, y: np.ndarray, estimator: str, name: str, **settings: Any) -> MutualInformation:
    """One estimate; every epoch has the same noise, so that its error cancels in differences."""
    generator = torch.Generator().manual_seed(0)
    return ls.mutual_information(t, y, estimators=[estimator], generator=generator, **settings)[name]
