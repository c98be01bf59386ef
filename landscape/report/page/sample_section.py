"""Ranked samples and mutual information of layers in the HTML report."""

from typing import Any

from landscape.report.exports.spreadsheet import records_csv, samples_csv
from landscape.report.figures import titled
from landscape.report.figures.information import figure_information
from landscape.report.page.embedded_images import picture
from landscape.report.style import label_text
from landscape.results import Information, SampleScores


def ranked(label: str, found: SampleScores, caption: bool) -> dict[str, Any]:
    """Scores of single samples: the sorted scores, the highest ranked samples, how well wrong labels are found."""
    cells, name = found.cells(), label_text(label)
    words = f"{label_text(found.by)} of all {len(found)} samples of {name}, sorted; the table has the highest."
    figure = titled.figure_ranked_scores(found, provenance=dict(found.provenance) | {"checkpoint": label}, caption=caption)
    drawn = picture(figure, words, f"samples {label}", samples_csv(found))
    empty = {i for i in range(len(cells.head)) if all(not row[i] for row in cells.rows)}
    kept = [i for i in range(len(cells.head)) if i not in empty]
    return {
        "name": name,
        "picture": drawn,
        "head": [label_text(cells.head[i]) for i in kept],
        "rows": [[label_text(row[i]) for i in kept] for row in cells.rows],
        "lines": [label_text(line, 400) for line in cells.after if line],
    }


def informed(label: str, found: Information, caption: bool) -> dict[str, Any]:
    """Mutual information of layers: figure, table and what limits it."""
    cells, name = found.cells(), label_text(label)
    words = f"Mutual information of every layer of {name} with inputs and labels; the table has the numbers."
    figure = figure_information(found, provenance=dict(found.provenance) | {"checkpoint": label}, caption=caption)
    return {
        "name": name,
        "picture": picture(figure, words, f"information {label}", records_csv(found.records())),
        "head": list(cells.head),
        "rows": [[label_text(c) for c in row] for row in cells.rows],
        "lines": [label_text(line, 400) for line in cells.after],
    }
