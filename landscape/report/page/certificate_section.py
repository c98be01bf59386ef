"""Certificates of reparameterizations in the HTML report."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from landscape.report.figures import titled
from landscape.report.figures.caption import provenance_line
from landscape.report.page.embedded_images import Picture, picture
from landscape.report.page.figure_data import certificates_csv
from landscape.report.page.table_cells import DASH, number
from landscape.report.style import label_text
from landscape.results import Certificate, CertificateRow, CertificateTable

VERDICTS = ("CLAIM BROKEN", "not comparable", "moved", "within doubt", "unmoved here", "invariant", "not defined")

# What each family of symmetries changes, for the heading of its table.
WORDS = {
    "layer": "rescaling whole layers",
    "node": "rescaling single neurons",
    "pair": "matrices between two linear maps",
    "rotation": "rotating a stream that normalizations read",
    "norm-out": "rescaling the channels of a normalization's gain",
    "norm-in": "rescaling the weights before a normalization",
    "shift": "constants that a softmax, a mean or another summand takes away",
    "bias": "constants traded between biases",
}


def results(found: Mapping[str, Sequence[tuple[float, Certificate]]], caption: bool) -> list[dict[str, Any]]:
    """One section per network that was moved: its families within, with one line for each in a table that leads to them."""
    return [{"name": label_text(label), "families": certificates(label, own, caption)} for label, own in found.items()]


def certificates(label: str, pairs: Sequence[tuple[float, Certificate]], caption: bool) -> list[dict[str, Any]]:
    """One entry per symmetry; the first has the figure of layers and neurons, the first of the others the map of all.

    The families of one network, and the change along all of them together, are one section of the page, opened one at a time.
    """
    alike = {c.symmetry: [pair for pair in pairs if pair[1].symmetry == c.symmetry] for _, c in pairs}
    scaled = [pair for name, own in alike.items() if name in ("layer", "node") for pair in own]
    pictures: dict[str | None, Picture] = {}
    words = f"Ratio of each measure after to before the change of {label_text(label)}; the tables have the numbers."
    if scaled:
        figure = titled.figure_certificate(scaled, caption=caption)
        pictures[scaled[0][1].symmetry] = picture(figure, words, f"rescaling {label}", certificates_csv(scaled))
    other = next((name for name in alike if name not in ("layer", "node")), None)
    if other is not None and len({tuple(row.name for row in own[0][1].rows) for own in alike.values()}) == 1:
        named = {"together" if " + " in str(name) else str(name): own[0][1] for name, own in alike.items()}
        table = CertificateTable(named)
        figure = titled.figure_certificate_map(table, caption=caption)
        pictures[other] = picture(figure, words, f"symmetries {label}", certificates_csv(pairs))
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
    symmetry, counts = ordered[0][1].symmetry, Counter(row["verdict"] for row in rows)
    same, broken = all(c.same_function for _, c in ordered), [r["name"] for r in rows if r["verdict"] == VERDICTS[0]]
    return {
        "name": label_text(label),
        "symmetry": symmetry,
        "family": "together" if " + " in str(symmetry) else str(symmetry or "no family"),
        "what": _what(symmetry),
        "same": same,
        "well": same and not broken,
        "broken": broken,
        "verdicts": ", ".join(f"{counts[v]} {v}" for v in VERDICTS[1:] if counts[v]),
        "lines": [(_size(alpha, c), c.function_line(), c.same_function) for alpha, c in ordered],
        "made_of": provenance_line(ordered[0][1].provenance),
        "sizes": [_size(alpha, c) for alpha, c in ordered],
        "rows": rows,
    }


def _what(symmetry: str | None) -> str:
    """What a change along a family is, in words."""
    if symmetry is None:
        return "a change of the weights that belongs to no family"
    if " + " in symmetry:
        return f"along {symmetry.replace(' + ', ', ')}, one after another"
    return WORDS.get(symmetry, f"along {symmetry}")


def _size(alpha: float, certificate: Certificate) -> str:
    """How large the change was: the condition number of matrices, the size of factors and constants, or both."""
    families = str(certificate.symmetry).split(" + ")
    condition = certificate.provenance.get("condition")
    own = [] if condition is None or "pair" not in families else [f"condition number {condition:.4g}"]
    return ", ".join(([f"α = {alpha:g}"] if set(families) - {"pair", "rotation"} or not own else []) + own)


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
