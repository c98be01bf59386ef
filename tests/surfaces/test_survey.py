"""The loop over the points: nobody does what a living process is doing, and nobody waits for one that hangs."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from landscape.surfaces.journal import Journal
from landscape.surfaces.survey import survey


class Squares:
    """Point k is k^2; it waits for `before[k]`."""

    name = "square"

    def __init__(self, n: int, before: dict[int, int] | None = None, seconds: float = 0.0) -> None:
        self.order = list(range(n))
        self.units = [(k,) for k in self.order]
        self.before = before or {}
        self.seconds = seconds
        self.done: list[int] = []

    def wants(self, number: int) -> int | None:
        return self.before.get(number)

    def __call__(self, unit: tuple[int, ...]) -> list[dict]:
        time.sleep(self.seconds)
        self.done += unit
        return [{"values": {"square": [k**2, None, None]}} for k in unit]


HOLDER = """
    import signal, sys, time
    from pathlib import Path
    from landscape.surfaces.journal import Journal
    journal = Journal(Path(sys.argv[1]), "run")
    journal.claim([f"square:{k}" for k in range(5)])
    print("claimed", flush=True)
    for k in range(int(sys.argv[2])):
        time.sleep(0.2)
        journal.write({f"square:{k}": {"values": {"square": [k**2, None, None]}}})
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that claims the points 0 to 4, and does so many of them in its time."""
    processes = []

    def start(points: int) -> subprocess.Popen:
        command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path), str(points)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout.readline() == "claimed\n"
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def values(folder: Path) -> dict[str, int]:
    return {k: r["values"]["square"][0] for k, r in Journal(folder, "run").records.items()}


WHOLE = {f"square:{k}": k**2 for k in range(8)}


def test_every_point_is_done_once_in_its_order():
    part, journal = Squares(1000), Journal(None, "run")
    seen = []
    survey(part, journal, lambda: seen.append(len(journal.records)))
    assert part.done == part.order
    assert seen == sorted(seen)
    assert seen[-1] == 1000
    survey(part, journal)
    assert part.done == part.order


def test_what_a_living_process_claimed_is_left_to_it(tmp_path, holder):
    holder(5)
    part = Squares(8)
    survey(part, Journal(tmp_path, "run"))
    assert part.done == [5, 6, 7]
    assert values(tmp_path) == WHOLE


@pytest.mark.parametrize("older", [True, False])
def test_of_two_that_claim_at_the_same_instant_the_older_one_does_it(tmp_path, monkeypatch, older):
    first, second = Journal(tmp_path, "run"), Journal(tmp_path, "run")
    own, other = (first, second) if older else (second, first)
    part, theirs, claim = Squares(8), Squares(8), own.claim
    claimed = []

    def at_the_same_instant(keys):
        other.claim(keys)
        claim(keys)
        claimed.extend(keys)

    def other_does_its_points():
        other.refresh()
        kept = [int(k.partition(":")[2]) for k in claimed if not other.is_claimed(k, by_older=True) and k not in other.records]
        other.write({f"square:{k}": theirs((k,))[0] for k in kept})

    monkeypatch.setattr(own, "claim", at_the_same_instant)
    survey(part, own, other_does_its_points)
    assert (part.done, theirs.done) == ((part.order, []) if older else ([], part.order))
    assert values(tmp_path) == WHOLE


def test_what_a_dead_process_claimed_is_done_at_once(tmp_path, holder):
    process = holder(0)
    process.kill()
    process.wait()
    part = Squares(8)
    started = time.monotonic()
    survey(part, Journal(tmp_path, "run"))
    assert part.done == part.order
    assert time.monotonic() - started < 0.8, "without waiting"


def test_what_a_process_that_hangs_claimed_is_done_in_the_end(tmp_path, holder):
    process = holder(5)
    os.kill(process.pid, signal.SIGSTOP)
    part = Squares(8)
    started = time.monotonic()
    survey(part, Journal(tmp_path, "run"))
    assert sorted(part.done) == part.order
    assert part.done[:3] == [5, 6, 7]
    assert 1.0 < time.monotonic() - started < 3.0, "it is waited for once, not for every point"
    os.kill(process.pid, signal.SIGCONT)
    time.sleep(1.5)
    assert values(tmp_path) == WHOLE, "and what it then writes does no harm"


def test_points_that_wait_for_what_another_process_does(tmp_path, holder):
    holder(5)
    part = Squares(8, before={5: 4, 6: 5, 7: 0})
    survey(part, Journal(tmp_path, "run"))
    assert sorted(part.done) == [5, 6, 7]
    assert part.done.index(7) == 0, "what its parent has is free before the others"
    assert values(tmp_path) == WHOLE


def test_a_record_that_is_taken_back_is_done_again(tmp_path):
    """Two processes disagree on a point that others wait for."""
    first, second = Journal(tmp_path, "run"), Journal(tmp_path, "run")
    first.write({"square:0": {"values": {"square": [0, None, None]}}})
    part = Squares(8, before=dict.fromkeys(range(1, 8), 0))
    real = part.__call__

    class Disturbed(Squares):
        def __call__(self, unit: tuple[int, ...]) -> list[dict]:
            if unit == (3,) and not self.done.count(3):
                second.write({"square:0": {"values": {"square": [77, None, None]}}})
            self.done += unit
            return real(unit)

    disturbed = Disturbed(8, before=part.before)
    survey(disturbed, Journal(tmp_path, "run"))
    assert disturbed.done.count(0) == 1
    assert values(tmp_path) == WHOLE


def test_a_hundred_thousand_points_take_time_in_proportion():
    def seconds(n: int) -> float:
        started = time.process_time()
        survey(Squares(n), Journal(None, "run"))
        return time.process_time() - started

    seconds(1000)
    assert seconds(80_000) < 8 * 3 * seconds(10_000)
