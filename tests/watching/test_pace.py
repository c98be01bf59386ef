"""When a watched run is checked, on a clock that the test moves: what a budget leaves, and that its beginning is measured."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from landscape.errors import UsageError
from landscape.watching import pace as module
from landscape.watching.pace import Pace
from tests.clock import FakeClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@dataclass
class Run:
    """A training run of one second a step, whose first check costs more than the others."""

    clock: FakeClock
    budget: float
    cold: float = 20.0
    warm: float = 1.0
    prepared: float = 10.0
    every: int = 10
    told: int | None = None
    step_seconds: Callable[[int], float] = lambda step: 1.0
    second: float | None = None  # seconds of the second check, if it is not as long as the later ones
    steps: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)  # after every step
    promised: list[tuple[int, int]] = field(default_factory=list)  # step of a check, and of the next one as it was foretold

    def train(self, steps: int) -> "Run":
        pace = Pace(self.every, self.budget, self.told)
        self.clock.sleep(self.prepared)
        pace.paid(self.prepared)
        for step in range(steps):
            self.clock.sleep(self.step_seconds(step))
            if pace.due(step):
                seconds = self.warm if self.steps else self.cold
                if len(self.steps) == 1 and self.second is not None:
                    seconds = self.second
                self.clock.sleep(seconds)
                pace.checked(step, seconds)
                self.steps.append(step)
                self.promised.append((step, step + pace.every))
            self.shares.append(pace.spent / pace.total)
        return self


@pytest.mark.parametrize("warm", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("budget", [0.02, 0.05, 0.3])
@pytest.mark.parametrize("length", [2_000, 10_000])
def test_a_run_whose_length_is_known_ends_within_its_budget_and_is_measured_from_the_beginning(clock, length, budget, warm):
    run = Run(clock, budget, warm=warm, told=length).train(length)
    whole = length / (1 - budget)
    left = budget * whole - 30
    if left < warm:
        assert run.steps == [0], "the first check is all that the budget pays for"
        return
    assert run.shares[-1] <= budget
    gaps = np.diff(run.steps)
    assert run.steps[1] == 10, "the beginning is measured, although the start is not yet paid for"
    possible = min(left / warm, length / 10)
    assert 0.6 * possible <= len(gaps) <= possible
    if len(gaps) > 20 and gaps.max() > 10:
        thirds = [np.sum(np.array(run.steps) < share * length) / len(run.steps) for share in (0.1, 0.5)]
        assert thirds[0] > 0.15
        assert thirds[1] > 0.55
        assert run.steps[-1] > 0.8 * length, "and the end is"


def test_checks_thin_out(clock):
    run = Run(clock, 0.05, told=10_000).train(10_000)
    gaps = np.diff(run.steps)
    assert np.all(np.diff(gaps) >= -3), "they lie further and further apart, up to whole steps"
    assert gaps.max() < 8 * np.median(gaps)


@pytest.mark.parametrize("warm", [0.1, 1.0, 7.0, 25.0])
@pytest.mark.parametrize("budget", [0.02, 0.05, 0.3])
def test_a_run_of_unknown_length_keeps_to_its_budget_from_twice_its_start_on(clock, budget, warm):
    run = Run(clock, budget, warm=warm).train(20_000)
    start = 30.0
    times = np.cumsum(np.ones(20_000)) + start
    later = times >= 2 * start / budget
    assert later.any()
    assert max(np.array(run.shares)[later]) <= budget * (1 + 1e-9)
    assert run.shares[-1] > 0.75 * budget or max(np.diff(run.steps)[-9:]) == 10, "and makes use of it"
    early = [step for step in run.steps if 0 < step < (start + warm) / budget - start]  # when the start is not yet paid for
    assert len(early) >= min(3, int(start / warm)), "but its beginning is measured"
    assert run.steps[1] == 10


def test_first_steps_that_are_slow_are_not_taken_for_the_pace_of_the_run(clock):
    """Compiling takes a minute in the first step: the budget of the whole run is not told by it."""
    run = Run(clock, 0.05, told=3_000, step_seconds=lambda step: 60.0 if step == 1 else 1.0).train(3_000)
    assert run.shares[-1] <= 0.05
    assert 10 <= run.steps[1] <= 30


@pytest.mark.parametrize("faster", [3, 10])
@pytest.mark.parametrize("budget", [0.05, 0.3])
def test_steps_that_become_faster_end_a_run_above_its_budget_within_the_stated_bound(clock, budget, faster):
    """What was spent was a share of a longer run; with what is known then no other check is made."""
    middle, warm = 5_000, 20 * budget
    run = Run(clock, budget, warm=warm, told=10_000, step_seconds=lambda step: 1.0 if step < middle else 1.0 / faster)
    run.train(10_000)
    assert budget < run.shares[-1] <= faster * budget / (1 + (faster - 1) * budget)
    spent = 30 + warm * sum(step < middle for step in run.steps[1:])
    whole = middle + middle / faster
    assert run.shares[-1] <= max(budget, spent / (whole + spent)) + warm / whole, "by what was spent before, and a check"


@pytest.mark.parametrize("second", [2.0, 60.0, 200.0])
def test_a_check_that_takes_long_puts_a_run_of_unknown_length_over_its_budget_by_less_than_its_time(clock, second):
    run = Run(clock, 0.05, second=second).train(20_000)
    times = np.arange(1.0, 20_001)  # of training alone
    spent = np.array(run.shares) * times / (1 - np.array(run.shares))
    later = times + spent >= 2 * 30 / 0.05
    over = spent[later] - 0.05 * (times + spent)[later]
    assert max(over) < second
    assert (max(over) > 1e-9) == (second > 20), "a check that is expected does not"
    (first_over,) = np.nonzero(later & (spent > 0.05 * (times + spent) + 1e-9))
    assert not set(first_over[1:]) & set(run.steps), "no other check is made before it is paid for"
    assert run.shares[-1] <= 0.05


@pytest.mark.parametrize("told", [None, 5_000])
def test_the_next_check_comes_when_it_is_foretold(clock, told):
    run = Run(clock, 0.05, told=told).train(5_000)
    after = dict(zip(run.steps, run.steps[1:], strict=False))
    checked = [(after[step], next_) for step, next_ in run.promised[1:] if step in after]
    assert len(checked) > 20
    assert all(abs(found - next_) <= 1 for found, next_ in checked)


def test_a_run_that_goes_on_beyond_the_steps_that_were_told_keeps_to_its_budget(clock):
    run = Run(clock, 0.05, told=2_000).train(8_000)
    assert max(run.shares[2_000:]) <= 0.05
    assert sum(step > 2_000 for step in run.steps) > 100


def test_without_a_budget_every_check_is_made_however_long_it_takes(clock):
    pace, found = Pace(7, None, 100), []
    for step in range(30):
        if pace.due(step):
            pace.checked(step, 50.0)
            found.append(step)
    assert found == [0, 7, 14, 21, 28]
    assert pace.every == 7


@pytest.mark.parametrize("steps", [0, -5, 2.5, True, math.inf])
def test_a_number_of_steps_that_is_none_is_refused(steps):
    with pytest.raises(UsageError, match="expected steps as 1 step or more"):
        Pace(10, 0.05, steps)


def test_numbers_of_steps_may_be_numpys():
    pace = Pace(np.int64(10), 0.05, np.int64(30))
    assert (type(pace.asked), type(pace.steps)) == (int, int)
    with pytest.raises(UsageError, match="expected every as 1 step or more"):
        Pace(np.bool_(True), None)
