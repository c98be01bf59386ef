"""The numbers behind a figure of the HTML report as CSV, where no export of the command line has them."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from landscape.report.exports.spreadsheet import records_csv
from landscape.report.over_training.history import Run, by_column
from landscape.results import Certificate, MergeTree, Sharpness


def groups_csv(groups: Mapping[str, Sequence[Sharpness]]) -> str:
    """One row for every group, checkpoint and quantity: loss, accuracy, every measure with its interval."""
    rows: list[dict[str, Any]] = []
    for group, results in groups.items():
        for r in results:
            own = {"group": group, "checkpoint": r.checkpoint, "sha256": r.sha256}
            for name, e in (("loss", r.loss), ("accuracy", r.accuracy)):
                if e is not None:
                    rows.append(own | {"measure": name, "value": e.value} | e.columns())
            rows += [own | dict(record) for record in r.records()]
    return records_csv(rows)


def certificates_csv(pairs: Sequence[tuple[float, Certificate]]) -> str:
    """One row for every symmetry, factor and measure: before, after, ratio, verdict."""
    return records_csv([{"symmetry": c.symmetry, "alpha": a, **record} for a, c in pairs for record in c.records()])


def minima_csv(tree: MergeTree) -> str:
    """One row for every minimum: place, value, the height of the saddle to a lower one, persistence."""
    rows: list[dict[str, Any]] = []
    for m in tree.minima:
        row: dict[str, Any] = {f"axis_{i}": float(x) for i, x in enumerate(m.at, 1)}
        row |= {tree.quantity: float(m.value), "saddle": float(m.saddle_value), "persistence": float(m.persistence)}
        rows.append(row | {"doubt": m.doubt, "border": m.border})
    return records_csv(rows)


def history_csv(history: Mapping[str, Run]) -> str:
    """One row for every run and evaluation, with the columns of its history."""
    rows: list[dict[str, Any]] = []
    for label, run in history.items():
        columns = by_column(run)
        rows += [{"run": label, **dict(zip(columns, values, strict=True))} for values in zip_longest(*columns.values())]
    return records_csv(rows)
