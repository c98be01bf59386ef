"""The time that is left, on a clock of our own: what a pass really takes is learnt while measures run."""

import itertools
import json
import math
import random

import pytest
import torch
from torch import nn

from landscape.linalg.maximisation import outlook
from landscape.linalg.maximisation.outlook import Outlook, climbs_left
from landscape.machine import progress
from landscape.measures import chosen, forecast, measure_all
from landscape.measures.running import measuring
from landscape.measures.running.remaining_time import UNSURE, Remaining
from landscape.measures.running.time_forecast import Forecast
from landscape.objective import Objective
from landscape.results import Spent

EACH = Spent(0.01, 0.03, 0.05, 0.02)
PASSES = {
    "lambda_max": Spent(forwards=20, sweeps=60, products=60),
    "lambda_min": Spent(),  # shares the run of lambda_max
    "trace": Spent(forwards=80, sweeps=8, products=64),
    "adaptive_trace": Spent(forwards=80, sweeps=8, products=64),
    "keskar": Spent(gradients=22),
    "sam": Spent(gradients=8),
}


class Machine:
    """Passes that take a time of their own, and a clock that they move."""

    def __init__(self, each: Spent) -> None:
        self.each, self.spent, self.now = each, Spent(), 0.0

    def work(self, passes: Spent) -> None:
        self.spent += passes
        self.now += passes.seconds(self.each)


def whole_run(machine: Machine, needed: dict[str, Spent], steps: int = 20):
    """(seconds done, estimate, low, high) at every step; the estimator sees the machine's counters only."""
    remaining = Remaining(PASSES, EACH, lambda: machine.spent, lambda: machine.now)
    seen = [(machine.now, *remaining.left())]
    for name, passes in needed.items():
        remaining.begin(name)
        for _ in range(steps):
            machine.work(Spent(*(n / steps for n in (passes.forwards, passes.gradients, passes.sweeps, passes.products))))
            remaining.look()
            seen.append((machine.now, *remaining.left()))
        remaining.end()
        seen.append((machine.now, *remaining.left()))
    return seen


@pytest.mark.parametrize(
    "slower",
    [(1, 1, 1, 1), (1, 1, 10, 10), (1, 1, 1, 10), (10, 10, 10, 10), (1, 10, 1, 1), (0.1, 0.1, 0.1, 0.1), (5, 2, 10, 10)],
    ids=str,
)
def test_within_a_factor_of_two_after_a_tenth_of_the_work(slower):
    """Products that cost ten times what was forecast, and whatever else: "6 min", then 9,410 s left, is not said again."""
    real = Spent(*(f * x for f, x in zip(slower, (EACH.forwards, EACH.gradients, EACH.sweeps, EACH.products), strict=True)))
    machine = Machine(real)
    seen = whole_run(machine, PASSES)
    total = machine.now
    gradients = slower[1] > slower[3]  # that these alone are slower shows when the first of them is done
    for now, left, low, high in seen:
        assert low <= left <= high
        if 0.1 * total <= now < 0.9 * total and not gradients:
            assert low <= total - now <= high
        if 0.1 * total <= now < 0.85 * total and slower[3] >= 1 and not gradients:
            assert 0.5 <= left / (total - now) <= 2
    # Gradients that alone are slower are learnt with the first of them.
    begun = next(now for now, *_ in seen if now > total - PASSES["sam"].seconds(real))
    assert all(0.8 <= left / (total - now) <= 1.25 for now, left, *_ in seen if begun <= now < 0.99 * total)
    assert seen[-1][1] == 0


def test_passes_beyond_the_forecast_teach_the_rest():
    """Each Lanczos run and each search takes five times as many passes as was forecast."""
    more = {name: Spent(5 * p.forwards, 5 * p.gradients, 5 * p.sweeps, 5 * p.products) for name, p in PASSES.items()}
    machine = Machine(EACH)
    seen = whole_run(machine, more)
    total, first = machine.now, sum(p.seconds(EACH) for p in PASSES.values())
    assert seen[0][1] == pytest.approx(first)
    done = more["lambda_max"].seconds(EACH)
    after = next(left for now, left, *_ in seen if now > done)
    assert after > 1.9 * (first - PASSES["lambda_max"].seconds(EACH)), "one measure's excess is news of the others"
    halfway = next((left, total - now) for now, left, *_ in seen if now > 0.5 * total)
    assert 0.4 < halfway[0] / halfway[1] < 2
    # While a measure overruns, it is never said to be all but done.
    for now, left, *_ in seen:
        if now < 0.95 * total:
            assert left > 0.02 * (total - now)


def test_the_range_is_a_factor_of_two_at_first_and_narrows():
    machine = Machine(EACH)
    seen = whole_run(machine, PASSES)
    (_, left, low, high), (*_, lower, upper) = seen[0], seen[-30]
    assert (left / low, high / left) == pytest.approx((UNSURE, UNSURE))
    assert upper / lower < high / low


@pytest.mark.parametrize("needed", [10, 22, 90])
def test_a_search_without_a_known_end_says_a_range_that_holds_the_next_or_no_time(needed):
    """Not 18 s, 2.3 s, 3.8 s and 20 s, each within a range that leaves out the next."""
    machine = Machine(EACH)
    remaining = Remaining({"keskar": PASSES["keskar"]}, EACH, lambda: machine.spent, lambda: machine.now)
    remaining.begin("keskar")
    said, open_ = [(machine.now, *remaining.left())], []
    for _ in range(needed):
        machine.work(Spent(gradients=1))
        remaining.look()
        open_.append(remaining.open)
        if not remaining.open:
            said.append((machine.now, *remaining.left()))
    for (before, _, low, high), (now, left, *_) in itertools.pairwise(said):
        assert low <= left + now - before <= high
    assert open_ == [n > 0.9 * 22 for n in range(1, needed + 1)]
    remaining.end()
    assert not remaining.open


def test_what_comes_after_a_long_search_is_still_told():
    machine = Machine(EACH)
    passes = {"sam": PASSES["sam"], "lambda_max": PASSES["lambda_max"]}
    remaining = Remaining(passes, EACH, lambda: machine.spent, lambda: machine.now)
    remaining.begin("sam")
    machine.work(Spent(gradients=12))
    remaining.look()
    assert not remaining.open  # the run of Lanczos is most of the time, and known
    assert remaining.left()[0] > PASSES["lambda_max"].seconds(EACH)


def test_time_without_passes_and_passes_without_time():
    machine = Machine(Spent())
    remaining = Remaining(PASSES, Spent(), lambda: machine.spent, lambda: machine.now)
    assert all(x >= 0 for x in remaining.left())
    remaining.begin("unknown")
    machine.now += 3
    remaining.look()
    machine.work(Spent(products=5))
    remaining.end()
    random_ = random.Random(0)
    for name in PASSES:
        remaining.begin(name)
        machine.spent += Spent(forwards=random_.random())
        machine.now += random_.random()
        remaining.end()
    assert remaining.left()[0] == 0


def test_an_objective_whose_products_cost_ten_times_the_forecast(monkeypatch):
    """Through `measure_all` as it runs: the estimates that whoever watches is given, after a tenth of the work."""
    generator = torch.Generator().manual_seed(0)
    data = (torch.randn(40, 5, generator=generator), torch.randint(0, 3, (40,), generator=generator))
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    objective = Objective(model, nn.CrossEntropyLoss(), data)
    names = ["lambda_max", "lambda_min", "trace", "adaptive_trace", "keskar"]
    real = Spent(EACH.forwards, EACH.gradients, 10 * EACH.sweeps, 10 * EACH.products)
    # Passes are forecast as they will be: their number is another matter.
    passes, other = {}, objective.at(objective.theta)
    other.preflight()
    done = [other.spent]

    def seen(name: str, _: object) -> None:
        passes[name] = other.spent - done[-1]
        done.append(other.spent)

    measure_all(other, names, seen=seen)
    plan = Forecast(Spent(), EACH, {n: p.seconds(EACH) for n, p in passes.items()}, passes)
    start = objective.spent

    def clock() -> float:
        return (objective.spent - start).seconds(real)

    monkeypatch.setattr(measuring, "Remaining", lambda passes, each, spent: Remaining(passes, each, spent, clock))
    monkeypatch.setattr(outlook, "_now", clock)
    heard: list[tuple[float, float, float, float]] = []

    class Listener:
        def start(self, label: str, total: int | None) -> int:
            return len(label)

        def advance(self, handle: int, steps: int) -> None: ...
        def finish(self, handle: int) -> None: ...
        def remark(self, text: str) -> None: ...
        def left(self, handle: int, seconds: float, low: float, high: float) -> None:
            heard.append((clock(), seconds, low, high))

    with progress.listening(Listener()):
        measure_all(objective, names, plan=plan)
    total = clock()
    assert total > 4 * plan.total, "the forecast was wrong"
    late = [(left / (total - now), low, high) for now, left, low, high in heard if 0.1 * total < now < 0.9 * total]
    assert len(late) > 10
    assert all(0.5 <= ratio <= 2 for ratio, *_ in late), late


def test_a_long_run_says_what_would_shorten_it():
    data = (torch.randn(500, 2), torch.arange(500) % 2)
    objective = Objective(nn.Linear(2, 2), nn.CrossEntropyLoss(), data)
    each = Spent(0.1, 0.3, 0.5, 0.2)
    plan = Forecast(Spent(), each, {"all": 780.0})
    assert Forecast(Spent(), each, {"trace": 200.0, "keskar": 300.0, "sam": 1.0}).by_measure() == (
        "keskar 5 min, trace 3 min, the others 1.0 s"
    )
    assert Forecast(Spent(), each, {"trace": 200.0}).by_measure() == "trace 3 min"
    fewer, main = plan.shorter(objective, ["lambda_max"])
    assert fewer == "--samples 32 would take about 50 s"  # 780 s * 32 / 500
    own = {"lambda_max": chosen(["lambda_max"])[0], "trace": chosen(["trace"])[0]}
    seconds = sum(cost.seconds(each) for m in own.values() for cost in m.work(objective, m.settings).values())
    assert main == f"--measures lambda_max,trace about {progress.duration(seconds)}"
    assert not Forecast(Spent(), each, {"trace": 20.0}).shorter(objective, ["lambda_max"])[1:]  # no more than half of it saved


def test_a_long_run_offers_traces_to_an_accuracy_where_they_take_less():
    data = (torch.randn(500, 2), torch.arange(500) % 2)
    objective = Objective(nn.Linear(2, 2), nn.CrossEntropyLoss(), data)
    each = Spent(0.1, 0.3, 0.5, 0.2)
    names = ["trace", "adaptive_trace"]

    def seconds(names):
        found = {key: cost for m in chosen(names) for key, cost in m.work(objective, m.settings).items()}  # shared ones once
        return sum(cost.seconds(each) for cost in found.values())

    plan = Forecast(Spent(), each, {"all": seconds(names)})
    to_accuracy = [f"{name}:relative_error=0.05" for name in names]
    assert seconds(to_accuracy) < 0.1 * plan.total  # a linear network needs no product of all samples
    offered = f"--trace-error 0.05 would take about {progress.duration(seconds(to_accuracy))}"
    assert plan.shorter(objective, names)[0] == offered
    assert not any("--trace-error" in words for words in plan.shorter(objective, to_accuracy))
    exact = [f"{name}:exact=yes" for name in names]
    assert not any("--trace-error" in words for words in plan.shorter(objective, exact))


def test_a_trace_to_an_accuracy_is_forecast_with_products_where_it_takes_them():
    data = (torch.randn(500, 2), torch.arange(500) % 2)

    def products(model):
        m = chosen(["trace:relative_error=0.05"])[0]
        objective = Objective(model, nn.CrossEntropyLoss(), data)
        return sum(cost.products for cost in m.work(objective, m.settings).values())

    smooth = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
    assert products(nn.Linear(2, 2)) < 1 < products(smooth) <= 64


def test_nothing_is_heard_without_a_listener_and_chosen_names_are_all_forecast():
    data = (torch.randn(10, 2), torch.arange(10) % 2)
    objective = Objective(nn.Linear(2, 2), nn.CrossEntropyLoss(), data)
    plan = forecast(objective, "all")
    assert list(plan.passes) == [m.name for m in chosen("all")]
    assert measure_all(objective, ["trace"], plan=forecast(objective, ["trace"]))["trace"].defined
    assert json.dumps(str(plan)).count(" to ") == 1


@pytest.fixture(scope="module")
def trained():
    """A network of 1,045 weights on 60 samples, half trained."""
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(60, 20, generator=generator), torch.randint(0, 5, (60,), generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 5))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
    return Objective(model, nn.CrossEntropyLoss(), data)


SEARCHES = ["keskar", "keskar_subspace", "sam", "sam_linf", "adaptive_worst_l2", "adaptive_worst_linf_m:m=20"]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_says_what_is_left_until_its_end(trained, name, monkeypatch):
    """Every climb to come is counted, with its gradients and its forward passes: the time left does not vanish half way."""
    expected: list[tuple[int, tuple[float, float, float]]] = []
    real = Outlook.evaluated

    def evaluated(self: Outlook) -> None:
        real(self)
        expected.append((id(self), self.evaluations()))

    monkeypatch.setattr(Outlook, "evaluated", evaluated)
    heard = list[float]()

    class Listener:
        def start(self, label: str, total: int | None) -> int:
            return 0 if label == "measures" else 1

        def advance(self, handle: int, steps: int) -> None: ...
        def finish(self, handle: int) -> None: ...
        def remark(self, text: str) -> None: ...
        def left(self, handle: int, seconds: float, low: float, high: float) -> None:
            if handle == 0 and expected:
                heard.append(seconds)
                assert 0 <= low <= seconds <= high

    plan = forecast(trained, [name])
    with progress.listening(Listener()):
        found = measure_all(trained, [name], plan=plan)
    assert len(heard) >= len(expected)
    assert not any(math.isnan(x) for x in heard)
    # The forecast before the run, and what the search expects as it goes, of what it then takes.
    spent = next(iter(found.values()))
    assert spent.gradients + spent.forwards < 2.5 * (plan.spent.gradients + plan.spent.forwards) * (3 if "_m" in name else 1)
    for search in {own for own, _ in expected}:
        told = [t for own, t in expected if own == search]
        within = [low <= len(told) - k - 1 <= high for k, (low, _, high) in enumerate(told)]
        assert sum(within[: len(told) // 2]) >= 0.9 * (len(told) // 2), (name, told)


def test_climbs_to_come_are_those_of_exchangeable_climbs():
    """By simulation: the n-th climb is the best so far with probability 1 / n."""
    random_, lengths = random.Random(0), []
    for _ in range(4000):
        values, vain, done = [random_.random() for _ in range(3)], 0, 0
        while vain < 8 and done < 24:
            values.append(random_.random())
            vain, done = 0 if values[-1] == max(values) else vain + 1, done + 1
        lengths.append(done)
    assert climbs_left(0, 0, 3, 8, 24) == pytest.approx(sum(lengths) / len(lengths), rel=0.03)


def test_a_search_inside_a_loop_counts_its_turns_to_come(monkeypatch):
    """The first of five batches took 10 s and needs 2 s more: the other four take as long, 12 s each."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    told: list[tuple[float, float, float]] = []

    class Listener:
        handles = iter(range(9))

        def start(self, label: str, total: int | None) -> int:
            return next(self.handles)

        def advance(self, handle: int, steps: int) -> None: ...
        def finish(self, handle: int) -> None: ...
        def remark(self, text: str) -> None: ...
        def left(self, handle: int, seconds: float, low: float, high: float) -> None: ...

    heard = progress.ticking(lambda: None, lambda *times: told.append(times))
    with progress.listening(Listener()), heard, progress.stage("batches", 5) as turns:
        with progress.stage("maximisation") as inner:
            now[0] = 10.0
            inner.left(2.0, 1.0, 4.0)
        turns(1)
        with progress.stage("maximisation") as inner:
            now[0] = 13.0
            inner.left(math.nan, math.nan, math.nan)
            inner.left(9.0, 9.0, 9.0)
    assert told == [(2.0 + 4 * 12, 1.0 + 4 * 11, 4.0 + 4 * 14), (9.0 + 3 * 12,) * 3]
