"""What changed through training in the HTML report: loss and accuracy by epoch, measures by step or epoch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.report.exports.watched_steps import watched_csv
from landscape.report.figures import titled
from landscape.report.over_training.history import Run
from landscape.report.over_training.layer_curves import LAYERS, layers_of
from landscape.report.over_training.watched import drawn_measures, figure_watched
from landscape.report.page.embedded_images import Picture, picture
from landscape.report.page.figure_data import history_csv
from landscape.report.page.table_cells import number
from landscape.report.quantities import quantity_name
from landscape.report.style import label_text
from landscape.results import WatchHistory

# Rows of the table; of a longer history every n-th check is shown, the figure and its data have all.
_MOST_ROWS = 24


def epochs(history: Mapping[str, Run], caption: bool) -> Picture:
    """Figure of loss and accuracy during training."""
    words = f"Loss and accuracy by epoch of {', '.join(label_text(h, 40) for h in history)}."
    return picture(titled.figure_history(history, caption=caption), words, "training", history_csv(history))


def watched(label: str, history: WatchHistory, caption: bool) -> dict[str, Any]:
    """A watched run: figures of the measures with an edge, else of the first, the traces; the table of checks."""
    entry: dict[str, Any] = {"name": label_text(label), "pictures": [], "head": (), "rows": [], "lines": []}
    if not history.checks:
        return entry | {"lines": ["nothing was measured"]}
    plural = "checkpoints" if history.counted == "checkpoint" else f"{history.counted}s of training"
    layers = [n for n in layers_of(history) if np.isfinite(history.values(n)).any()]
    data = watched_csv(history)
    for name in drawn_measures(history):
        values = np.empty(0) if name == LAYERS else history.values(name)
        known = values[np.isfinite(values)]
        ends = f", from {number(float(known[0]))} to {number(float(known[-1]))}" if known.size else ""
        drawn = f"Traces of {len(layers)} layers" if name == LAYERS else quantity_name(name)
        words = f"{drawn} at {len(history)} {plural} of {label_text(label)}{ends}."
        made_of = dict(history.provenance) | {"checkpoint": label}
        figure = figure_watched(history, measure=name, provenance=made_of, caption=caption)
        entry["pictures"].append(picture(figure, words, f"{name} through training {label}", data))
    cells = history.cells()
    head, rows = cells.head, list(cells.rows)
    stride = 1 + (len(rows) - 1) // _MOST_ROWS
    lines = [f"every {stride}th of {len(rows)} checks"] if stride > 1 else []
    lines += [label_text(line, 400) for line in history.notes(drawn=bool(layers))]
    shown = rows[::-1][::stride][::-1]
    return entry | {"head": [label_text(h) for h in head], "rows": [[label_text(c) for c in r] for r in shown], "lines": lines}
