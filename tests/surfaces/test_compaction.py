"""Segments of dead processes become one file: at any moment the records are those of all that was written, once each."""

import json
import os
import time

import pytest
from test_journal import dead_pid, line, point, segment

from landscape.surfaces.running import journal_segments
from landscape.surfaces.running.journal import Journal
from landscape.surfaces.running.journal_segments import HOST, is_compacted


@pytest.fixture(scope="module")
def pid() -> int:
    return dead_pid()


def interrupted(folder, pid: int, first: int, last: int, points: int = 1) -> None:
    """Processes that did some points each and died."""
    for i in range(first, last):
        done = [point(f"loss:{points * i + k}", i / 7 + k) for k in range(points)]
        segment(folder, f"{i + 1:04x}-{HOST}-{pid}-aa", {"claim": [d["key"] for d in done]}, *done)


def tidied(folder) -> Journal:
    journal = Journal(folder, "run")
    journal.tidy()
    return journal


def names(folder) -> list[str]:
    return sorted(p.name for p in folder.glob("*.jsonl"))


def test_a_start_reads_few_files_however_often_it_was_interrupted(tmp_path, pid):
    """Neither the number of files nor the bytes of a start grow with the interruptions, but for the points themselves."""
    files, sizes = [], []
    for i in range(400):
        interrupted(tmp_path, pid, i, i + 1)
        journal = tidied(tmp_path)
        assert len(journal.records) == i + 1
        assert journal.problems == []
        files.append(len(names(tmp_path)))
        sizes.append(sum(p.stat().st_size for p in tmp_path.iterdir()))
    assert max(files) < 24
    assert sizes[-1] < 2.5 * sizes[199], "in proportion to the points"
    assert not list(tmp_path.glob(".*")), "and nothing is left beside"
    after = Journal(tmp_path, "run")
    assert after.records == journal.records
    assert after.records["loss:7"] == point("loss:7", 1.0)["record"]


def test_few_segments_and_those_of_living_processes_stay(tmp_path, pid):
    interrupted(tmp_path, pid, 0, 15)
    before = names(tmp_path)
    tidied(tmp_path)
    assert names(tmp_path) == before
    alive = Journal(tmp_path, "run")
    alive.write({"loss:99": point("loss:99", 1.0)["record"]})
    interrupted(tmp_path, pid, 15, 20)
    other = tidied(tmp_path)
    left = names(tmp_path)
    assert sum(map(is_compacted, left)) == 1
    assert len(left) == 2
    assert len(other.records) == 21
    alive.write({"loss:100": point("loss:100", 2.0)["record"]})
    other.refresh()
    assert "loss:100" in other.records
    alive.refresh()
    assert len(alive.records) == 22
    assert alive.problems == other.problems == []


@pytest.mark.parametrize("at", ["write", "first unlink", "later unlink"])
def test_a_kill_at_any_moment_loses_nothing_and_counts_nothing_twice(tmp_path, pid, monkeypatch, at):
    """Also of two values that disagree: a copy of one of them would settle which one counts."""
    interrupted(tmp_path, pid, 0, 20)
    segment(tmp_path, f"00f0-{HOST}-{pid}-bb", point("loss:3", 12345.0))
    reader = Journal(tmp_path, "run")
    known = dict(reader.records)
    assert "loss:3" not in known
    assert len(known) == 19
    calls = []
    real = os.unlink

    def dying(path, *rest, **options):
        if str(path).endswith(".jsonl"):
            calls.append(path)
            if len(calls) == (1 if at == "first unlink" else 7):
                raise KeyboardInterrupt
        return real(path, *rest, **options)

    def refusing(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal_segments, "write", refusing) if at == "write" else patch.setattr(os, "unlink", dying)
        with pytest.raises(KeyboardInterrupt):
            tidied(tmp_path)
    for journal in (Journal(tmp_path, "run"), tidied(tmp_path), Journal(tmp_path, "run")):
        assert dict(journal.records) == known
        assert journal.problems == ["two records of loss:3 disagree: computed again"]
    reader.refresh()
    assert dict(reader.records) == known, "who has read them before reads none again"
    reader.write({"loss:3": point("loss:3", 3 / 7)["record"]})
    assert Journal(tmp_path, "run").records["loss:3"]["values"]["loss"][0] == 3 / 7


def test_two_that_compact_at_once_do_no_harm(tmp_path, pid):
    interrupted(tmp_path, pid, 0, 18)
    one, two = Journal(tmp_path, "run"), Journal(tmp_path, "run")
    copies = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    one.tidy()
    for name in list(copies)[:9]:  # as if the other had been first to list, and last to remove
        (tmp_path / name).write_bytes(copies[name])
    two.tidy()
    for journal in (one, two, Journal(tmp_path, "run")):
        journal.refresh()
        assert len(journal.records) == 18
        assert journal.problems == []


def test_what_is_damaged_is_quarantined_before_and_after(tmp_path, pid):
    interrupted(tmp_path, pid, 0, 20, points=3)
    bad = tmp_path / f"0005-{HOST}-{pid}-aa.jsonl"
    lines = bad.read_bytes().splitlines(keepends=True)
    bad.write_bytes(b"".join([*lines[:3], lines[3].replace(b"1.5", b"1.6"), *lines[4:]]))
    torn = tmp_path / f"0009-{HOST}-{pid}-aa.jsonl"
    torn.write_bytes(torn.read_bytes()[:-9])
    journal = tidied(tmp_path)
    assert len(journal.records) == 58
    assert len(journal.problems) == 2
    assert len(list(tmp_path.glob("quarantine-*"))) == 1
    (whole,) = names(tmp_path)
    again = Journal(tmp_path, "run")
    assert again.problems == []
    assert dict(again.records) == dict(journal.records)
    path = tmp_path / whole
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:10], lines[10][:-6] + b"xxxxx\n", *lines[11:]]))
    damaged = Journal(tmp_path, "run")
    assert len(damaged.records) == 57
    assert damaged.problems == [f"1 line is damaged in {whole}: set aside, computed again"]


def test_a_compacted_file_that_is_lost_is_reported(tmp_path, pid):
    interrupted(tmp_path, pid, 0, 20)
    tidied(tmp_path)
    (whole,) = names(tmp_path)
    Journal(tmp_path, "run").write({"loss:50": point("loss:50", 1.0)["record"]})
    (tmp_path / whole).unlink()
    journal = Journal(tmp_path, "run")
    assert set(journal.records) == {"loss:50"}
    assert journal.problems == [f"segment {whole} is lost: its points are computed again"]


def test_segments_of_another_run_stay_where_they_are(tmp_path, pid):
    interrupted(tmp_path, pid, 0, 20)
    foreign = segment(tmp_path, f"0100-{HOST}-{pid}-cc", point("loss:0", 5.0), run="another")
    tidied(tmp_path)
    assert foreign.exists()
    assert len(names(tmp_path)) == 2


def test_a_process_that_was_taken_for_dead_goes_on_in_another_segment(tmp_path, pid):
    """As between machines that share a folder and cannot see each other's processes."""
    writer = Journal(tmp_path, "run")
    writer.write({"loss:100": point("loss:100", 1.0)["record"]})
    hidden = writer._name.replace(f"-{HOST}-", "-00000000-")
    (tmp_path / writer._name).rename(tmp_path / hidden)
    writer._name = hidden
    writer._names = {hidden}
    os.utime(tmp_path / hidden, (0, time.time() - 10_000))
    interrupted(tmp_path, pid, 0, 20)
    other = tidied(tmp_path)
    assert not (tmp_path / hidden).exists()
    writer.write({"loss:101": point("loss:101", 2.0)["record"]})
    writer.write({"loss:102": point("loss:102", 3.0)["record"]})
    other.refresh()
    writer.refresh()
    for journal in (other, writer, Journal(tmp_path, "run")):
        assert {"loss:100", "loss:101", "loss:102"} < set(journal.records)
        assert len(journal.records) == 23
        assert journal.problems == []


def test_places_that_a_compacted_file_does_not_list_are_damage(tmp_path, pid):
    interrupted(tmp_path, pid, 0, 20)
    tidied(tmp_path)
    (whole,) = names(tmp_path)
    body = json.loads((tmp_path / whole).read_bytes().splitlines()[1].partition(b" ")[2])
    with open(tmp_path / whole, "ab") as file:
        file.write(line(body | {"at": [99, 5]}) + line(body | {"at": [-1, 5]}))
    journal = Journal(tmp_path, "run")
    assert len(journal.records) == 20
    assert journal.problems == [f"2 lines are damaged in {whole}: set aside, computed again"]
