"""Comparisons as CSV: what a spreadsheet reads back is what was compared."""

import csv
import io
import math

import pytest
from report_examples import UNITS
from test_drawn_comparisons import compared

from landscape.comparison import compare
from landscape.report.exports.spreadsheet import runs_csv, statistics_csv
from landscape.results import Estimate, Measurement, Sharpness


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_row_a_run():
    comparison = compared(2)
    rows = read(runs_csv(comparison))
    assert len(rows) == 12
    for row, (group, i) in zip(rows, [(g, i) for g in comparison.groups for i in range(6)], strict=True):
        s = comparison.groups[group][i]
        assert (row["group"], row["file"], row["sha256"]) == (group, s.checkpoint, s.sha256)
        for name in UNITS:
            assert float(row[name]) == s[name].value
            assert row[f"{name}_stderr"] == ("" if s[name].stderr is None else repr(s[name].stderr))
            assert row[f"{name}_converged"] == str(s[name].converged)
        assert float(row["gap"]) == comparison.gaps[group][i]
        assert float(row["hyperparameter.lr"]) == i % 2


def test_a_row_a_quantity_and_pair():
    comparison = compared(3)
    rows = read(statistics_csv(comparison))
    assert len(rows) == (len(UNITS) + 5) * 3
    for row in rows:
        d = next(d for d in comparison.differences if (d.name, d.a, d.b) == (row["quantity"], row["group_a"], row["group_b"]))
        assert float(row["p"]) == d.p
        assert float(row["delta_high"]) == d.delta_high
        assert row["ratio"] == ("" if d.ratio is None else repr(d.ratio))
        table = comparison.table if row["kind"] == "measure" else comparison.conditions
        assert float(row["median_b"]) == table[d.name][d.b].median
        if d.name in comparison.rank_correlation:
            assert float(row["tau"]) == comparison.rank_correlation[d.name].tau
            assert float(row["partial_low"]) == comparison.partial[d.name].low
            assert float(row["auc_high"]) == comparison.memorization[d.name].auc_high
            assert (row["sign_error"], row["sign_error_environment"]) == ("", ""), "three runs of each setting are too few"


def test_one_group_has_rows_without_a_partner():
    rows = read(statistics_csv(compared(1)))
    assert len(rows) == len(UNITS) + 5
    assert {row["group_b"] for row in rows} == {""}


def test_awkward_values_and_names():
    def run(value: float) -> Sharpness:
        m = {"a,b": Measurement(Estimate(value, reason="why"), "", ()), 'say "c"': Measurement(Estimate(-math.inf), "", ())}
        return Sharpness(Estimate(0.1), None, m, 3, "one\ntwo.pt")

    comparison = compare({"x, y": [run(math.nan)], "z": [run(1.0)]})
    first, _ = read(runs_csv(comparison))
    assert first["group"] == "x, y"
    assert first["file"] == "one\\ntwo.pt", "a name ends no line"
    assert math.isnan(float(first["a,b"]))
    assert float(first['say "c"']) == -math.inf
    row = read(statistics_csv(comparison))[0]
    assert row["remark"] == pytest.approx("no value in 1 of 2 runs: why")
    assert row["p"] == ""


@pytest.mark.parametrize("text", ["=cmd()", "+1+2", "-2+3", "@SUM(A1)"])
def test_no_text_acts_as_a_formula(text):
    run = Sharpness(Estimate(-0.5), None, {text: Measurement(Estimate(-math.inf), "", ())}, 3, text)
    (row,) = read(runs_csv(compare({"a": [run]})))
    assert row["file"] == f"'{text}"
    assert row[f"'{text}"] == "-inf"
    assert row["train_loss"] == "-0.5"
    assert not [cell for cell in (*row, *row.values()) if cell.startswith(("=", "+", "@", "\t", "\r"))]


@pytest.mark.parametrize("text", ["\t=1", "\r=1", "a\x1b[31m", "\u202egnp", "x\ny"])
def test_what_is_not_printable_is_spelt_out(text):
    run = Sharpness(Estimate(-0.5), None, {text: Measurement(Estimate(1.0), "", ())}, 3, text)
    written = runs_csv(compare({"a": [run]}))
    (row,) = read(written)
    assert row["file"] == text.encode("unicode_escape").decode()
    assert row[row["file"]] == "1.0"
    assert written.replace("\r\n", "").isprintable()
