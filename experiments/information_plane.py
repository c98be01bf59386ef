"""Shwartz-Ziv and Tishby 2017 (arXiv:1703.00810), Saxe et al. 2018: do hidden layers first fit and then compress?

Networks on the twelve-bit task and on digits, with tanh and with rectifiers, on true and on random labels. I(T; X) and
I(T; Y) of every hidden layer at epochs spaced evenly in the logarithm, by five estimates: 30 bins over the layer's range at
that epoch; 30 bins over a fixed range; the kernel upper bound with two variances of noise; nearest neighbours.

The fall of a layer is the largest I(T; X) of the training, its start included, minus that at the end. A layer compresses if
the mean fall over the seeds exceeds 0.2 bits: its 95 % bootstrap interval lies above, and q <= 0.05 over all layers, networks
and estimators. A layer that is within 5 % of log2 N at every epoch of every seed cannot be judged. A network compresses if more
than half of the judged hidden layers do. These rules were
written before the runs, but after a trial on the twelve-bit task. That a network does not compress is said only if the interval
of more than half of the judged layers ends below 0.2 bits, else that it cannot be told: added after the first look at the
results, because many falls have wide intervals.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import landscape as ls
from experiments.common.document import write
from experiments.common.options import Options, options
from experiments.common.statistics import adjusted, detectable, mean, paired_p
from experiments.common.work import Item, Place, each
from experiments.information_claims import ESTIMATES, KDE, NEIGHBOURS, THRESHOLD, judged
from experiments.information_figure import draw
from experiments.information_networks import LABELS, WIDTHS, labels_of, logarithmic, trained
from landscape.results import MutualInformation

SETTINGS: dict[str, dict[str, Any]] = {
    "bits": {"epochs": 300, "batch": 256, "lr": 2e-3},
    "digits": {"epochs": 200, "batch": 64, "lr": 2e-3},
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


def table(runs: Sequence[Item]) -> list[Item]:
    """For each kind of network, estimate and hidden layer: the fall with its interval, q, and whether it compresses."""
    rows = []
    for run in runs:
        samples = {"kde 0.001": KDE, "kde 0.1": KDE, "knn": NEIGHBOURS}
        for labels in LABELS:
            networks = [n for n in run["networks"] if n["labels"] == labels]
            for estimate in ESTIMATES:
                most = float(np.log2(min(samples.get(estimate, run["samples"]), run["samples"])))
                for i in range(len(networks[0]["layers"])):
                    x = np.array([n["layers"][i][estimate]["inputs"] for n in networks])
                    y = np.array([n["layers"][i][estimate]["labels"] for n in networks])
                    falls = (x.max(1) - x[:, -1]).tolist()
                    limit = [THRESHOLD] * len(falls)
                    rows.append({
                        "task": run["item"]["task"], "activation": run["item"]["activation"], "labels": labels,
                        "estimate": estimate, "layer": i + 1, "most": most, "falls": falls, "fall": mean(falls).to_json(),
                        "rises": (y[:, -1] - y[:, 0]).tolist(),
                        "rises_at_largest": (y[np.arange(len(y)), x.argmax(1)] - y[:, 0]).tolist(),
                        "rise_of_labels": mean((y[:, -1] - y[:, 0]).tolist()).to_json(),
                        "epoch_of_largest": [run["epochs"][k] for k in x.argmax(1)],
                        "saturated": bool((x >= 0.95 * most).all()), "p": paired_p(falls, limit),
                        "detectable": THRESHOLD + detectable(falls, limit),
                    })  # fmt: skip
    for row, q in zip(rows, adjusted([r["p"] for r in rows]), strict=True):
        row["q"] = q
        row["compresses"] = None if row["saturated"] else row["fall"]["low"] > THRESHOLD and q <= 0.05
    return rows


def entropies() -> dict[str, float]:
    """H(Y) of each task, in bits."""
    counts = {task: np.unique(labels_of(task, [0])[0].numpy(), return_counts=True)[1] for task in WIDTHS}
    shares = {task: n / n.sum() for task, n in counts.items()}
    return {task: float(-(s * np.log2(s)).sum()) for task, s in shares.items()}


if __name__ == "__main__":
    given = options(__doc__)
    if not given.draw:
        found = each("information_plane", one, planned(given), given)
        rows = table(found)
        write(
            "information_plane",
            given,
            found,
            {"verdict": judged(rows, found, given), "table": rows, "entropy": entropies(), "runs": found},
        )
    draw()
