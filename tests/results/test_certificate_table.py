"""The table of all families: what survives everything, and how it prints, is saved and drawn."""

import json
import math

import pytest

from landscape.errors import UsageError
from landscape.report import figure_certificate_map
from landscape.results import Certificate, CertificateRow, CertificateTable, Estimate

VERDICTS = {
    "row_trace": ("invariant", "invariant"),
    "adaptive_trace": ("invariant", "moved"),
    "trace": ("moved", "moved"),
    "entropy": ("invariant", "unmoved here"),
    "margin": ("not defined", "not defined"),
}
RATIOS = {"moved": 1.2e6, "not defined": math.nan}


def column(i: int, family: str, **changed: str) -> Certificate:
    rows = []
    for name, verdicts in VERDICTS.items():
        verdict = changed.get(name, verdicts[i])
        after = Estimate(RATIOS.get(verdict, 1.0), reason="why" if verdict == "not defined" else None)
        rows.append(CertificateRow(name, Estimate(1.0), after, verdict == "invariant", verdict))
    return Certificate(tuple(rows), family, 1e-3, 2.0, True, 7, {}, nearly=family == "norm-in")


def test_what_survives_everything_is_the_headline() -> None:
    table = CertificateTable({"node": column(0, "node"), "norm-in": column(1, "norm-in")})
    assert table.survivors == ("row_trace",)
    assert table.broken == []
    assert table.headline() == ("survive all of node, norm-in, as claimed: row_trace; unmoved here, without a proof: entropy")
    assert table.ranked == ("row_trace", "entropy", "adaptive_trace", "trace", "margin")
    lines = str(table).splitlines()
    assert lines[0].startswith("node     the same function: max")
    assert lines[1].startswith("norm-in  nearly the same function, 5.00e-04 relative, because of eps: max")
    assert lines[2].split() == ["after", "/", "before", "node", "norm-in"]
    assert lines[4].split() == ["adaptive_trace", "1", "ok", "1.2e6", "moved"]
    assert lines[7].split() == ["margin", "–", "–"]
    assert CertificateTable({"pair": column(1, "pair", row_trace="moved")}).headline().startswith("none survives pair")


def test_the_column_of_all_moves_is_no_family() -> None:
    table = CertificateTable({"node": column(0, "node"), "norm-in": column(1, "norm-in"), "together": column(1, "norm-in")})
    assert table.headline().startswith("survive all of node, norm-in, and all together, as claimed: row_trace")


def test_a_broken_claim_comes_first() -> None:
    table = CertificateTable({"node": column(0, "node", trace="CLAIM BROKEN"), "pair": column(1, "pair")})
    assert table.broken == ["trace"]
    assert table.ranked[0] == "trace"
    assert table.headline().startswith("CLAIM BROKEN: trace; survive all of node, pair")


def test_saved_and_read_again() -> None:
    table = CertificateTable({"node": column(0, "node"), "norm-in": column(1, "norm-in")})
    again = CertificateTable.from_json(json.loads(json.dumps(table.to_json())))
    assert str(again) == str(table)
    assert again.to_json()["survivors"] == ["row_trace"]


def test_the_map_has_a_cell_for_every_measure_and_family() -> None:
    table = CertificateTable({"node": column(0, "node", trace="CLAIM BROKEN"), "norm-in": column(1, "norm-in")})
    ax = table.plot()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["node", "norm-in"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(table.ranked)
    assert [text.get_text() for text in ax.texts][:4] == ["1", "1.2e6", "1", "1"]
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == [
        "survives, as claimed", "moved, by little: can be faked", "no claim, no sure change here",
        "moved ×10⁶ or more; log scale between", "CLAIM BROKEN",
    ]  # fmt: skip
    figure = figure_certificate_map(table)
    assert "survive all of node, norm-in" in " ".join(text.get_text() for text in figure.texts)
    colours = ax.get_images()[0].get_array()
    assert colours.shape == (5, 2, 3)
    assert tuple(colours[0, 0]) == (0, 0, 0)


def test_certificates_of_different_measures_are_refused() -> None:
    other = Certificate((), "pair", 0.0, 1.0, True, 1, {})
    with pytest.raises(
        UsageError, match="expected certificates of the same measures, found certificates of different measures"
    ):
        CertificateTable({"node": column(0, "node"), "pair": other})
    with pytest.raises(UsageError, match="found none"):
        CertificateTable({})
