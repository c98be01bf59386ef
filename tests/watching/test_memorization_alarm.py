"""The alarm for label memorization: its sums against a plain reference, its false alarms by simulation, digits runs."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from scipy.stats import binomtest
from torch import nn

import landscape as ls
from landscape.errors import UsageError
from landscape.results import Check, Estimate, MemorizationSignal, WatchHistory
from landscape.tasks import read_data
from landscape.watching.memorization_alarm import page_sums


def history(hidden: np.ndarray, output: np.ndarray, loss: np.ndarray) -> WatchHistory:
    """A watched run with these traces: (layers, n) of hidden layers, (n,) of the output layer."""
    checks = []
    for k in range(len(loss)):
        found = {
            f"trace/h{i}": Estimate(
                float(t[k]),
            )
            for i, t in enumerate(hidden)
        }
        checks.append(Check(10 * k, float(loss[k]), found | {"trace/out": Estimate(float(output[k]))}))
    return WatchHistory(tuple(checks))


def run(random: np.random.Generator, n: int = 24, noise: float = 0.2, drift: float = -0.03) -> WatchHistory:
    """A simulated run whose logarithms of traces have noise about a drift; the output layer's falls from the third check on."""
    steps = np.arange(n)
    hidden = np.exp(3 + drift * steps + noise * random.standard_normal((2, n)))
    output = np.exp(3 + np.where(steps < 3, 0.2 * steps, 0.4 - 0.05 * steps))
    return history(hidden, output, 2.3 / (1 + steps))


@pytest.mark.parametrize("reference", [0.0, 0.5])
def test_the_sums_are_those_of_page(reference):
    x = np.random.default_rng(0).standard_normal(200)
    plain, s = [], 0.0
    for value in x:
        s = max(0.0, s + value - reference)
        plain.append(s)
    np.testing.assert_allclose(page_sums(x, reference), plain, atol=1e-12)


def markov_run_length(threshold: float, reference: float, states: int = 400) -> float:
    """Average run length of Page's scheme on standard normal numbers (Brook and Evans 1972): a Markov chain of the sum."""
    width = 2 * threshold / (2 * states - 1)
    to = width * np.arange(states)
    upper = ndtr(to[None, :] + width / 2 - to[:, None] + reference)
    chain = np.column_stack([upper[:, 0], np.diff(upper, axis=1)])
    return float(np.linalg.solve(np.eye(states) - chain, np.ones(states))[0])


def test_the_average_run_length_is_the_known_one():
    expected, random = markov_run_length(4.0, 0.5), np.random.default_rng(1)
    assert expected == pytest.approx(2 * 168, rel=0.01)  # two-sided in textbooks: 168
    lengths = []
    for _ in range(1500):
        above = page_sums(random.standard_normal(4000), 0.5) > 4
        assert above.any()
        lengths.append(1 + int(above.argmax()))
    assert abs(np.mean(lengths) - expected) < 4 * np.std(lengths) / math.sqrt(len(lengths))


def test_a_calibrated_alarm_errs_as_often_as_asked_on_simulated_runs():
    random, tries, false = np.random.default_rng(2), 120, 0
    for _ in range(tries):
        alarm = ls.MemorizationAlarm.calibrated([run(random) for _ in range(9)], rate=0.1)
        false += alarm(run(random)).sounded is not None
    low, high = binomtest(false, tries).proportion_ci(0.999)
    assert low <= 0.1 <= high
    with pytest.raises(UsageError, match=r"expected 9 clean runs for a rate of 0\.1, found 8"):
        ls.MemorizationAlarm.calibrated([run(random) for _ in range(8)], rate=0.1)


@pytest.mark.parametrize(
    ("sums", "words"), [([0.0, 1e-4], "a did not rise since epoch 3"), ([0.0, 0.3], "rose at most 1.35-fold")]
)
def test_a_silent_alarm_says_whether_the_traces_rose(sums, words):
    signal = MemorizationSignal(np.array([3, 4]), np.array(sums), 0.7, listening=3, layers=("a",), counted="epoch")
    assert words in str(signal)
    assert str(MemorizationSignal.from_json(signal.to_json())) == str(signal)


def test_later_checks_do_not_change_what_was_said_before():
    random = np.random.default_rng(4)
    whole = run(random, 40, drift=0.04)
    alarm = ls.MemorizationAlarm()
    sums = alarm(whole).sums
    for n in (5, 17, 39):
        np.testing.assert_array_equal(alarm(WatchHistory(whole.checks[:n])).sums, sums[:n])
    assert alarm(WatchHistory(())).sounded is None


def test_constants_of_layers_change_nothing_and_a_layer_without_a_positive_trace_does_not_count():
    random = np.random.default_rng(3)
    steps = np.arange(30)
    hidden = np.exp(2 + 0.05 * steps + 0.1 * random.standard_normal((3, 30)))
    output, loss = np.exp(-0.1 * steps), 2 / (1 + steps)
    alarm = ls.MemorizationAlarm()
    plain = alarm(history(hidden, output, loss))
    scaled = alarm(history(hidden * np.array([[1e4], [1e-4], [1.0]]), 7 * output, loss))
    np.testing.assert_allclose(scaled.sums, plain.sums, atol=1e-9)
    assert plain.sounded == scaled.sounded is not None
    assert plain.layers == ("h0", "h1", "h2")
    negative = alarm(history(np.concatenate([hidden, -hidden[:1]]), output, loss))
    np.testing.assert_allclose(negative.sums, plain.sums, atol=1e-12)
    assert negative.layers == plain.layers
    assert "no hidden layer, or not the output layer, has a positive trace" in str(alarm(history(-hidden, output, loss)))


def digits(wrong: float, seed: int = 0) -> tuple[WatchHistory, ls.Watch, float]:
    """A perceptron trained on 512 digits and watched; the share of wrong labels that it fits at the end."""
    generator, data = torch.Generator().manual_seed(seed), read_data("digits")
    x, true = data.prepare(data.train_x[:512]).flatten(1), data.train_y[:512]
    y = torch.where(torch.rand(512, generator=generator) < wrong, torch.randint(0, 10, (512,), generator=generator), true)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer, loss = torch.optim.SGD(net.parameters(), lr=0.1), nn.CrossEntropyLoss()
    watch = ls.Watch(net, loss, (x, y), every=128, measures=["gradient_norm"], alarm=ls.MemorizationAlarm())
    step = 0
    for _ in range(80 if wrong else 50):
        for rows in torch.randperm(512, generator=generator).split(16):
            watch(step)
            optimizer.zero_grad()
            loss(net(x[rows]), y[rows]).backward()
            optimizer.step()
            step += 1
    watch(step)
    fitted = (net(x).argmax(1) == y)[y != true].double().mean()
    return watch.history, watch, float(fitted)


def test_a_noisy_digits_run_sounds_and_a_clean_one_does_not():
    clean, watch, _ = digits(0.0)
    assert clean.memorization is not None
    assert clean.memorization.listening is not None
    assert clean.memorization.sounded is None
    assert "memorization alarm: silent" in str(clean)
    noisy, watch, fitted = digits(0.4)
    signal = noisy.memorization
    assert signal is not None
    assert signal.sounded is not None
    assert watch.memorization is not None
    assert watch.memorization.sounded == signal.sounded
    assert "wrong labels may be being fitted since about step" in str(noisy)
    assert fitted > 0.2
    again = WatchHistory.from_json(json.loads(json.dumps(noisy.to_json(), allow_nan=False)))
    assert again.to_json() == noisy.to_json()
    drawn = noisy.plot(measure="layer_traces")
    assert f"memorization alarm: step {signal.sounded}" in [t.get_text() for t in drawn.get_legend().get_texts()]
