"""A watch leaves the training as it is, keeps to its budget, and measures what dense references measure."""

import copy
import json
import random
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector
from torch.utils.data import DataLoader, TensorDataset

import landscape as ls
from landscape.errors import UsageError
from landscape.objective import Objective
from landscape.results import Check, Estimate, WatchHistory
from landscape.watching import Watch, pace
from tests.clock import FakeClock
from tests.reference import dense_hessian

ALL = [
    "lambda_max",
    "preconditioned_lambda_max",
    "trace",
    "layer_traces",
    "critical_sharpness",
    "gradient_norm",
    "weight_curvature",
]


def network(seed: int = 0) -> nn.Module:
    """Dropout draws random numbers and BatchNorm keeps statistics: both would show a watch that meddles."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    net[4].bias.requires_grad_(False)
    return net


def data(seed: int = 1, n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def trained(watched: bool, steps: int = 12) -> dict[str, object]:
    """Everything that a training run leaves behind; its order of samples and its noise come from the global generators."""
    random.seed(3)
    np.random.seed(4)  # noqa: NPY002 - the global state is what a watch must leave alone
    net, loss, (x, y) = network(), nn.CrossEntropyLoss(), data()
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.01)
    watch = Watch(net, loss, (x, y), every=3, measures=ALL, optimizer=optimizer) if watched else None
    seen: list[object] = []
    for step in range(steps):
        net.train(step % 5 != 4)  # now and then in eval mode, as after an evaluation
        rows = torch.randperm(len(x))[:16]
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        noisy = x[rows] + 0.01 * random.random() + 0.01 * float(np.random.rand())  # noqa: NPY002 - as above
        loss(net(noisy), y[rows]).backward()
        optimizer.step()
        if watch is not None:
            watch(step)
        seen += [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()]  # noqa: NPY002 - as above
        seen += [None if p.grad is None else p.grad.clone() for p in net.parameters()]
        seen += [m.training for m in net.modules()] + [p.requires_grad for p in net.parameters()]
        seen += [torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype()]
    if watch is not None:
        assert len(watch.history) == 4
        assert all(np.isfinite(watch.history.values(name)[1:]).all() for name in watch.history.names)
    state = [t.clone() for t in net.state_dict().values()]
    return {"weights": state, "optimizer": optimizer.state_dict(), "seen": seen, "hooks": [len(vars(m)) for m in net.modules()]}


def same(a: object, b: object) -> bool:
    """Equal to the bit, inside lists and dictionaries too."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_watched_run_is_the_same_run_to_the_bit():
    plain, watched = trained(False), trained(True)
    for part in plain:
        assert same(plain[part], watched[part]), part


def test_the_comparison_sees_a_random_number_that_a_watch_would_draw():
    plain = trained(False)
    other = copy.deepcopy(plain)
    other["seen"][0] = other["seen"][0].clone()  # type: ignore[index]
    other["seen"][0][9] += 1  # type: ignore[index]
    assert not same(plain["seen"], other["seen"])


def test_every_check_equals_a_dense_reference_at_its_weights():
    net, loss, (x, y) = network(2).double(), nn.CrossEntropyLoss(), data(3)
    net.requires_grad_(True)
    x = x.double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    watch = Watch(net, loss, (x, y), every=4, measures=["lambda_max", "trace"], tol=1e-8, probes=64, dtype="float64")
    hessians = {}
    for step in range(9):
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
        if watch(step) is not None:
            hessians[step] = dense_hessian(net, loss, x, y)
    history = watch.history
    assert history.steps.tolist() == [0, 4, 8]
    tops = [np.linalg.eigvalsh(h)[-1] for h in hessians.values()]
    np.testing.assert_allclose(history.values("lambda_max"), tops, rtol=1e-8)
    traces = np.array([np.trace(h) for h in hessians.values()])
    assert (np.abs(history.values("trace") - traces) < 2 * history.errors("trace")).all()
    assert len({round(t, 6) for t in tops}) == 3, "the weights moved"


def test_traces_of_layers_add_up_and_later_eigenvalues_start_from_the_last():
    net, loss, batch = network(4), nn.CrossEntropyLoss(), data(5, 200)
    watch = Watch(net, loss, batch, every=1, measures=["lambda_max", "trace", "layer_traces"], tol=1e-4)
    first, second = watch(0), watch(1)
    assert first is not None
    assert second is not None
    assert first.measures["lambda_max"].n > second.measures["lambda_max"].n
    layers = [e.value for name, e in first.measures.items() if name.startswith("trace/")]
    assert len(layers) == 4
    assert sum(layers) == pytest.approx(first.measures["trace"].value, rel=1e-6)


def test_batch_statistics_are_those_of_training():
    net, loss, (x, y) = network(6).double(), nn.CrossEntropyLoss(), data(7)
    net[3].p = 0.0
    watch = Watch(net, loss, (x.double(), y), measures=["gradient_norm"], batch_statistics=True, dtype="float64")
    loss(net.train()(x.double()), y).backward()
    expected = torch.cat([p.grad.flatten() for p in net.parameters() if p.requires_grad]).norm()
    check = watch(0)
    assert check is not None
    assert check.measures["gradient_norm"].value == pytest.approx(float(expected), rel=1e-9)


def test_a_preconditioner_of_training_beside_statistics_of_eval_mode_is_remarked():
    """Adam never divides by less than eps what in training has no gradient: in eval mode it has curvature all the same."""
    net, loss, (x, y) = network(9), nn.CrossEntropyLoss(), data()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
    watches = [
        Watch(net, loss, (x, y), measures=["preconditioned_lambda_max"], optimizer=optimizer, batch_statistics=own)
        for own in (False, True)
    ]
    tops = [watch(0).measures["preconditioned_lambda_max"].value for watch in watches]
    assert tops[0] > 1000 * tops[1]
    assert ["batch_statistics=True" in str(watch.history) for watch in watches] == [True, False]


class _Slow:
    """The real products, each of which takes a second on the fake clock."""

    def __init__(self, clock: FakeClock, hvp: object) -> None:
        self.clock, self.hvp = clock, hvp

    def __get__(self, objective: Objective, kind: type) -> object:
        def product(v: torch.Tensor) -> torch.Tensor:
            self.clock.sleep(len(v.reshape(-1, objective.dim)))
            return self.hvp(objective, v)

        return product


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.setattr("landscape.watching.watcher.time", clock)
    monkeypatch.setattr(Objective, "hvp", _Slow(clock, Objective.hvp))
    return clock


@pytest.mark.parametrize("budget", [0.05, 0.3])
def test_a_budget_is_kept_by_checking_less_often(clock: FakeClock, budget: float):
    net, loss, (x, y) = network(), nn.CrossEntropyLoss(), data()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    watch = Watch(net, loss, (x, y), every=2, budget=budget)
    for step in range(round(120 / budget)):
        optimizer.zero_grad()
        if step % 40 == 0:
            loss(net(x), y).backward()
            optimizer.step()
        clock.sleep(1.0)  # a step
        check = watch(step)
        if step == 0:
            kept_from = 2 * watch.history.seconds / budget
        if check is not None and watch.history.total > kept_from:
            assert watch.history.share <= 1.05 * budget  # a check may take longer than those before
    history = watch.history
    assert 0.8 * budget < history.share <= 1.02 * budget
    assert history.steps[1] == 2, "the beginning is measured"
    assert history.seconds == pytest.approx(sum(c.seconds for c in history.checks))
    assert history.every > 2
    gaps = np.diff(history.steps)[-5:]
    assert abs(np.median(gaps) / history.every - 1) < 0.35
    assert f"of the {100 * budget:g} % allowed" in str(history)


def test_a_run_of_known_length_ends_within_its_budget(clock: FakeClock):
    net, batch = network(), data()
    watch = Watch(net, nn.CrossEntropyLoss(), batch, every=2, budget=0.1, steps=1500)
    for step in range(1500):
        clock.sleep(1.0)
        watch(step)
    assert watch.history.share <= 0.1
    assert watch.history.steps[1] == 2
    assert len(watch.history) > 8
    assert watch.history.gaps == ()


@pytest.mark.parametrize("budget", [None, 0.3])
def test_the_time_of_a_run_ends_with_its_last_step_and_not_when_its_history_is_read(clock: FakeClock, budget: float | None):
    watch = Watch(network(), nn.CrossEntropyLoss(), data(), every=7, budget=budget, log=lambda step, row: clock.sleep(0.5))
    clock.sleep(3.0)  # the data are prepared
    for step in range(20):
        clock.sleep(1.0)
        watch(step)
    assert watch.history.steps[-1] < 19, "the last step has no check, and counts"
    first = watch.history
    assert first.total == pytest.approx(3 + 20 + first.seconds)
    clock.sleep(1000.0)
    later = watch.history
    assert (later.total, later.seconds, later.share) == (first.total, first.seconds, first.share)
    assert later.time_line() == first.time_line()
    assert later.to_json() == first.to_json()
    clock.sleep(5.0)
    watch(20)  # training goes on: what came between was part of it
    assert watch.history.total > 1000


def test_a_run_whose_budget_pays_for_the_first_check_alone_says_so_and_what_helps(clock: FakeClock):
    watch = Watch(network(), nn.CrossEntropyLoss(), data(), every=2, budget=0.05, steps=50)
    for step in range(50):
        clock.sleep(1.0)
        watch(step)
        assert ("no check but the first" in str(watch.history)) == (step >= 2), "once another was due"
    history = watch.history
    assert len(history) == 1
    allowed = 0.05 * 50 / 0.95
    assert history.seconds > allowed
    told = f"5 % of its 50 steps are about {allowed:.3g} s, the start with the first check took {history.seconds:.3g} s"
    assert told in " ".join(str(history).split())
    assert "a larger budget, fewer samples in the probe batch or cheaper measures" in " ".join(str(history).split())
    ample = Watch(network(), nn.CrossEntropyLoss(), data(), every=2, budget=0.5, steps=50)
    for step in range(50):
        clock.sleep(1.0)
        ample(step)
    assert len(ample.history) > 1
    assert "no check but the first" not in str(ample.history)


@pytest.mark.parametrize("built_inside", [False, True])
def test_a_check_inside_inference_mode_measures_what_one_outside_does(built_inside: bool):
    net, loss, batch = network(), nn.CrossEntropyLoss(), data()
    outside = Watch(net, loss, batch, every=1, measures=["lambda_max", "trace"])(0)
    watch = Watch(net, loss, batch, every=1, measures=["lambda_max", "trace"])
    with torch.inference_mode():
        if built_inside:
            watch = Watch(net, loss, batch, every=1, measures=["lambda_max", "trace"])
        net[1].running_mean = net[1].running_mean.clone()  # a tensor of inference mode
        inside = watch(0)
        assert torch.is_inference_mode_enabled()
    assert inside.to_json() | {"seconds": 0} == outside.to_json() | {"seconds": 0}


def test_without_a_budget_every_is_every(clock: FakeClock):
    net, batch = network(), data()
    watch = Watch(net, nn.CrossEntropyLoss(), batch, every=7)
    for step in range(20):
        watch(step)
    assert watch(19) is None
    assert watch.history.steps.tolist() == [0, 7, 14]
    assert watch.history.every == 7
    assert "went back" not in str(watch.history)


def test_a_counter_that_starts_again_with_each_epoch_is_counted_on():
    watch = Watch(network(), nn.CrossEntropyLoss(), data(), every=7, measures=["gradient_norm"])
    for _ in range(3):
        for step in range(10):
            watch(step)
    assert watch.history.steps.tolist() == [0, 7, 14, 21, 28]
    assert str(watch.history).count("went back") == 1


def test_a_budget_is_kept_on_the_real_clock():
    """What is claimed holds whenever the machine is slow: a check begins only if the time before it leaves room for it."""
    budget, begun, found = 0.25, time.perf_counter(), []
    net, batch = network(), data()
    watch = Watch(net, nn.CrossEntropyLoss(), batch, every=1, budget=budget, measures=["trace"])
    watch(0)
    start, step = 2 * watch.history.seconds / budget, 1  # from when on it is claimed
    while len(found) < 6 or watch.history.share > budget:
        time.sleep(1e-3)
        before, spent = time.perf_counter(), watch.history.seconds
        if watch(step) is not None and before - begun > start:
            after = time.perf_counter()
            found.append((spent, before, after, watch.history.checks[-1].seconds))
        step += 1
        assert time.perf_counter() - begun < 120
    for spent, _, after, _ in found:
        assert spent <= budget * (after - begun)
    assert len(found) < step
    told = [seconds / (after - before) for _, before, after, seconds in found]
    assert max(told) <= 1
    assert np.median(told) > 0.5, "a check counts the time that it took"


def test_what_a_first_check_takes_beyond_the_budget_is_said():
    check = Check(0, 1.0, {"trace": Estimate(1.0)}, seconds=0.6)
    early = WatchHistory((check,), seconds=0.6, total=0.8, budget=0.05)
    assert early.time_line() == "1 check in 0.6 of 0.8 s: 75 % of the time; the 5 % allowed take a run of 12 s or more"
    later = WatchHistory((check,), seconds=0.6, total=12.0, budget=0.05)
    assert later.time_line() == "1 check in 0.6 of 12 s: 5 % of the time of the 5 % allowed"


def test_a_loss_that_explodes_does_not_stop_the_training():
    net, loss, batch = network(), nn.CrossEntropyLoss(), data()
    watch = Watch(net, loss, batch, every=1, measures=["lambda_max", "critical_sharpness", "layer_traces", "keskar:eps=1e-4"])
    assert watch(0) is not None
    with torch.no_grad():
        net[6].weight.fill_(torch.nan)
    check = watch(1)
    assert check is not None
    assert np.isnan(check.loss)
    assert all(np.isnan(e.value) and e.reason for e in check.measures.values())
    json.dumps(watch.history.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "expected every as 1 step or more, found 0"),
        ({"budget": 5}, "expected a budget between 0 and 1, found 5"),
        ({"steps": 0}, "expected steps as 1 step or more, found 0"),
        ({"measures": ["sharp"]}, "expected measures to watch, found 'sharp'; choose among lambda_max"),
        ({"measures": ["keskar:eps=x"]}, "expected a number from 0 for keskar:eps, found 'x'"),
    ],
)
def test_mistakes_are_told_before_training(options: dict[str, object], words: str):
    with pytest.raises(UsageError, match=words):
        Watch(network(), nn.CrossEntropyLoss(), data(), **options)


def test_batches_of_every_form():
    net, (x, y) = network(8), data()
    found = []
    forms = [
        (x, y), [(x, y)], [[x, y]], [(x[:30], y[:30]), (x[30:], y[30:])], (x.numpy(), y.numpy()), {"input": x, "labels": y},
        {"input": x.numpy(), "labels": y.numpy()}, [{"input": x, "labels": y}], TensorDataset(x, y),
        DataLoader(TensorDataset(x, y), batch_size=16),
    ]  # fmt: skip
    for batch in forms:
        check = Watch(net, nn.CrossEntropyLoss(), batch, measures=["gradient_norm"])(0)
        assert check is not None
        objective = Objective(net, nn.CrossEntropyLoss(), batch)
        assert objective.samples == len(x)
        found += [check.loss, objective.value().value]
    assert found == pytest.approx([found[0]] * len(found), rel=1e-6)


class Sum(nn.Module):
    """Two inputs, which a batch gives by place or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.layer(left + right)


def test_one_batch_of_several_inputs_is_taken_alike():
    torch.manual_seed(0)
    net, (x, y) = Sum(), data()
    found = []
    for batch in ((x, 2 * x, y), [(x, 2 * x, y)], {"left": x, "right": 2 * x, "labels": y}):
        found.append(Objective(net, nn.CrossEntropyLoss(), batch, batch_size=16).value().value)
        found.append(Watch(net, nn.CrossEntropyLoss(), batch, measures=["gradient_norm"])(0).loss)
    assert found == pytest.approx([found[0]] * 6, rel=1e-6)


def test_a_loss_of_the_model_and_unequal_parts_of_a_batch_is_taken_alike():
    net, (x, _) = network(), data()
    loss = ls.ModelLoss(lambda model, batch: model(batch["inside"]).square().mean() + model(batch["border"]).square().mean())
    batch = {"inside": x, "border": x[:7]}
    values = [Objective(net, loss, form).value().value for form in (batch, [batch])]
    watched = [Watch(net, loss, form, measures=["gradient_norm"])(0).loss for form in (batch, [batch])]
    assert values + watched == pytest.approx([values[0]] * 4, rel=1e-6)
    with pytest.raises(UsageError, match="to cut into batches, found other numbers of rows"):
        Objective(net, loss, batch, batch_size=4)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda x: x, "for an autoencoder"),
        (lambda x: {"x": x, "weight": x}, "name its target 'labels' .*it has x, weight"),
        (iter, "a generator can be read only once"),
    ],
)
def test_data_without_targets_are_told_what_is_missing(form: Callable[[torch.Tensor], object], words: str):
    with pytest.raises(UsageError, match=words):
        Objective(network(), nn.MSELoss(), form(data()[0]))


def test_a_history_prints_draws_and_survives_json_csv_and_xarray(tmp_path):
    xarray = pytest.importorskip("xarray", reason="the extra [xarray] is not installed")
    net, loss, (x, y) = network(), nn.CrossEntropyLoss(), data()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    rows: list[tuple[int, dict[str, float]]] = []
    watch = ls.Watch(
        net, loss, (x, y), every=2, measures=["lambda_max", "layer_traces", "critical_sharpness"], optimizer=optimizer,
        log=lambda step, row: rows.append((step, dict(row))),
    )  # fmt: skip
    for step in range(5):
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
        watch(step)
    history = watch.history
    assert [step for step, _ in rows] == [0, 2, 4]
    assert rows[1][1]["lambda_max"] == history.values("lambda_max")[1]
    assert rows[1][1]["lambda_max/edge"] == 4.0
    again = WatchHistory.from_json(json.loads(json.dumps(history.to_json(), allow_nan=False)))
    assert again.to_json() == history.to_json()
    text = str(history)
    assert "SGD, lr 0.5" in text
    assert text.count("\n") == 6
    layers = sum(name.startswith("trace/") for name in history.names)
    assert layers > 1
    assert f"not in this table: the traces of {layers} layers; they are in .to_dataframe()" in " ".join(text.split())
    assert "<td>" in history._repr_html_()
    frame = history.to_xarray()
    assert isinstance(frame, xarray.Dataset)
    assert frame.layer_traces.sel(layer="6").values.tolist() == history.values("trace/6").tolist()
    assert frame.lambda_max.attrs["units"] == "loss / weight^2"
    lines = history.to_csv(tmp_path / "history.csv").split()
    assert (tmp_path / "history.csv").read_text().split() == lines
    assert len(lines) == 4
    assert dict(zip(lines[0].split(","), lines[2].split(","), strict=True))["lambda_max"] == repr(
        float(history.values("lambda_max")[1])
    )
    axes = history.plot(caption=True)
    assert "edge of stability: 4" in [t.get_text() for t in axes.get_legend().get_texts()]
    with pytest.raises(UsageError, match="expected a measure of this history, found 'trace'"):
        history.plot(measure="trace")
    with pytest.raises(UsageError, match="expected a history with a check"):
        WatchHistory(()).plot()


def test_alarms_are_where_a_measure_is_first_above_its_edge_by_more_than_its_error():
    tops = [(1.9, 0.2), (2.1, 0.2), (2.3, 0.2), (2.5, 0.2)]
    checks = tuple(
        Check(step, 1.0, {"lambda_max": Estimate(v, e, "residual"), "trace": Estimate(9.0)}, {"lambda_max": 2.0})
        for step, (v, e) in enumerate(tops)
    )
    history = WatchHistory(checks)
    assert [(a.step, a.name, a.value, a.edge) for a in history.alarms] == [(2, "lambda_max", 2.3, 2.0)]
    assert "first at step 2: lambda_max 2.3 is above its edge 2" in str(history)
    assert "first above it: step 2" in [t.get_text() for t in history.plot().get_legend().get_texts()]
    assert WatchHistory(checks[:2]).alarms == ()


def test_a_measure_that_is_above_its_edge_from_the_first_check_on_is_said_to_be_so():
    """Before the first step Adam's preconditioner is not known: the first check with an edge is then the second."""
    above = [
        Check(step, 1.0, {"lambda_max": Estimate(9.0, 0.1, "residual")}, {} if step == 0 else {"lambda_max": 2.0})
        for step in (0, 5, 10)
    ]
    history = WatchHistory(tuple(above))
    assert "from the start: lambda_max 9 is above its edge 2, at step 5, the first check with both" in str(history)
    assert "first at" not in str(history)
    assert "above it from the start: step 5" in [t.get_text() for t in history.plot().get_legend().get_texts()]


def test_weights_of_a_live_network_are_read_and_not_held():
    net, batch = network(), data()
    watch = Watch(net, nn.CrossEntropyLoss(), batch, every=1, measures=["gradient_norm"])
    before = parameters_to_vector(net.parameters()).clone()
    first = watch(0)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.5)
    second = watch(1)
    assert first is not None
    assert second is not None
    assert first.loss != second.loss
    assert torch.equal(parameters_to_vector(net.parameters()), 1.5 * before)


def test_a_misspelt_option_is_answered_with_its_name():
    net = nn.Linear(2, 2)
    data = (torch.zeros(3, 2), torch.tensor([0, 1, 0]))
    for wrong, right in (("optimzer", "optimizer"), ("batch_sise", "batch_size")):
        with pytest.raises(TypeError, match=rf"^Watch got an unexpected keyword argument '{wrong}'; did you mean {right}\?$"):
            Watch(net, nn.CrossEntropyLoss(), data, **{wrong: None})
    assert Watch(net, nn.CrossEntropyLoss(), data, batch_size=2)(0) is not None


def test_gaps_between_checks_are_said_and_dotted():
    def history(*steps: int) -> WatchHistory:
        return WatchHistory(
            tuple(Check(s, 1.0, {"lambda_max": Estimate(2.0, 0.1, "residual")}, {}) for s in steps), budget=0.05
        )

    found = history(0, 900, 910, 920, 930)
    assert found.gaps == ((0, 900),)
    assert "nothing was measured between step 0 and 900, to keep to 5 % of the time" in str(found)
    styles = [line.get_linestyle() for line in found.plot().get_lines() if line.get_marker() == "None"]
    assert styles[:2] == [":", "-"]
    assert history(0, 10, 20, 30, 40).gaps == ()
    assert history(0, 10, 20, 30, 40, 60, 100, 180, 340).gaps == ()  # they thin out
    assert history(0, 10, 20, 900, 910, 920).gaps == ((20, 900),)
    fine = range(0, 60, 10)
    in_a_row = history(*fine, 1000, 2000, *(3000 + s for s in fine))  # pairs of 950, 1000 and 1000: none hides another
    assert in_a_row.gaps == ((50, 1000), (1000, 2000), (2000, 3000))
    styles = [line.get_linestyle() for line in in_a_row.plot().get_lines() if line.get_marker() == "None"]
    assert styles[:3] == ["-", ":", "-"]
    assert history(0, 1000, *(2000 + s for s in fine)).gaps == ((0, 1000), (1000, 2000))
    assert history(*fine, 1050, 2050).gaps == ((50, 1050), (1050, 2050))
    assert history(0, 900).gaps == ()  # two checks tell no usual distance
    assert "nothing was measured" not in str(history(0, 10, 20, 30, 40))


def layered(*rows: tuple[float, float], error: float) -> WatchHistory:
    """Two layers' traces at a check each row, with a half-width of `error` that a residual states exactly."""
    return WatchHistory(
        tuple(
            Check(step, 1.0, {f"trace/{n}": Estimate(v, error, "residual") for n, v in zip("ab", row, strict=True)})
            for step, row in enumerate(rows)
        )
    )


def drawn_layers(history: WatchHistory) -> tuple[str, list[list[float]], str]:
    """The scale, both curves, and the legend of the traces of layers."""
    axes = history.plot(measure="layer_traces")
    curves = [line.get_ydata().tolist() for line in axes.get_lines() if line.get_marker() == "o"]
    return axes.get_yscale(), curves, "; ".join(t.get_text() for t in axes.get_legend().get_texts())


def test_negative_traces_of_layers_are_drawn_and_counted():
    """Beyond their error they are drawn, on both sides of zero; within it they are noise, which a log scale leaves out."""
    scale, curves, legend = drawn_layers(layered((8.0, -5.0), (400.0, -0.5), (9.0, 3.0), error=1.0))
    assert (scale, curves) == ("symlog", [[8.0, 400.0, 9.0], [-5.0, -0.5, 3.0]])
    assert "1 of 6 traces are negative beyond their error" in legend
    scale, curves, legend = drawn_layers(layered((8.0, -0.5), (4.0, 2.0), error=1.0))
    assert scale == "log"
    np.testing.assert_array_equal(curves, [[8.0, 4.0], [np.nan, 2.0]])
    assert "left out: 1 of 4, not positive within their error" in legend
    scale, curves, legend = drawn_layers(layered((-8.0, -5.0), (-4.0, -3.0), error=1.0))
    assert (scale, curves) == ("linear", [[-8.0, -4.0], [-5.0, -3.0]])
    assert "4 of 4 traces are negative beyond their error" in legend
    scale, curves, legend = drawn_layers(layered((-0.5, 0.0), error=1.0))
    assert (scale, curves) == ("linear", [[-0.5], [0.0]])
    assert "none is positive, nor negative beyond its error" in legend
    assert "error" not in drawn_layers(layered((8.0, 5.0), error=1.0))[2]
    with pytest.raises(UsageError, match="expected a finite trace of a layer, found none"):
        layered((np.nan, np.inf), error=1.0).plot(measure="layer_traces")
