"""The HTML report: a single file with embedded figures, no network access, and scripts only if requested."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from landscape.machine.files import open_regular, write
from landscape.report.figures import titled
from landscape.report.figures.caption import provenance_line
from landscape.report.figures.measures import estimate_of
from landscape.report.over_training.history import Run
from landscape.report.page.embedded_images import Picture, picture
from landscape.report.page.surface_section import slice_entries
from landscape.report.page.table_cells import DASH, breakable, cell, flat, labels, number, told
from landscape.report.style import label_text, unit_text
from landscape.results import (
    Block,
    Certificate,
    CertificateRow,
    CertificateTable,
    Comparison,
    Eigenpairs,
    Sharpness,
    Slice,
    SpectralDensity,
)
from landscape.results.sharpness import joint_mark
from landscape.version import __version__

_FOOT = 1 << 16  # bytes at the end of a page that contain its footer
VERDICTS = ("CLAIM BROKEN", "not comparable", "moved", "within doubt", "unmoved here", "invariant", "not defined")


def write_report(
    path: str | Path,
    *,
    title: str,
    sharpness: Sequence[Sharpness] = (),
    groups: Mapping[str, Sequence[Sharpness]] | None = None,
    eigenpairs: Mapping[str, Eigenpairs] | None = None,
    densities: Mapping[str, SpectralDensity] | None = None,
    comparisons: Sequence[Comparison] = (),
    blocks: Mapping[str, tuple[Sequence[Block], Sequence[Block]]] | None = None,
    slices: Sequence[Slice] = (),
    certificates: Mapping[str, Sequence[tuple[float, Certificate]]] | None = None,
    history: Mapping[str, Run] | None = None,
    commands: Sequence[str] = (),
    interactive: bool = False,
    captions: bool = True,
) -> Path:
    """Write results on checkpoints into one HTML file.

    Figures are embedded; the page's content security policy forbids loading anything. It opens from disk, follows the browser's
    light or dark setting and can be printed. All names are escaped. There is no time stamp: equal results give equal bytes.

    Args:
        path: the file to write.
        title: its heading.
        sharpness: results, one column of the summary table each.
        groups: label -> results, for the comparison figure and the summary; by default every checkpoint is a group.
        eigenpairs: label -> extreme eigenvalues.
        densities: label -> spectral density; eigenvalues of the same label are marked in it.
        comparisons: comparisons of groups, with tests, tables and remarks.
        blocks: label -> (curvature by layer, curvature by filter).
        slices: lines, planes and paths between two minima.
        certificates: label -> (alpha, certificate) pairs of one network.
        history: run -> columns or records of its training, as in `draw_history`.
        commands: command lines that reproduce the results.
        interactive: add interactive surfaces; needs plotly and adds about 5 MB of script to the file.
        captions: whether figures have title and caption; the text of the page is the same.

    Returns:
        The file.

    Raises:
        UsageError: the file cannot be written, or `interactive` without plotly.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = write_report(f"{folder}/empty.html", title="a < b").read_text()
        >>> "a &lt; b" in text
        True
    """
    listed = {(s.checkpoint, s.sha256) for s in sharpness if s.checkpoint}
    grouped = [s for members in (groups or {}).values() for s in members]
    shown = [*sharpness, *(s for s in grouped if (s.checkpoint, s.sha256) not in listed)]
    names = labels(shown)
    page = {
        "title": label_text(title, 200),
        "version": __version__,
        "summary": _summary(shown, names),
        "comparison": _comparison(shown, names, groups, captions),
        "comparisons": [_compared(c, captions) for c in comparisons],
        "provenance": _provenance(shown, names),
        "spectra": _spectra(eigenpairs or {}, densities or {}, captions),
        "blocks": [_blocks(label, *both, captions) for label, both in (blocks or {}).items()],
        "slices": slice_entries(slices, captions, interactive),
        "certificates": [
            entry for name, pairs in (certificates or {}).items() for entry in _certificates(name, pairs, captions)
        ],
        "history": _history(history, captions) if history else None,
        "commands": list(commands),
        "interactive": interactive,
    }
    environment = Environment(
        loader=PackageLoader("landscape.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    text = environment.get_template("report.html.j2").render(page)
    # File names can contain single surrogates, which UTF-8 cannot encode.
    return write(path, text.encode("utf-8", "replace"))


def is_report(path: str | Path) -> bool:
    """Whether a file was written by `write_report` and may be overwritten."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _FOOT))
            return b"<footer>Written by landscape" in file.read(_FOOT)
    except OSError:
        return False


def _summary(results: Sequence[Sharpness], names: list[str]) -> dict[str, Any] | None:
    """Rows of the summary table: loss, accuracy, then every measure."""
    if not results:
        return None
    rows = [{"name": "loss", "mark": None, "unit": "mean per sample", "cells": [cell(r.loss) for r in results]}]
    if any(r.accuracy is not None for r in results):
        cells = [cell(r.accuracy, 100.0) for r in results]
        rows.append({"name": "accuracy", "mark": None, "unit": "%", "cells": cells})
    for name in dict.fromkeys(name for r in results for name in r.measures):
        first = next(r.measures[name] for r in results if name in r.measures)
        cells = [cell(estimate_of(r, name)) for r in results]
        mark = joint_mark([r.measures[name] for r in results if name in r.measures])
        rows.append({"name": label_text(name), "mark": mark, "unit": unit_text(first.unit), "cells": cells})
    lines = [(name, r.minimum.line()) for name, r in zip(names, results, strict=True) if r.minimum is not None]
    slopes = [f"{name} is {label_text(line, 400)}." for name, line in lines if line is not None]
    found = {name: label_text(r.symmetries.line(), 400) for name, r in zip(names, results, strict=True) if r.symmetries}
    alike = len(set(found.values())) == 1
    told = list(found.values())[:1] if alike else [f"{name}: {line}" for name, line in found.items()]
    lost = [f"{name}: {label_text(m)}" for name, r in zip(names, results, strict=True) for m in r.unconverged]
    return {"names": names, "rows": rows, "unconverged": lost, "slopes": slopes, "symmetries": told}


def _comparison(
    results: Sequence[Sharpness], names: list[str], groups: Mapping[str, Sequence[Sharpness]] | None, caption: bool
) -> Picture | None:
    """Figure of all measures; None for fewer than two checkpoints or more than 24 groups."""
    shown = dict(groups) if groups else {name: [r] for name, r in zip(names, results, strict=True)}
    if sum(map(len, shown.values())) < 2 or len(shown) > 24:
        return None
    columns = ", ".join(label_text(g, 40) for g in shown)
    words = f"One panel per measure, one column for each of: {columns}. The table above has the numbers."
    figure = titled.figure_measures(shown, columns=4, title="All measures by group", caption=caption)
    return picture(figure, words)


def _compared(comparison: Comparison, caption: bool) -> dict[str, Any]:
    """Effect sizes, rank correlations and remarks of one comparison."""
    pictures = []
    tested = any(d.smallest_p < 1 for d in comparison.differences)  # one run against one run is never significant
    if tested:
        words = "Cliff's delta and ratio of medians of every measure for every pair of groups; the table has the numbers."
        pictures.append(picture(titled.figure_effects(comparison, caption=caption), words))
    if any(d.smallest_p < 1 for d in comparison.memorization.values()):
        words = "AUC of every measure for telling runs that memorized from all others; the table has the numbers."
        pictures.append(picture(titled.figure_separation(comparison, caption=caption), words))
    if comparison.rank_correlation:
        words = "How every measure ranks the generalization gap; the table has the numbers."
        pictures.append(picture(titled.figure_correlations(comparison, caption=caption), words))
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
        "title": " / ".join(label_text(f"{name} ({len(runs)})", 40) for name, runs in comparison.groups.items()),
        "remarks": [label_text(r, 1000) for r in comparison.remarks],
        "pictures": pictures,
        "tables": [(caption, head, [[label_text(c) for c in row] for row in rows]) for caption, head, rows in tables if rows],
    }


def _blocks(label: str, layers: Sequence[Block], filters: Sequence[Block], caption: bool) -> dict[str, Any]:
    """Curvature by layer: figure and table."""
    words = (
        f"Trace and largest eigenvalue of each layer's block of the Hessian of {label_text(label)}; the table has the numbers."
    )
    drawn = picture(titled.figure_breakdown(layers, filters, title="Curvature by layer", caption=caption), words)
    return {"name": label_text(label), "picture": drawn, "rows": [[label_text(c) for c in b.row()] for b in layers]}


def _provenance(results: Sequence[Sharpness], names: list[str]) -> dict[str, Any] | None:
    """Provenance of each checkpoint's results; missing entries are dashes."""
    if not results:
        return None
    columns = []
    for r in results:
        own = {"checkpoint": r.checkpoint, "sha256": r.sha256, "task": r.task, "samples": f"{r.samples:,}"}
        spent = sum(m.matvecs for m in r.measures.values())
        columns.append(own | dict(flat(r.provenance)) | {"Hessian products": f"{spent:,}"})
    keys = list(dict.fromkeys(key for column in columns for key in column))
    rows = [
        (label_text(key), [DASH if c.get(key) is None else label_text(told(c[key], key), 300) for c in columns]) for key in keys
    ]
    return {"names": names, "rows": rows}


def _spectra(
    eigenpairs: Mapping[str, Eigenpairs], densities: Mapping[str, SpectralDensity], caption: bool
) -> list[dict[str, Any]]:
    """Figures and eigenvalue tables, one entry per label."""
    out = []
    for label in dict.fromkeys((*densities, *eigenpairs)):
        density, pairs = densities.get(label), eigenpairs.get(label)
        entry: dict[str, Any] = {"name": label_text(label), "pictures": [], "pairs": None}
        if density is not None:
            ends = f"Ritz values from {number(float(density.nodes.min()))} to {number(float(density.nodes.max()))}"
            words = (
                f"Density of the Hessian's eigenvalues of {label_text(label)} on a log axis; {density.probes} probes, {ends}."
            )
            entry["pictures"].append(picture(titled.figure_density(density, eigenpairs=pairs, caption=caption), words))
        if pairs is not None and len(pairs):
            values = f"from {number(float(pairs.values.min()))} to {number(float(pairs.values.max()))}"
            words = f"{len(pairs)} eigenvalues of {label_text(label)} by rank, {values}; the table has the numbers."
            entry["pictures"].append(picture(titled.figure_eigenvalues(pairs, caption=caption), words))
            estimates = [pairs.estimate(i) for i in range(len(pairs))]
            rows = [(number(e.value, 6), number(e.stderr or 0.0, 2), e.converged) for e in estimates]
            entry["pairs"] = {"which": pairs.which, "matvecs": pairs.matvecs, "rows": rows}
        out.append(entry)
    return out


def _certificates(label: str, pairs: Sequence[tuple[float, Certificate]], caption: bool) -> list[dict[str, Any]]:
    """One entry per symmetry; the first has the figure of layers and neurons, the first of the others the map of all."""
    alike = {c.symmetry: [pair for pair in pairs if pair[1].symmetry == c.symmetry] for _, c in pairs}
    scaled = [pair for name, own in alike.items() if name in ("layer", "node") for pair in own]
    pictures: dict[str | None, Picture] = {}
    words = f"Ratio of each measure after to before the change of {label_text(label)}; the tables have the numbers."
    if scaled:
        pictures[scaled[0][1].symmetry] = picture(titled.figure_certificate(scaled, caption=caption), words)
    other = next((name for name in alike if name not in ("layer", "node")), None)
    if other is not None and len({tuple(row.name for row in own[0][1].rows) for own in alike.values()}) == 1:
        table = CertificateTable({str(name): own[0][1] for name, own in alike.items()})
        pictures[other] = picture(titled.figure_certificate_map(table, caption=caption), words)
    return [_certificate(label, own) | {"picture": pictures.get(name)} for name, own in alike.items()]


def _certificate(label: str, pairs: Sequence[tuple[float, Certificate]]) -> dict[str, Any]:
    """One line per factor on whether the function is unchanged, and the table of ratios."""
    ordered = sorted(pairs, key=lambda pair: pair[0])
    names = list(dict.fromkeys(row.name for _, c in ordered for row in c.rows))
    rows = []
    for name in names:
        found = [next((row for row in c.rows if row.name == name), None) for _, c in ordered]
        present = [row for row in found if row is not None]
        verdict = min((row.verdict for row in present), key=VERDICTS.index)
        cells = [_ratio(row) for row in found]
        rows.append({"name": label_text(name), "claimed": present[0].claimed, "cells": cells, "verdict": verdict})
    return {
        "name": label_text(label),
        "symmetry": ordered[0][1].symmetry,
        "lines": [(f"{alpha:g}", c.function_line(), c.same_function) for alpha, c in ordered],
        "made_of": provenance_line(ordered[0][1].provenance),
        "alphas": [f"{alpha:g}" for alpha, _ in ordered],
        "rows": rows,
    }


def _ratio(row: CertificateRow | None) -> dict[str, str]:
    """Ratio and values before → after; a dash with the reason if the ratio is unknown."""
    if row is None:
        return {"ratio": DASH, "change": "", "why": "not measured"}
    reason = next(
        (e.reason for e in (row.after, row.before) if e.reason and not (e.converged and math.isfinite(e.value))), None
    )
    why = label_text(reason or "not comparable", 200) if row.verdict in ("not comparable", "not defined") else ""
    if not math.isfinite(row.ratio) and not why:
        why = "the value before is 0" if row.before.value == 0 else "not finite"
    return {"ratio": number(row.ratio, 6), "change": f"{number(row.before.value)} → {number(row.after.value)}", "why": why}


def _history(history: Mapping[str, Run], caption: bool) -> Picture:
    """Figure of loss and accuracy during training."""
    return picture(
        titled.figure_history(history, caption=caption),
        f"Loss and accuracy by epoch of {', '.join(label_text(h, 40) for h in history)}.",
    )
