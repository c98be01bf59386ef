"""The settings of the study of control, and its runs as a table with one row for each."""

from collections.abc import Sequence
from typing import Any

from experiments.common.statistics import LEVEL, Interval, adjusted, asked, detectable, difference, mean, paired_p
from experiments.control.front import dominated_area, on_front

NONE, EARLY = "none", "early stopping"
CONTROLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "weight decay": ("weight_decay", (1e-3, 1e-2, 5e-2)),
    "dropout": ("dropout", (0.2, 0.5, 0.8)),
    "SAM": ("rho", (0.05, 0.1, 0.2)),
    "batch size": ("batch_size", (8, 128, 512)),
    "label smoothing": ("label_smoothing", (0.1, 0.4, 0.8)),
    "mixup": ("mixup", (0.2, 1.0, 8.0)),
}
# A control works if it lowers the memorized share by so much; it is free if it surely does not lower the accuracy by so much.
WORKS, FREE = 0.1, 0.02
Row = dict[str, Any]


def table(runs: Sequence[Row]) -> list[Row]:
    """One row for every setting, early stopping among them: numbers of every seed, means, differences from the baseline."""
    kinds: dict[tuple[str, str, Any], list[Row]] = {}
    for run in sorted(runs, key=lambda r: r["item"]["seed"]):
        item = run["item"]
        kinds.setdefault((item["data"], item["control"], item["strength"]), []).append(run)
        if item["control"] == NONE:
            kinds.setdefault((item["data"], EARLY, None), []).append(run["early_stopping"])
    rows = [
        {
            "data": data,
            "control": control,
            "strength": strength,
            "memorized": [g["wrong_labels_fitted"] for g in group],
            "clean": [g["clean_labels_fitted"] for g in group],
            "tested": [g["test_accuracy"] for g in group],
        }
        for (data, control, strength), group in kinds.items()
    ]
    compared, p = [], []
    for row in rows:
        base = next(r for r in rows if r["data"] == row["data"] and r["control"] == NONE)
        for name in ("memorized", "tested"):
            row[f"{name}_mean"] = mean(row[name]).to_json()
            if row is not base:
                row[f"{name}_difference"] = difference(row[name], base[name]).to_json()
                compared.append((row, name, base[name]))
                p.append(paired_p(row[name], base[name]))
    found = adjusted(p)
    for (row, name, without), q in zip(compared, found, strict=True):
        row[f"{name}_q"] = q
        row[f"{name}_detectable"] = detectable(row[name], without, level=asked(found))
    for data in {r["data"] for r in rows}:
        points = {label(r): (r["memorized"], r["tested"]) for r in rows if r["data"] == data}
        often = on_front(points)
        for row in (r for r in rows if r["data"] == data):
            row["on_front"] = often[label(row)]
    return rows


def label(row: Row) -> str:
    """The name of a setting."""
    return row["control"] if row["strength"] is None else f"{row['control']} {row['strength']:g}"


def areas(rows: Sequence[Row], data: str) -> dict[str, list[float]]:
    """For every control and seed, the area of trade-offs that the control in its strengths, or nothing, beats."""
    own = [r for r in rows if r["data"] == data]
    base = next(r for r in own if r["control"] == NONE)
    found = {}
    for control in (*CONTROLS, EARLY):
        points = [base, *(r for r in own if r["control"] == control)]
        found[control] = [
            dominated_area([p["memorized"][k] for p in points], [p["tested"][k] for p in points])
            for k in range(len(base["tested"]))
        ]
    return found


def works(row: Row) -> bool:
    """Whether a setting lowers the memorized share."""
    return bool(row["memorized_difference"]["value"] <= -WORKS and row["memorized_q"] <= LEVEL)


def free(row: Row) -> bool | None:
    """Whether a setting lowers the memorized share, and surely not the test accuracy; None if these seeds cannot tell.

    False if the memorized share surely falls by less than `WORKS`, or the test accuracy surely by more than `FREE`.
    """
    memorized, tested = (Interval(**row[f"{name}_difference"]) for name in ("memorized", "tested"))
    if works(row) and tested.low >= -FREE:
        return True
    return False if memorized.low > -WORKS or tested.high < -FREE else None


def changed(row: Row, name: str) -> int:
    """1 if a setting raises "memorized" or "tested" over the baseline's, -1 if it lowers it, 0 if these seeds cannot tell."""
    value = row[f"{name}_difference"]["value"]
    return 0 if row[f"{name}_q"] > LEVEL else int(value > 0) - int(value < 0)
