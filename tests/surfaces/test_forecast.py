"""What a surface will take, and what a budget allows."""

import copy
import re
import time

import pytest
import torch
from cases import CASES
from clock import FakeClock
from torch import nn

from landscape.errors import UsageError
from landscape.objective import Objective
from landscape.surfaces import forecast_surface, line, plane, within
from landscape.surfaces.running import forecast


class Sleeper(nn.Module):
    """Takes a known time a forward pass, and one for each sample, by a clock of the test's own; another in bfloat16."""

    in_bfloat16 = 1.0

    def __init__(self, clock: FakeClock, each_pass: float, each_sample: float = 0.0) -> None:
        super().__init__()
        self.fc, self.clock, self.each_pass, self.each_sample = nn.Linear(3, 2), clock, each_pass, each_sample

    def __deepcopy__(self, memo: dict) -> "Sleeper":
        new = Sleeper(self.clock, self.each_pass, self.each_sample)  # copies look at the same clock
        new.fc = copy.deepcopy(self.fc, memo)
        return new

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        times = self.in_bfloat16 if x.dtype == torch.bfloat16 else 1.0
        self.clock.sleep(times * (self.each_pass + self.each_sample * len(x)))
        return self.fc(x)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """What the forecast goes by here."""
    found = FakeClock()
    monkeypatch.setattr(forecast, "time", found)
    return found


def asleep(clock: FakeClock, each_pass: float, each_sample: float = 0.0, samples: int = 20, at_once: bool = False) -> Objective:
    torch.manual_seed(0)
    x, y = torch.randn(samples, 3), torch.randint(0, 2, (samples,))
    metric = None if at_once else (lambda output, target: output.argmax(1) == target)  # with a user's metric points go alone
    return Objective(Sleeper(clock, each_pass, each_sample), nn.CrossEntropyLoss(), (x, y), batch_size=samples, metric=metric)


def test_a_forecast_is_that_of_the_clock(clock):
    objective = asleep(clock, 0.02)
    found = forecast_surface(objective, 100)
    assert found.points == 100
    assert found.seconds == pytest.approx(100 * 0.02)
    both = forecast_surface(objective, 100, test=asleep(clock, 0.04))
    assert both.seconds == pytest.approx(100 * 0.06)
    assert re.fullmatch(r"100 points at \S+ (ms|s) each: about .+, at most about \d+\.\d GiB", found.line()), found.line()
    assert found.memory > 50 << 20  # torch alone takes more


@pytest.mark.parametrize(("times", "told"), [(2.5, "slower here, 2.5 × the time of a point without --precision"), (0.4, None)])
def test_a_precision_that_is_slower_here_is_said_before_the_start(clock, monkeypatch, times, told):
    monkeypatch.setattr(Sleeper, "in_bfloat16", times)
    found = forecast_surface(asleep(clock, 0.02), 100, precision="bfloat16")
    assert found.beside_full == pytest.approx(times)
    assert found.line().endswith(told or " GiB")
    assert forecast_surface(asleep(clock, 0.02), 100).beside_full == 1.0


def test_a_forecast_knows_that_points_go_at_once(clock):
    objective = asleep(clock, 0.02, at_once=True)
    assert objective.points_at_once == 32
    assert forecast_surface(objective, 100).seconds == pytest.approx(100 / 32 * 0.02)


@pytest.mark.parametrize("curvature", [False, True])
@pytest.mark.parametrize("batchnorm", ["eval", "recalibrate"])
def test_a_forecast_is_within_a_factor_of_the_truth(monkeypatch, batchnorm, curvature):
    """By the time of this process's own work: other work on the machine counts at neither moment."""
    own = FakeClock()
    own.perf_counter = time.process_time
    monkeypatch.setattr(forecast, "time", own)
    model, loss, x, y = CASES[4].make(0)
    objective = Objective(model, loss, (x.repeat(10, 1, 1, 1), y.repeat(10)), dtype="float64")
    objective.preflight()
    predicted = forecast_surface(objective, 25, batchnorm=batchnorm, curvature=curvature).seconds
    started = time.process_time()
    plane(objective, grid=5, span=(-0.2, 0.2), batchnorm=batchnorm, curvature=curvature)
    taken = time.process_time() - started
    assert taken / 20 < predicted < 20 * taken  # 25 points of milliseconds, and what a plane does once besides


class Clock:
    """A point takes a + b n seconds for n samples, of training and test data."""

    def __init__(self, a: float, b: float) -> None:
        self.a, self.b = a, b

    def __call__(self, objective, test, batchnorm) -> float:
        n = objective.samples + (0 if test is None else test.samples)
        return self.a + self.b * n


@pytest.fixture(scope="module")
def large() -> Objective:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(10_000, 2, generator=g)
    return Objective(nn.Linear(2, 2), nn.CrossEntropyLoss(), (x, (x[:, 0] > 0).long()))


ALL = 10_000
# dim, budget in sample evaluations -> grid, samples: the plan gives up samples to 1,024, points to 15 (21), samples to 128,
# points to 7 (11).
PLANS = [
    (2, 51**2 * ALL, 51, ALL),
    (2, 99 * 51**2 * ALL, 51, ALL),
    (2, 51**2 * 5000, 51, 5000),
    (2, 51**2 * 1024, 51, 1024),
    (2, 51**2 * 1023, 49, 1024),
    (2, 20**2 * 1024, 19, 1024),
    (2, 15**2 * 1024, 15, 1024),
    (2, 15**2 * 1023, 15, 1023),
    (2, 15**2 * 128, 15, 128),
    (2, 15**2 * 127, 13, 128),
    (2, 7**2 * 128, 7, 128),
    (1, 101 * ALL, 101, ALL),
    (1, 101 * 3000, 101, 3000),
    (1, 101 * 1023, 99, 1024),
    (1, 21 * 1024, 21, 1024),
    (1, 21 * 200, 21, 200),
    (1, 20 * 128, 19, 128),
    (1, 11 * 128, 11, 128),
]


@pytest.mark.parametrize(("dim", "evaluations", "grid", "samples"), PLANS)
def test_what_a_budget_gives_up_first(monkeypatch, large, dim, evaluations, grid, samples):
    monkeypatch.setattr(forecast, "_point", Clock(0.0, 1e-3))
    assert within(evaluations * 1e-3 / 0.8, dim, large) == (grid, samples)


@pytest.mark.parametrize(("dim", "least"), [(1, 11), (2, 7)])
@pytest.mark.parametrize(("a", "b"), [(0.0, 1e-3), (0.5, 1e-4), (0.01, 0.02)])
def test_a_plan_always_fits_its_budget_and_uses_it(monkeypatch, large, dim, least, a, b):
    monkeypatch.setattr(forecast, "_point", Clock(a, b))
    needed = least**dim * (a + 128 * b) / 0.8
    last = 0
    for factor in (1.001, 1.5, 3, 10, 40, 200, 3000, 1e5):
        grid, samples = within(factor * needed, dim, large)
        assert grid % 2 == 1
        assert 128 <= samples <= ALL
        cost = grid**dim * (a + b * samples)
        assert cost <= 0.8 * factor * needed * (1 + 1e-6)
        assert cost >= last  # more time, more work
        last = cost
    assert (grid, samples) == ({1: 101, 2: 51}[dim], ALL)


@pytest.mark.parametrize("options", [{}, {"grid": 31}, {"grid": 10}, {"samples": 400}, {"grid": 5, "samples": 64}])
@pytest.mark.parametrize("dim", [1, 2])
def test_a_refusal_names_a_budget_that_then_works(monkeypatch, large, dim, options):
    monkeypatch.setattr(forecast, "_point", Clock(0.2, 0.003))
    with pytest.raises(
        UsageError, match=r"expected a budget of at least \d+ s, for \d+ points on each axis and \d+ samples"
    ) as refused:
        within(0.3, dim, large, **options)
    needed = int(re.search(r"pass --budget (\d+)s", str(refused.value)).group(1))
    grid, samples = within(needed, dim, large, **options)
    assert grid == options.get("grid", {1: 11, 2: 7}[dim])
    least = options.get("samples", 128)
    assert f"for {grid} points on each axis and {least} samples" in str(refused.value)
    assert least <= samples <= 1.3 * least  # whole seconds may leave some over
    with pytest.raises(UsageError, match="expected a budget"):
        within(needed - 1.01, dim, large, **options)


def test_what_is_fixed_stays(monkeypatch, large):
    monkeypatch.setattr(forecast, "_point", Clock(0.0, 1e-3))
    assert within(31**2 * 2000 * 1e-3 / 0.8, 2, large, grid=31) == (31, 2000)
    assert within(30**2 * 500 * 1e-3 / 0.8, 2, large, samples=500) == (29, 500)
    assert within(1e9, 2, large, samples=500) == (51, 500)
    assert within(1e9, 1, large, grid=8, samples=20_000) == (8, ALL)  # no more than there are
    small = large.subset(90)
    assert within(51**2 * 90 * 1e-3 / 0.8, 2, small) == (51, 90)
    assert within(31**2 * 90 * 1e-3 / 0.8, 2, small) == (31, 90)


def test_a_plan_sees_what_a_pass_costs_whatever_the_samples(clock):
    """A pass of 5 ms and 10 us a sample: 128 samples take 6.3 ms, not the 1.9 ms that 128 / 1,000 of the whole would be."""
    objective = asleep(clock, 0.005, 1e-5, samples=1000)
    fixed, each = forecast._cost(objective, lambda o: forecast_surface(o, 1).seconds)
    assert fixed == pytest.approx(0.005)
    assert each == pytest.approx(1e-5)


@pytest.mark.parametrize(("there", "evaluations"), [(1_000, 15**2 * 2_200), (10_000, 51**2 * 9_000), (300, 51**2 * 4_300)])
def test_a_plan_counts_the_test_samples_that_there_are(monkeypatch, large, there, evaluations):
    """A point takes n training samples and as many of the test set, as far as it goes."""
    monkeypatch.setattr(forecast, "_point", Clock(0.0, 1e-3))
    grid, samples = within(evaluations * 1e-3 / 0.8, 2, large, test=large.subset(there))
    cost = grid**2 * (samples + min(samples, there))
    assert cost <= evaluations * (1 + 1e-6)
    assert cost > 0.8 * evaluations


@pytest.mark.parametrize("dim", [1, 2])
def test_a_budget_is_held(clock, dim):
    """A real run: the points, and all that a surface does once, in the time of forward passes."""
    objective = asleep(clock, 0.004, 2e-5, samples=600)
    budget = 1.5
    grid, samples = within(budget, dim, objective, random_axes=True)
    assert samples < 600 or grid < {1: 101, 2: 51}[dim]
    part = objective.subset(samples)
    started = clock.now
    found = line(part, grid=grid) if dim == 1 else plane(part, grid=grid)
    assert clock.now - started <= budget
    assert found.complete
    assert found.check.centre_is_exact
