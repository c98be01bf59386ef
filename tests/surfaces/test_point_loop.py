"""The loop over the points: nobody does what a living process is doing, and nobody waits for one that hangs."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from clock import FakeClock, growth

from landscape.machine import progress
from landscape.surfaces.running.journal import Journal
from landscape.surfaces.running.point_loop import survey


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
    from landscape.surfaces.running.journal import Journal
    journal = Journal(Path(sys.argv[1]), "run")
    journal.claim([f"square:{k}" for k in range(5)])
    print("claimed", flush=True)
    for k in range(int(sys.argv[2])):
        time.sleep(0.2)
        journal.write({f"square:{k}": {"values": {"square": [k**2, None, None]}}})
    print("done", flush=True)
    time.sleep(600)
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


LOOP = importlib.import_module("landscape.surfaces.running.point_loop")  # the package has the function under this name


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """What the loop waits by here: nothing but its own waiting moves it."""
    found = FakeClock()
    monkeypatch.setattr(LOOP, "time", found)
    return found


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a process that works is not taken for one that hangs."""
    monkeypatch.setattr(LOOP, "_PATIENCE", 500.0)


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


@pytest.mark.usefixtures("patient")
def test_what_a_living_process_claimed_is_left_to_it(tmp_path, holder):
    holder(5)
    part = Squares(8)
    survey(part, Journal(tmp_path, "run"))
    assert part.done == [5, 6, 7]
    assert values(tmp_path) == WHOLE


class Rival:
    """Another process's journal, in this one: what it claims it does when `works` is called."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.part = journal, Squares(0)
        self.claimed: list[str] = []

    def claim(self, keys: list[str]) -> None:
        self.journal.claim(keys)
        self.claimed += keys

    def works(self) -> None:
        self.journal.refresh()
        for key in self.claimed:
            if not self.journal.is_claimed(key) and key not in self.journal.records:
                self.journal.write({key: self.part((int(key.partition(":")[2]),))[0]})


@pytest.mark.parametrize("older", [True, False])
def test_of_two_that_claim_at_the_same_instant_the_older_one_does_it(tmp_path, monkeypatch, older):
    first, second = Journal(tmp_path, "run"), Journal(tmp_path, "run")
    own, rival = (first, Rival(second)) if older else (second, Rival(first))
    part, claim = Squares(8), own.claim

    def at_the_same_instant(keys):
        rival.claim(keys)
        claim(keys)

    monkeypatch.setattr(own, "claim", at_the_same_instant)
    survey(part, own, rival.works)
    assert (part.done, rival.part.done) == ((part.order, []) if older else ([], part.order))
    assert values(tmp_path) == WHOLE


class Interrupted(Squares):
    """While it does point 1, of a long stretch, another process claims some of the rest."""

    def __init__(self, rival: Rival, claims: range, before: dict[int, int]) -> None:
        super().__init__(30, before)
        self.rival, self.claims, self.now = rival, claims, 0.0

    def keeps_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a point take 5 ms by the clock that the loop looks at, and nothing else any time."""

        def pause(seconds: float) -> None:
            self.now += seconds

        def read() -> float:
            return self.now

        clock = SimpleNamespace(perf_counter=read, monotonic=read, sleep=pause)
        monkeypatch.setattr(sys.modules["landscape.surfaces.running.point_loop"], "time", clock)

    def __call__(self, unit: tuple[int, ...]) -> list[dict]:
        self.now += 0.005
        if unit == (1,):
            self.rival.claim([f"square:{k}" for k in self.claims])
        return super().__call__(unit)


def test_within_a_stretch_of_work_too(tmp_path, monkeypatch):
    rival = Rival(Journal(tmp_path, "run"))
    part = Interrupted(rival, range(2, 30), {})
    part.keeps_time(monkeypatch)
    survey(part, Journal(tmp_path, "run"), rival.works)
    assert len(part.done) < 2 + 0.05 / 0.005 + 5, "what it did before it looked"
    assert set(part.done) | set(rival.part.done) == set(part.order)
    assert sorted([*part.done, *rival.part.done]) == part.order, "and nothing twice"


def test_what_waits_for_a_point_that_was_left_waits_too(tmp_path, monkeypatch):
    rival = Rival(Journal(tmp_path, "run"))
    part = Interrupted(rival, range(20, 21), dict.fromkeys(range(21, 30), 20))
    part.keeps_time(monkeypatch)
    seen: list[int] = []

    def later() -> None:
        seen.append(len(part.done))
        rival.works()

    survey(part, Journal(tmp_path, "run"), later)
    assert rival.part.done == [20]
    assert part.done == [*range(20), *range(21, 30)]
    assert 20 in seen, "the others were not done in the same stretch"


def test_a_point_is_left_to_the_next_where_the_oldest_dies(tmp_path):
    oldest, second, third = (Journal(tmp_path, "run") for _ in range(3))
    for journal in (oldest, second, third):
        journal.claim(["square:0"])
    for journal in (oldest, second, third):
        journal.refresh()
    assert [j.is_claimed("square:0") for j in (oldest, second, third)] == [False, True, True]
    oldest.close()
    assert [j.is_claimed("square:0") for j in (second, third)] == [False, True]


def test_what_a_dead_process_claimed_is_done_at_once(tmp_path, holder, clock):
    process = holder(0)
    process.kill()
    process.wait()
    part = Squares(8)
    started = clock.now
    survey(part, Journal(tmp_path, "run"))
    assert part.done == part.order
    assert clock.now == started, "without waiting"


def test_what_a_process_that_hangs_claimed_is_done_in_the_end(tmp_path, holder, clock):
    process = holder(5)
    os.kill(process.pid, signal.SIGSTOP)
    part = Squares(8)
    started = clock.now
    survey(part, Journal(tmp_path, "run"))
    assert sorted(part.done) == part.order
    assert part.done[:3] == [5, 6, 7]
    assert 1.0 < clock.now - started < 1.2, "it is waited for once, not for every point"
    os.kill(process.pid, signal.SIGCONT)
    assert process.stdout.readline() == "done\n"
    assert values(tmp_path) == WHOLE, "and what it then writes does no harm"


@pytest.mark.usefixtures("patient")
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


@pytest.mark.slow
def test_a_hundred_thousand_points_take_time_in_proportion():
    assert growth(lambda n: survey(Squares(n), Journal(None, "run")), 8_000, 100_000) < 3


def test_points_that_are_there_are_no_progress(tmp_path):
    """They took no time now: counted as done, they would make the rest look as if it took none either."""

    class Heard:
        def __init__(self) -> None:
            self.total, self.steps = None, []

        def start(self, label: str, total: int | None) -> int:
            self.total = total
            return 0

        def advance(self, handle: int, steps: int) -> None:
            self.steps.append(steps)

        def finish(self, handle: int) -> None:
            pass

        def remark(self, text: str) -> None:
            pass

    first = Journal(tmp_path, "run")
    first.write({f"square:{k}": {"values": {"square": [k**2, None, None]}} for k in range(40)})
    first.close()
    heard = Heard()
    with progress.listening(heard):
        survey(Squares(50), Journal(tmp_path, "run"))
    assert heard.total == sum(heard.steps) == 10
    assert max(heard.steps) < 10, "and not all at once"
