"""The journal: whole lines or none that count, and whatever is damaged is set aside, reported and done again."""

import json
import math
import os
import subprocess
import sys
import tracemalloc
import zlib

import pytest
from clock import growth

from landscape.errors import UsageError
from landscape.machine.json_values import number_or_nan
from landscape.surfaces.running.journal import Journal
from landscape.surfaces.running.point_records import encoded


def line(content: dict) -> bytes:
    """A line as the format has it, made by other means."""
    body = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
    return f"{zlib.crc32(body):08x} ".encode() + body + b"\n"


def segment(folder, name: str, *contents: dict, run: str = "run", after: tuple[str, ...] = ()):
    """A segment of another process."""
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(map(line, [{"open": run, "after": list(after)}, *contents])))
    return path


def point(key: str, value: float) -> dict:
    return {"key": key, "record": {"values": {"loss": [value, None, None]}}}


def dead_pid() -> int:
    """A process that is certainly over."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_is_written_is_read_by_others_at_once(tmp_path):
    one, other = Journal(tmp_path, "run"), Journal(tmp_path, "run")
    record = {"values": {"loss": [0.1 + 0.2, 1e-300, None], "accuracy": [encoded(math.inf), encoded(math.nan), None]}}
    one.write({"loss:0": record})
    assert other.records == {}
    other.refresh()
    assert other.records == one.records == {"loss:0": record}
    assert number_or_nan(other.records["loss:0"]["values"]["accuracy"][0]) == math.inf
    assert math.isnan(number_or_nan("nan"))
    assert math.isnan(number_or_nan(None))
    later = Journal(tmp_path, "run")
    assert later.records == one.records
    assert later.problems == []
    assert len(list(tmp_path.glob("*.jsonl"))) == 1, "a process that writes nothing leaves nothing"


def test_every_line_is_one_write(tmp_path, monkeypatch):
    calls = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: (calls.append(content), real(fd, content))[1])
    journal = Journal(tmp_path, "run")
    journal.claim(["loss:0"])
    journal.write({"loss:0": {"values": {}}})
    assert len(calls) == 3
    assert all(c.endswith(b"\n") and c.count(b"\n") == 1 for c in calls)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_tail_counts_for_nothing_and_is_reported(tmp_path, cut):
    path = segment(tmp_path, f"1-0-{dead_pid()}-aa", point("loss:0", 1.0), point("loss:1", 2.0))
    path.write_bytes(path.read_bytes()[:-cut])
    os.utime(path, (0, 0))
    journal = Journal(tmp_path, "run")
    assert set(journal.records) == {"loss:0"}
    assert any("torn" in p for p in journal.problems)


def test_a_damaged_line_is_quarantined_and_the_rest_counts(tmp_path):
    path = segment(tmp_path, "1-0-1-aa", point("loss:0", 1.0), point("loss:1", 2.0), point("loss:2", 3.0))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"2.0", b"2.1")
    path.write_bytes(b"".join(lines))
    before = path.read_bytes()
    journal = Journal(tmp_path, "run")
    assert set(journal.records) == {"loss:0", "loss:2"}
    assert any("1 line is damaged" in p for p in journal.problems)
    kept = list(tmp_path.glob("quarantine-*"))
    assert len(kept) == 1
    assert kept[0].read_bytes() == lines[2]
    assert path.read_bytes() == before, "what others wrote is never changed"


@pytest.mark.parametrize("junk", [b"\x00\xff\xfe\n", b"not a line\n", b"deadbeef {}\n", b"\n", line([1, 2]), line({"what": 1})])  # type: ignore[arg-type]
def test_junk_in_the_middle_is_survived(tmp_path, junk):
    path = segment(tmp_path, "1-0-1-aa", point("loss:0", 1.0))
    path.write_bytes(path.read_bytes() + junk + line(point("loss:1", 2.0)))
    journal = Journal(tmp_path, "run")
    assert set(journal.records) == {"loss:0", "loss:1"}
    assert any("damaged" in p for p in journal.problems)


def test_a_lost_segment_is_reported(tmp_path):
    segment(tmp_path, "1-0-1-aa", point("loss:0", 1.0))
    segment(tmp_path, "2-0-1-bb", point("loss:1", 1.0), after=("1-0-1-aa.jsonl",))
    assert Journal(tmp_path, "run").problems == []
    (tmp_path / "1-0-1-aa.jsonl").unlink()
    journal = Journal(tmp_path, "run")
    assert set(journal.records) == {"loss:1"}
    assert journal.problems == ["segment 1-0-1-aa.jsonl is lost: its points are computed again"]


def test_disagreeing_records_count_for_nothing_until_two_agree(tmp_path):
    segment(tmp_path, "1-0-1-aa", point("loss:0", 1.0))
    segment(tmp_path, "2-0-1-bb", point("loss:0", 1.0000000000000002))
    journal = Journal(tmp_path, "run")
    assert journal.records == {}
    assert journal.problems == ["two records of loss:0 disagree: computed again"]
    journal.write({"loss:0": point("loss:0", 1.0)["record"]})
    assert journal.records["loss:0"]["values"]["loss"][0] == 1.0
    assert Journal(tmp_path, "run").records == journal.records, "and so for everybody after"


def test_what_never_agrees_is_failed(tmp_path):
    journal = Journal(tmp_path, "run")
    for i in range(5):
        journal.write({"loss:0": point("loss:0", float(i))["record"]})
    assert "not reproducible: 5 different values" in journal.records["loss:0"]["failed"]


def test_equal_records_of_two_processes_are_one(tmp_path):
    segment(tmp_path, "1-0-1-aa", point("loss:0", 1.0))
    segment(tmp_path, "2-0-1-bb", point("loss:0", 1.0))
    journal = Journal(tmp_path, "run")
    assert set(journal.records) == {"loss:0"}
    assert journal.problems == []


def test_a_segment_of_another_run_is_set_aside(tmp_path):
    segment(tmp_path, "1-0-1-aa", point("loss:0", 1.0), run="other")
    journal = Journal(tmp_path, "run")
    assert journal.records == {}
    assert any("another run" in p for p in journal.problems)


def test_a_claim_lives_as_long_as_its_owner(tmp_path):
    alive, after = Journal(tmp_path, "run"), Journal(tmp_path, "run")
    alive.claim(["loss:0", "loss:1"])
    after.refresh()
    assert after.is_claimed("loss:0")
    alive.write({"loss:0": point("loss:0", 1.0)["record"]})
    after.refresh()
    assert not after.is_claimed("loss:0"), "done is more than claimed"
    assert after.is_claimed("loss:1")
    host = alive._name.split("-")[1]
    segment(tmp_path, f"1-{host}-{dead_pid()}-aa", {"claim": ["loss:2"]})
    segment(tmp_path, "1-ffffffff-1-aa", {"claim": ["loss:3"]})
    last = Journal(tmp_path, "run")
    assert not last.is_claimed("loss:2"), "its process is dead"
    assert last.is_claimed("loss:3"), "on another machine, and just written"
    os.utime(tmp_path / "1-ffffffff-1-aa.jsonl", (0, 0))
    assert not last.is_claimed("loss:3"), "on another machine, and silent for long"


def test_what_failed_elsewhere_is_tried_again_once_here(tmp_path):
    segment(tmp_path, "1-0-1-aa", {"key": "loss:0", "record": {"failed": "out of memory"}})
    journal = Journal(tmp_path, "run")
    assert "loss:0" not in journal.records
    journal.write({"loss:0": {"failed": "out of memory"}})
    assert journal.records["loss:0"] == {"failed": "out of memory"}
    journal.write({"loss:0": point("loss:0", 1.0)["record"]})
    assert "values" in journal.records["loss:0"]


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    journal = Journal(tmp_path, "run")
    journal.write({"loss:0": {"values": {}}})
    monkeypatch.setattr(os, "write", lambda fd, content: 3)
    with pytest.raises(UsageError, match="found a disk that is full; free some space and run the same command again"):
        journal.write({"loss:1": {"values": {}}})


def test_in_memory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal(None, "run")
    journal.claim(["loss:0"])
    journal.write({"loss:0": {"values": {}}})
    journal.refresh()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_is_set_aside_once(tmp_path):
    (tmp_path / "1-0-1-aa.jsonl").mkdir()
    (tmp_path / "2-0-1-bb.jsonl").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "3-0-1-cc.jsonl")
    segment(tmp_path, "4-0-1-dd", point("loss:0", 1.0))
    journal = Journal(tmp_path, "run")
    assert set(journal.records) == {"loss:0"}
    assert journal.problems == [f"{n} is no file: set aside" for n in ("1-0-1-aa.jsonl", "3-0-1-cc.jsonl")]
    journal.refresh()
    assert len(journal.problems) == 2


def test_a_segment_that_does_not_say_whose_it_is_counts_for_nothing(tmp_path):
    path = segment(tmp_path, "1-0-1-aa", point("loss:0", 1.0))
    path.write_bytes(b"x" + path.read_bytes())
    journal = Journal(tmp_path, "run")
    assert journal.records == {}
    assert journal.problems == ["1-0-1-aa.jsonl does not say which run it is of: set aside"]


def test_a_folder_that_is_none_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"expected to write .*file', found: File exists"):
        Journal(tmp_path / "file", "run")
    journal = Journal(tmp_path / "journal", "run")
    (tmp_path / "journal").rmdir()
    with pytest.raises(UsageError, match="found: No such file or directory"):
        journal.write({"loss:0": {"values": {}}})
    with pytest.raises(UsageError, match=r"expected a journal in .*, found: No such file"):
        journal.refresh()


def test_a_claim_of_an_earlier_process_with_our_number_is_void(tmp_path):
    """As in a container, whose processes have the same numbers every time."""
    with_host = Journal(tmp_path, "run")._name.split("-")[1]
    segment(tmp_path, f"1-{with_host}-{os.getpid()}-aa", {"claim": ["loss:2"]})
    assert not Journal(tmp_path, "run").is_claimed("loss:2")
    ended = Journal(tmp_path, "run")
    ended.claim(["loss:3"])
    assert Journal(tmp_path, "run").is_claimed("loss:3")
    ended.close()
    assert not Journal(tmp_path, "run").is_claimed("loss:3")


@pytest.mark.slow
def test_opening_takes_time_and_memory_in_proportion(tmp_path):
    """A million points, the most that the command line allows, open in a gigabyte: measured on a tenth of it."""
    values = {n: [i / 7 for i in (1, 2, 3)] for n in ("accuracy", "loss", "test_accuracy", "test_loss")}
    for n in (10_000, 100_000):
        folder = tmp_path / str(n)
        folder.mkdir()
        segment(folder, "1-0-1-aa", *({"key": f"loss:{i}", "record": {"values": values}} for i in range(n)))
        tracemalloc.start()
        journal = Journal(folder, "run")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(journal.records) == n
        assert peak < 1000 * n + 1_000_000
    assert growth(lambda n: Journal(tmp_path / str(n), "run"), 10_000, 100_000) < 3
