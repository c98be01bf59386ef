"""The picture in watching.md: lambda_max against 2 / lr, from the runs that experiments/bars keeps in its results.

    python docs/draw_watching.py

Gradient descent on 1,000 CIFAR-10 images of four classes, seed 0; see `experiments/bars/edge_of_stability.py`.
"""

import json
from pathlib import Path

from landscape.report.figure_files import save
from landscape.report.over_training.watched import figure_watched
from landscape.results import Check, Estimate, WatchHistory

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "figures" / "edge-of-stability.png"


def history() -> WatchHistory:
    """The first run on images, as a watch would have kept it."""
    runs = json.loads((ROOT / "experiments" / "results" / "bars.json").read_text())["runs"]["edge_of_stability"]
    run = next(r for r in runs if r["item"]["data"] == "images" and "at" not in r["item"])
    lr = run["item"]["lr"]
    columns = zip(run["steps"], run["lambda_max"], run["residual"], run["losses"], strict=True)
    return WatchHistory(
        tuple(
            Check(int(step), loss, {"lambda_max": Estimate(top, residual, "residual")}, {"lambda_max": 2 / lr})
            for step, top, residual, loss in columns
        ),
        units={"lambda_max": "loss / weight^2"},
        optimizer=f"gradient descent, lr {lr}",
        provenance={"samples": 1000, "task": "CIFAR-10, 4 classes"},
    )


if __name__ == "__main__":
    title = "λ_max of gradient descent rises to 2 / lr and hovers there"
    print(*save(figure_watched(history(), title=title), PICTURE, ("png",)))
