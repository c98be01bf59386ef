"""Drawing of loss and accuracy during training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from landscape.errors import UsageError
from landscape.report.quantities import quantity_label
from landscape.report.style import CATEGORIES, GREY, asks_for_log, house, log_axis, panels, plain

Columns = Mapping[str, Sequence[float | None]]
Run = Columns | Sequence[Mapping[str, float | None]]


@house
def draw_history(history: Mapping[str, Run], axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw loss and accuracy against the epoch, one colour per run, test data dashed.

    Args:
        history: run -> columns, or a list of records, one per evaluation. Columns used: "train_loss" (or "loss"), "test_loss",
            "train_accuracy" (or "accuracy"), "test_accuracy", and "epoch" (default 1, 2, ...). Accuracies are fractions; a
            value may be None.
        axes: one per panel (loss, accuracy); None makes a figure.

    Returns:
        The axes of the panels.

    Raises:
        UsageError: no run has a loss or an accuracy.
    """
    runs = {label: by_column(run) for label, run in history.items()}
    wanted = [what for what in ("loss", "accuracy") if any(_columns(run, what) for run in runs.values())]
    if not wanted:
        raise UsageError("expected a history with a loss or an accuracy, found neither", fix='name a column "train_loss"')
    axes = panels(len(wanted), len(wanted), width=3.6 if len(wanted) > 1 else 5.5, height=3.0) if axes is None else list(axes)
    for ax, what in zip(axes, wanted, strict=False):
        everything = []
        for i, (label, run) in enumerate(runs.items()):
            for column, test in _columns(run, what):
                values = np.asarray(run[column], float) * (100 if what == "accuracy" else 1)
                epochs = np.asarray(run.get("epoch", np.arange(1, len(values) + 1)), float)
                name = f"{_name(label)}, {'test' if test else 'train'}"
                style: dict[str, Any] = {"color": CATEGORIES[i % 8], "ls": "--" if test else "-"}
                marker = "o" if np.isfinite(values).sum() == 1 else ""  # a line of one point is not seen
                ax.plot(epochs, np.ma.masked_invalid(values), **style, lw=1.2, marker=marker, ms=3.5, label=name)
                everything.append(values[np.isfinite(values)])
        if asks_for_log(everything):
            finite = np.concatenate(everything)
            log_axis(ax, "y", finite.min() / 1.6, finite.max() * 1.6)
        ax.set_xlabel("epoch")
        ax.set_ylabel(quantity_label(what))
    tests = any(test for run in runs.values() for what in wanted for _, test in _columns(run, what))
    handles = [Line2D([], [], color=CATEGORIES[i % 8], lw=1.5, label=_name(label)) for i, label in enumerate(history)]
    handles += [Line2D([], [], color=GREY, ls=s, lw=1.2, label=w) for s, w in (("-", "train"), ("--", "test"))[: 1 + tests]]
    figure = axes[0].get_figure()
    assert figure is not None  # axes that are drawn on belong to one
    figure.legend(handles=handles, loc="outside right upper")
    return list(axes)


def _name(label: str) -> str:
    """A run's name for the legend; matplotlib omits names that begin with an underscore, hence the space."""
    return plain(f" {label}" if label.startswith("_") else label, 24)


def by_column(run: Run) -> dict[str, Sequence[float | None]]:
    """The run as columns, without empty ones."""
    names = list(run) if isinstance(run, Mapping) else list(dict.fromkeys(key for record in run for key in record))
    columns = {name: run[name] if isinstance(run, Mapping) else [record.get(name) for record in run] for name in names}
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}


def _columns(run: Columns, what: str) -> list[tuple[str, bool]]:
    """(column, whether it is test data) for the columns of a run with the quantity `what`."""
    train = next((c for c in (f"train_{what}", what) if c in run), None)
    return [(c, t) for c, t in ((train, False), (f"test_{what}", True)) if c is not None and c in run]
