"""A tiny run of every part: each gives its rows, judges its tools, and names what is missing."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from clock import FakeClock

from benchmarks import __main__ as command
from benchmarks import timing
from benchmarks.figure import draw
from benchmarks.parts import PARTS
from benchmarks.peers import CURVATURE, SURFACES
from benchmarks.record import OURS
from benchmarks.table import table
from benchmarks.timing import Meter, OutOfTime, alternate


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """The quick run on the digits MLP, without the environment that Landscaper has."""
    missing = tmp_path_factory.mktemp("none") / "python"
    *_, document = command.measure(command.arguments(["--quick", "--networks", "mlp", "--landscaper", str(missing)]))
    return document


def rows(document, part, tool=None):
    return [r for r in document["rows"] if r["part"] == part and tool in (None, r["tool"])]


@pytest.mark.parametrize("part", PARTS)
def test_every_part_times_us(document, part):
    mine = rows(document, part, OURS)
    assert mine
    for r in mine:
        assert r["failure"] is None
        assert r["median"] > 0
        assert r["low"] <= r["median"] <= r["high"]
        assert len(r["seconds"]) >= 1


@pytest.mark.parametrize("tool", [t.name for t in (*CURVATURE, *SURFACES)])
def test_no_tool_is_passed_over_in_silence(document, tool):
    assert tool in document["versions"]
    curvature = {t.name: t.parts or ("hvp", "eigen", "trace", "density") for t in CURVATURE}
    for part in curvature.get(tool, ("surface",)):
        mine = rows(document, part, tool)
        assert mine
        assert all(r["median"] is not None or r["failure"] for r in mine)


def test_products_agree_with_the_reference(document):
    for r in rows(document, "hvp"):
        if r["median"] is not None and r["tool"] != "plain PyTorch":
            assert r["facts"]["deviation"] < 1e-3


def test_eigenpairs_are_judged_by_an_independent_product(document):
    (ours,) = rows(document, "eigen", OURS)
    assert ours["facts"]["worst_residual"] < 1.1e-3
    assert ours["facts"]["deviation"] < 1e-3
    for r in rows(document, "eigen"):
        if r["median"] is not None:
            assert r["facts"]["products"] >= 4
            assert len(r["facts"]["relative_residuals"]) == len(r["facts"]["values"]) == 4


def test_surfaces_agree_with_the_reference_loop(document):
    (ours,) = [r for r in rows(document, "surface", OURS) if r["work"] == "points a second"]
    assert ours["facts"]["deviation"] < 1e-5
    assert ours["facts"]["deviation_from_float64"] < 1e-4


def test_pyhessians_broken_density_is_reported(document):
    for r in rows(document, "density", "PyHessian"):
        assert r["median"] is None
        assert r["failure"]


def test_what_is_missing_is_named(document):
    (landscaper,) = rows(document, "surface", "Landscaper")
    assert "not installed" in landscaper["failure"]
    assert "missing" in table(document)


def test_the_table_has_a_line_for_every_network_and_the_machine(document):
    text = table(document)
    assert text.count("digits MLP") >= 6
    assert document["machine"]["processor"] in text
    assert "nan" not in text
    assert "None" not in text


def test_the_document_is_json_and_the_figure_is_drawn(document, tmp_path):
    again = json.loads(json.dumps(document, allow_nan=False))
    other = again | {"machine": again["machine"] | {"processor": "another"}}
    draw([again, other], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_candidates_take_turns_and_a_failure_does_not_end_the_run():
    calls = []

    def bad():
        calls.append("bad")
        raise ValueError("no\nway")

    found = alternate({"a": lambda: calls.append("a"), "bad": bad, "b": lambda: calls.append("b")}, repeats=2, budget=60)
    assert calls == ["a", "bad", "b", "a", "b", "a", "b"]
    assert len(found["a"].seconds) == 2
    assert found["bad"].failure == "ValueError: no"
    assert np.isnan(found["bad"].median)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """What the timing goes by here."""
    found = FakeClock()
    monkeypatch.setattr(timing, "time", found)
    return found


def test_a_candidate_that_takes_a_third_of_the_time_is_timed_once(clock):
    found = alternate({"long": lambda: clock.sleep(0.4), "short": lambda: None}, repeats=4, budget=1.0)
    assert [len(found[name].seconds) for name in ("long", "short")] == [1, 4]


def test_what_is_measured_again_replaces_its_own_rows_and_no_others(document):
    asked = command.arguments(["--quick", "--networks", "mlp", "--parts", "start", "--keep"])
    *_, found = command.measure(asked, document)
    others = [r for r in document["rows"] if r["part"] != "start"]
    assert found["rows"][: len(others)] == others
    assert {r["tool"] for r in found["rows"][len(others) :]} == {r["tool"] for r in rows(document, "start")}
    assert found["again"] == ["start"]
    assert "Measured again in a later run: start." in table(found)
    assert document["again"] == []
    assert "again" not in table(document)


def test_a_candidate_out_of_time_is_cut_and_keeps_what_it_had(clock):
    def slow():
        meter = Meter(limit=0.02)
        try:
            while True:
                meter.count()
                clock.sleep(0.006)
        except OutOfTime as late:
            late.so_far = meter.products
            raise

    found = alternate({"slow": slow}, repeats=3, budget=60, warm=False)["slow"]
    assert found.cut
    assert found.result == 4, "at 0, 6, 12 and 18 ms, and no more at 24"
    assert found.median == pytest.approx(0.024)
    assert len(found.seconds) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--samples", "1"], "at least 2"), (["--data", "cifar10:x"], "together"), (["--parts", "x"], "invalid")],
)
def test_words_that_make_no_sense_are_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        command.arguments(words)
    assert message in capsys.readouterr().err


def test_nothing_private_of_the_toolkit_is_used():
    for path in Path(command.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"\bls\._(?!_)|objective\._|from landscape[\w.]* import _", text), path
