"""Measures of the checkpoints in the HTML report: summary, comparison of groups, provenance."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from landscape.report.exports.spreadsheet import statistics_csv
from landscape.report.figures import titled
from landscape.report.figures.measures import estimate_of
from landscape.report.page.embedded_images import Picture, picture
from landscape.report.page.figure_data import groups_csv
from landscape.report.page.table_cells import DASH, cell, flat, told
from landscape.report.style import label_text, number_of, unit_text
from landscape.results import Comparison, Sharpness
from landscape.results.records.loss_unit import loss_per
from landscape.results.sharpness import joint_mark, unequal_losses


def summary(results: Sequence[Sharpness], names: list[str]) -> dict[str, Any] | None:
    """Rows of the summary table: loss, accuracy, then every measure."""
    if not results:
        return None
    rows = [
        {
            "name": "loss",
            "mark": None,
            "unit": f"mean per {loss_per(*(r.provenance for r in results))}",
            "cells": [cell(r.loss, no_data=bool(r.no_data)) for r in results],
        }
    ]
    if any(r.accuracy is not None for r in results):
        cells = [cell(r.accuracy, 100.0) for r in results]
        rows.append({"name": "accuracy", "mark": None, "unit": "%", "cells": cells})
    for name in dict.fromkeys(name for r in results for name in r.measures):
        first = next(r.measures[name] for r in results if name in r.measures)
        cells = [cell(estimate_of(r, name), no_data=bool(r.no_data)) for r in results]
        mark = joint_mark([r.measures[name] for r in results if name in r.measures])
        rows.append({"name": label_text(name), "mark": mark, "unit": unit_text(first.unit), "cells": cells})
    lines = [(name, r.minimum.line()) for name, r in zip(names, results, strict=True) if r.minimum is not None]
    slopes = [f"{name} is {label_text(line, 400)}." for name, line in lines if line is not None]
    found = {name: label_text(r.symmetries.line(), 400) for name, r in zip(names, results, strict=True) if r.symmetries}
    alike = len(set(found.values())) == 1
    told = list(found.values())[:1] if alike else [f"{name}: {line}" for name, line in found.items()]
    told += [f"{name}: {label_text(r.no_data, 200)}" for name, r in zip(names, results, strict=True) if r.no_data]
    lost = [f"{name}: {label_text(m)}" for name, r in zip(names, results, strict=True) for m in r.unconverged]
    own = {"names": names, "rows": rows, "unconverged": lost, "slopes": slopes, "symmetries": told}
    return own | {"losses": unequal_losses(results)}


def by_group(
    results: Sequence[Sharpness], names: list[str], groups: Mapping[str, Sequence[Sharpness]] | None, caption: bool
) -> Picture | None:
    """Figure of all measures; None for fewer than two checkpoints or more than 24 groups."""
    shown = dict(groups) if groups else {name: [r] for name, r in zip(names, results, strict=True)}
    if sum(map(len, shown.values())) < 2 or len(shown) > 24:
        return None
    columns = ", ".join(label_text(g, 40) for g in shown)
    words = f"One panel per measure, one column for each of: {columns}. The table above has the numbers."
    figure = titled.figure_measures(shown, columns=4, title="All measures by group", caption=caption)
    return picture(figure, words, "measures by group", groups_csv(shown))


def compared(comparison: Comparison, caption: bool) -> dict[str, Any]:
    """Effect sizes, rank correlations and remarks of one comparison."""
    title = " / ".join(label_text(f"{name} ({len(runs)})", 40) for name, runs in comparison.groups.items())
    data, pictures = statistics_csv(comparison), []
    tested = any(d.smallest_p < 1 for d in comparison.differences)  # one run against one run is never significant
    if tested:
        words = "Cliff's delta and ratio of medians of every measure for every pair of groups; the table has the numbers."
        figure = titled.figure_effects(comparison, caption=caption)
        pictures.append(picture(figure, words, f"differences {title}", data))
    if any(d.smallest_p < 1 for d in comparison.memorization.values()):
        words = "AUC of every measure for telling runs that memorized from all others; the table has the numbers."
        figure = titled.figure_separation(comparison, caption=caption)
        pictures.append(picture(figure, words, f"memorization {title}", data))
    if comparison.rank_correlation:
        words = "How every measure ranks the generalization gap; the table has the numbers."
        figure = titled.figure_correlations(comparison, caption=caption)
        pictures.append(picture(figure, words, f"rank correlation {title}", data))
    fixed = next((f" at fixed {', '.join(r.controls)}" for r in comparison.partial.values()), "")
    tables = [
        (
            "Differences between the groups",
            ("quantity", "groups", "Cliff's δ", "ratio of medians", "p", "q"),
            comparison.difference_rows() if tested else [],
        ),
        ("Runs that memorized against all others", ("measure", "AUC", "p", "q"), comparison.memorization_rows()),
        ("With the generalization gap", ("measure", "Kendall's τ", "p", "q", "granulated Ψ"), comparison.correlation_rows()),
        (
            "With the gap, other quantities held fixed, and in the worst environment",
            ("measure", label_text(f"partial ρ{fixed}", 200), "q", "worst sign error", "environment"),
            comparison.partial_rows(),
        ),
    ]
    return {
        "title": title,
        "remarks": [label_text(r, 1000) for r in comparison.remarks],
        "pictures": pictures,
        "tables": [(caption, head, [[label_text(c) for c in row] for row in rows]) for caption, head, rows in tables if rows],
    }


# What entries of the provenance are called on the page. The record of a run has more, for continuing it.
_NAMED = {
    "mode": "network in",
    "numpy": "NumPy",
    "torch": "PyTorch",
    "start": "Lanczos runs start from",
    "products": "Hessian products made faster by",
    "memory.budget": "memory limit",
    "memory.forecast": "memory needed, forecast",
    "memory.graphs": "memory of graphs",
    "memory.graphs_kept": "graphs kept between products",
    "memory.batch_size": "samples per forward pass",
    "memory.block": "vectors multiplied together",
    "memory.bases": "Krylov bases",
}
_UNTOLD = {"products": "plain"}  # nothing made them faster


def entries(settings: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Name and value of every entry of a provenance, in words.

    Example:
        >>> dict(entries({"products": "plain", "memory": {"bases": [{"vectors": 512, "where": "device", "bytes": 34 << 20}]}}))
        {'Krylov bases': '512 vectors, 34 MiB, on the device'}
        >>> dict(entries({"notices": ["weights in bfloat16"]}))
        {'notices': 'weights in bfloat16'}
    """
    for key, value in flat(settings):
        if value is None:
            yield _NAMED.get(key, key), None
        elif (
            key == "memory.bases" and isinstance(value, list) and all(isinstance(b, Mapping) and "vectors" in b for b in value)
        ):
            yield _NAMED[key], "; ".join(map(_basis, value)) or "none"
        elif key not in _UNTOLD or value != _UNTOLD[key]:
            yield _NAMED.get(key, key), told(value, key)


def _basis(settings: Mapping[str, Any]) -> str:
    """A Krylov basis in words: its vectors, memory and place."""
    place = {"device": "on the device", "host": "in main memory", "disk": "on disk"}.get(settings.get("where", ""))
    size = told(settings["bytes"], "bytes") if "bytes" in settings else None
    return ", ".join(filter(None, [number_of(settings["vectors"], "vector"), size, place]))


def provenance(
    results: Sequence[Sharpness], names: list[str], records: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Provenance of each checkpoint's results, then of spectra (`records`, by label); missing entries are dashes."""
    if not results and not records:
        return None
    columns = []
    for r in results:
        own = {"checkpoint": r.checkpoint, "sha256": r.sha256, "task": r.task, "samples": f"{r.samples:,}"}
        spent = sum(m.matvecs for m in r.measures.values())
        columns.append(own | dict(entries(r.provenance)) | {"Hessian products": f"{spent:,}"})
    columns += [dict(entries(record)) for record in records.values()]
    names = [*names, *(f"spectrum of {label_text(label)}" for label in records)]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = [(label_text(key), [DASH if c.get(key) is None else label_text(c[key], 300) for c in columns]) for key in keys]
    return {"names": names, "rows": rows}
