"""Spectra in the HTML report: the whole Hessian, mini-batches, layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from landscape.report.exports.spreadsheet import blocks_csv, minibatches_csv, records_csv
from landscape.report.figures import titled
from landscape.report.figures.heads import figure_heads
from landscape.report.page.embedded_images import picture
from landscape.report.page.table_cells import number
from landscape.report.style import label_text
from landscape.results import Block, Eigenpairs, MinibatchSpectra, SpectralDensity
from landscape.results.spectra.breakdown import HEAD

Record = Mapping[str, Any] | None  # the provenance of a spectrum


def spectra(
    eigenpairs: Mapping[str, Eigenpairs],
    densities: Mapping[str, SpectralDensity],
    minibatches: Mapping[str, MinibatchSpectra],
    caption: bool,
    records: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Figures and tables of eigenvalues, one entry per label."""
    out = []
    for label in dict.fromkeys((*densities, *eigenpairs, *minibatches)):
        density, pairs, batches = densities.get(label), eigenpairs.get(label), minibatches.get(label)
        name, record = label_text(label), records.get(label)
        entry: dict[str, Any] = {"name": name, "pictures": [], "pairs": None, "minibatches": None}
        if density is not None:
            ends = f"eigenvalues found from {number(float(density.nodes.min()))} to {number(float(density.nodes.max()))}"
            told = f"on a {density.scale} axis; {density.probes} random vectors, {ends}."
            words = f"Density of the Hessian's eigenvalues of {name} {told}"
            figure = titled.figure_density(density, eigenpairs=pairs, provenance=record, caption=caption)
            entry["pictures"].append(picture(figure, words, f"density {label}", records_csv(density.records())))
        if pairs is not None and len(pairs):
            values = f"from {number(float(pairs.values.min()))} to {number(float(pairs.values.max()))}"
            words = f"{len(pairs)} eigenvalues of {name} by rank, {values}; the table has the numbers."
            figure = titled.figure_eigenvalues(pairs, provenance=record, caption=caption)
            entry["pictures"].append(picture(figure, words, f"eigenvalues {label}", records_csv(pairs.records())))
            estimates = [pairs.estimate(i) for i in range(len(pairs))]
            rows = [
                (number(e.value, 6), number(e.stderr or 0.0, 2), e.converged, end)
                for e, end in zip(estimates, pairs.ends(), strict=True)
            ]
            entry["pairs"] = {"which": pairs.which, "matvecs": pairs.matvecs, "rows": rows}
        if batches is not None:
            entry["minibatches"] = _minibatches(label, batches, caption, record)
        out.append(entry)
    return out


def _minibatches(label: str, found: MinibatchSpectra, caption: bool, record: Record) -> dict[str, Any]:
    """How the extreme eigenvalues are distributed over mini-batches: figure and table."""
    cells = found.cells()
    words = f"Largest and smallest eigenvalue of {len(found)} mini-batches of {label_text(label)}; the table has the numbers."
    figure = titled.figure_minibatch_spectra(found, provenance=record, caption=caption)
    drawn = picture(figure, words, f"mini-batches {label}", minibatches_csv(found))
    return {"picture": drawn, "head": cells.head[1:], "rows": cells.rows, "lines": [*cells.before, *cells.after]}


def layers(label: str, blocks: Sequence[Block], filters: Sequence[Block], caption: bool, record: Record) -> dict[str, Any]:
    """Curvature by layer: figure and table."""
    words = (
        f"Trace and largest eigenvalue of each layer's block of the Hessian of {label_text(label)}; the table has the numbers."
    )
    figure = titled.figure_breakdown(blocks, filters, title="Curvature by layer", provenance=record, caption=caption)
    drawn = picture(figure, words, f"layers {label}", blocks_csv([*blocks, *filters]))
    return {"name": label_text(label), "picture": drawn, "rows": [[label_text(c) for c in b.row()] for b in blocks]}


def heads(label: str, found: Sequence[Block], caption: bool, record: Record) -> dict[str, Any]:
    """Curvature by attention head: figure, table, and how weights that heads share are counted."""
    words = (
        f"Largest eigenvalue, trace and share of the top eigenvector of each attention head's block of the Hessian of "
        f"{label_text(label)}; the table has the numbers."
    )
    drawn = picture(figure_heads(found, provenance=record, caption=caption), words, f"heads {label}", blocks_csv(found))
    most = max(b.shared for b in found)
    shared = (
        f"Up to {most:,} weights of a head are in other heads, too (shared keys and values): each has them." if most else ""
    )
    rows = [[label_text(c) for c in b.row()] for b in found]
    return {
        "name": label_text(label),
        "picture": drawn,
        "head": ("head", *HEAD[1:]),
        "rows": rows,
        "lines": [shared] if shared else [],
    }
