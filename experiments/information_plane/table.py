"""The runs as a table: how far the information of every layer falls, and whether the layer compresses."""

import math
from collections.abc import Sequence

import numpy as np

from experiments.common.statistics import adjusted, asked, detectable, mean, one_sided_p
from experiments.common.work import Item
from experiments.information_plane.claims import ESTIMATES, KDE, NEIGHBOURS, THRESHOLD
from experiments.information_plane.networks import LABELS, WIDTHS, labels_of


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
                        "saturated": bool((x >= 0.95 * most).all()), "p": one_sided_p(falls, limit),
                    })  # fmt: skip
    # A layer that is within 5 % of the most at all times is not judged, and does not count among the tests.
    found = adjusted([math.nan if r["saturated"] else r["p"] for r in rows])
    for row, q in zip(rows, found, strict=True):
        row["q"] = q
        row["detectable"] = THRESHOLD + detectable(row["falls"], [THRESHOLD] * len(row["falls"]), level=asked(found))
        row["compresses"] = None if row["saturated"] else row["fall"]["low"] > THRESHOLD and q <= 0.05
    return rows


def entropies() -> dict[str, float]:
    """H(Y) of each task, in bits."""
    counts = {task: np.unique(labels_of(task, [0])[0].numpy(), return_counts=True)[1] for task in WIDTHS}
    shares = {task: n / n.sum() for task, n in counts.items()}
    return {task: float(-(s * np.log2(s)).sum()) for task, s in shares.items()}
