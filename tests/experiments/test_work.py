"""Studies go on where they were interrupted, and their verdicts are what their numbers say."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

import experiments.common.document as document
from experiments.common.document import Claim, claims_held, finite, verdict, write
from experiments.common.networks import DIGITS
from experiments.common.options import Options, options
from experiments.common.work import each


def given(folder, **changes):
    known = {"data": None, "samples": 10, "width": 8, "seeds": (0, 1), "runs": folder, "processes": 2, "device": "cpu"}
    return Options(**known | {"draw": False} | changes)


def counted(item, place):
    """A piece of work that leaves a mark each time it is done, and fails if it is told to."""
    marks = place.runs / f"marks-{item['n']}"
    marks.write_text(marks.read_text() + "x" if marks.exists() else "x")
    if item["n"] == 3 and not (place.runs / "mended").exists():
        raise ValueError("not yet")
    return {"square": item["n"] ** 2}


def test_finished_work_is_not_done_again(tmp_path):
    ours = given(tmp_path, processes=1)
    with pytest.raises(ValueError, match="not yet"):
        each("study", counted, [{"n": n} for n in (1, 2, 3)], ours)
    (tmp_path / "mended").touch()
    done = each("study", counted, [{"n": n} for n in (3, 2, 1, 4)], ours)
    assert [d["square"] for d in done] == [9, 4, 1, 16]
    assert all(d["seconds"] >= 0 for d in done)
    assert (tmp_path / "marks-1").read_text() == "x"
    assert (tmp_path / "marks-3").read_text() == "xx"


def test_runs_of_other_images_are_not_taken(tmp_path):
    for name, seed in (("own", 0), ("other", 1)):
        random = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (20, 3, 32, 32), generator=random).to(torch.uint8)
        labels = torch.arange(20).to(torch.uint8) % 10
        parts = {
            f"{split}_{kind}": t.clone() for split in ("train", "test") for kind, t in (("images", images), ("labels", labels))
        }
        save_file(parts, tmp_path / f"{name}.safetensors")
    own = given(tmp_path / "runs", data=f"cifar10:{tmp_path / 'own.safetensors'}")
    assert each("study", counted, [], own) == each("study", counted, [], own) == []
    with pytest.raises(SystemExit, match="expected the images with which the runs in"):
        each("study", counted, [], given(tmp_path / "runs", data=f"cifar10:{tmp_path / 'other.safetensors'}"))


def test_what_is_judged_again_is_read_from_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(document, "RESULTS", tmp_path)
    monkeypatch.setattr(document, "ROOT", tmp_path)
    items = [{"n": n, "share": 1 / 3} for n in (1, 2)]
    ours = given(tmp_path / "runs", processes=1)
    (tmp_path / "runs").mkdir()
    done = each("study", counted, items, ours)
    judged = verdict([Claim("a", "b", "c", True)], headline="1", scale="small", departures=[])
    write("study", ours, done, {"verdict": judged, "nested": {"runs": done}})
    before = json.loads((tmp_path / "study.json").read_text())["how"]
    again = given(tmp_path / "nowhere", judge=True, processes=7)
    assert each("study", counted, items, again) == done
    assert not (tmp_path / "nowhere").exists()
    write("study", again, [], {"verdict": judged})
    assert json.loads((tmp_path / "study.json").read_text())["how"] == before, "what is judged again was not made again"
    write("study", ours, done, {"verdict": judged, "runs": done})
    with pytest.raises(SystemExit, match="expected the options with which the results were made, found others; run: python"):
        each("study", counted, items, given(tmp_path, judge=True, seeds=(0, 1, 2)))
    with pytest.raises(SystemExit, match="expected all 3 runs in the results of study, found 2"):
        each("study", counted, [*items, {"n": 9}], again)


def test_what_is_extended_does_only_what_is_not_in_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(document, "RESULTS", tmp_path)
    monkeypatch.setattr(document, "ROOT", tmp_path)
    (tmp_path / "more").mkdir()
    items = [{"n": n, "share": 1 / 3} for n in (1, 2)]
    done = [finite({"item": item, "seconds": 1.0, "square": item["n"] ** 2}) for item in items]
    judged = verdict([Claim("a", "b", "c", True)], headline="1", scale="small", departures=[])
    write("study", given(tmp_path, processes=1), done, {"verdict": judged, "runs": done})
    before = json.loads((tmp_path / "study.json").read_text())
    ours = given(tmp_path / "more", processes=1, extend=True)
    more = each("study", counted, [*items, {"n": 4}], ours)
    assert more[:2] == done, "as they are on record"
    assert [path.name for path in (tmp_path / "more").glob("marks-*")] == ["marks-4"]
    for seconds in (2.0, 3.0):  # extended twice, on another machine
        monkeypatch.setattr(document, "_processor", lambda: "another one")
        write("study", ours, [*done, {"seconds": seconds}], {"verdict": judged, "runs": more})
    how = json.loads((tmp_path / "study.json").read_text())["how"]
    assert how["core_seconds"] == round(sum(d["seconds"] for d in done) + 3)
    assert how["machine"] == before["how"]["machine"] + "; runs that were added: another one, 1 process of one thread, cpu"
    with pytest.raises(SystemExit, match=r"found others; run: python .* --extend"):
        each("study", counted, items, given(tmp_path / "more", extend=True, seeds=(0, 1, 2)))


def test_a_question_of_ours_is_told_beside_the_verdict():
    claims = [Claim("a", "b", "c", True), Claim("d", "", "e", False, question=True), Claim("f", "", "g", True, question=True)]
    found = verdict(claims, headline="1", scale="small", departures=[])
    assert found["verdict"] == "reproduced"
    assert claims_held(found) == "1 of 1 claims hold; yes to 1 of 2 questions of ours"


@pytest.mark.parametrize(
    ("holds", "word"),
    [
        ([True, True], "reproduced"),
        ([True, False], "mixed"),
        ([True, None], "mixed"),
        ([False, None], "not reproduced"),
        ([None], "cannot be told"),
    ],
)
def test_a_verdict_is_that_of_its_claims(holds, word):
    claims = [Claim("a", "b", "c", h) for h in holds]
    assert verdict(claims, headline="1", scale="small", departures=[])["verdict"] == word


def test_a_document_says_how_it_was_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(document, "RESULTS", tmp_path)
    monkeypatch.setattr(document, "ROOT", tmp_path)
    found = {
        "verdict": verdict([Claim("a", "b", "c", None)], headline="1", scale="small", departures=["d"]),
        "x": [float("inf"), 1 / 3],
    }
    write("study", given(tmp_path), [{"seconds": 1.4}, {"seconds": 2.0}], found)
    kept = json.loads((tmp_path / "study.json").read_text())
    assert kept["x"] == [None, 0.333333]
    assert kept["how"]["core_seconds"] == 3
    assert kept["how"]["seeds"] == [0, 1]
    assert set(kept["how"]["data"]) == {"digits"}
    assert "cannot be told: a — c" in capsys.readouterr().out


def test_numbers_are_rounded_and_what_is_none_is_null():
    assert finite({"a": (1.23456789, float("nan")), 2: True}) == {"a": [1.23457, None], "2": True}


def test_digits_are_fitted_by_their_recipe():
    assert (DIGITS.data, DIGITS.stop_loss) == ("digits", 0.01)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "0"], "expected --seeds of at least 1, found 0"),
        (["--data", "nowhere"], "expected CIFAR-10 at nowhere, found"),
        (["--larger", "images"], "expected --larger beside --data, found it alone"),
        (["--judge", "--extend"], "expected --judge or --extend, found both"),
    ],
)
def test_a_wrong_option_is_told_in_a_line(arguments, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study", *arguments])
    with pytest.raises(SystemExit) as stop:
        options("what it does")
    assert stop.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_seeds_and_data_are_what_was_asked(monkeypatch, tmp_path):
    (tmp_path / "images").touch()
    monkeypatch.setattr(sys, "argv", ["study", "--seeds", "3", "--first-seed", "10", "--data", str(tmp_path / "images")])
    found = options("what it does", samples=7)
    assert (found.seeds, found.data, found.samples) == ((10, 11, 12), f"cifar10:{tmp_path / 'images'}", 7)
