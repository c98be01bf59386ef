"""The claims of the batch size study flip when the numbers do; its plan and its ratios."""

import math
from dataclasses import replace

import pytest

from experiments.batch_size import plan
from experiments.batch_size.claims import claims, columns, plus_one
from experiments.batch_size.plan import DECAY, EPOCHS, EPOCHS_DECAY, MAIN, SCALED, STEPS
from experiments.batch_size.ratios import change, direction, ratio, rows
from experiments.batch_size.runs import lines
from experiments.common import statistics
from experiments.common.options import Options
from experiments.common.statistics import everywhere
from landscape.measures import MEASURES

SEEDS = (0, 1, 2, 3, 4)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Bootstrap intervals need not be exact here."""
    monkeypatch.setattr(statistics, "DRAWS", 500)


@pytest.fixture
def given(tmp_path):
    """The command line for the digits."""
    return Options(None, 1000, 8, SEEDS, tmp_path, 1, "cpu", False)


@pytest.fixture
def made(given):
    """Made-up runs on digits in which every claim holds."""
    few = (*plan.PHI, "keskar_relative", "adaptive_trace", "fisher_rao")
    return made_up([replace(setting, measures=few) for setting in plan.settings(given)], given.seeds)


def made_up(settings, seeds):
    """A result for every item of the plan: the large batch is sharper, tests worse and stays near, but for Li's second arm."""
    runs = [{"item": item} | made_result(item) for item in plan.items(settings, seeds)]
    return runs + [{"item": item} | made_result(item) for item in plan.items_of_equal_steps(settings, runs)]


def made_result(item):
    """Numbers of one run."""
    seed, large, flipped = item["seed"], item["batch"] != "16", item["arm"] == EPOCHS_DECAY
    jitter = 1 + 0.01 * seed + 0.003 * seed**2 * (1 if large else -1)
    sharp = jitter * (20.0 if large and not flipped else 2.0 if large else 10.0 if flipped else 1.0)
    return {
        "fitted": True, "epochs": 100, "steps": 500 if large else 1000, "stopped": "loss", "train_loss": 0.01 * jitter,
        "train_accuracy": 1.0, "test_accuracy": (0.9 if large else 0.95) + 0.001 * jitter, "norm": 10.0 * jitter,
        "distance": (4.0 if large else 8.0) * jitter, "measures": dict.fromkeys(item["measures"], sharp) | {"lambda_min": -1.0},
    }  # fmt: skip


def made_line(setting, seed, beyond):
    """A line whose loss beyond the large end is `beyond` times that beyond the small one."""
    at = [-0.5, 0.0, 1.0, 1.5]
    values = {"loss": [0.1 * (1 + 0.01 * seed), 0.01, 0.01, 0.1 * beyond]}
    return {"item": {"setting": setting, "batch": "10 %", "seed": seed}, "at": at, "values": values}


def held(runs, beyond=3.0):
    """The claims that hold, do not hold, or cannot be told, by their first words."""
    settings = dict.fromkeys(r["item"]["setting"] for r in runs)
    between = [made_line(s, seed, beyond) for s in settings for seed in SEEDS]
    return {c.claim: c.holds for c in claims(runs, rows(runs), between)}


def answer(found, words):
    """Whether the claims with these words hold, which are one, or one for every network and all the same."""
    (holds,) = {h for claim, h in found.items() if words in claim}
    return holds


def test_all_claims_hold_for_numbers_as_the_paper_has_them(made):
    assert set(held(made).values()) == {True}


@pytest.mark.parametrize(
    ("arm", "words"),
    [(MAIN, "sharper by Keskar's phi"), (SCALED, "still sharper by phi with a learning rate"), (STEPS, "after as many steps"),
     (DECAY, "still sharper by phi with weight decay"), (EPOCHS, "for equal epochs"), (EPOCHS_DECAY, "for equal epochs")],
)  # fmt: skip
def test_a_claim_on_phi_flips_with_its_arm(made, arm, words):
    for run in made:
        if run["item"]["arm"] == arm and run["item"]["batch"] != "16":
            run["measures"]["keskar"] = {EPOCHS_DECAY: 100.0}.get(arm, 0.01) * (1 + 0.01 * run["item"]["seed"])
    found = held(made)
    assert answer(found, words) is False
    if arm == SCALED:  # and no other does
        assert [c for c, h in found.items() if h is not True] == [c for c in found if words in c]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("test_accuracy", 0.99, "tests worse"), ("distance", 30.0, "closer to its start")],
)
def test_a_claim_on_a_score_flips_with_it(made, name, value, words):
    for run in made:
        if run["item"]["batch"] == "10 %":
            run[name] = value * (1 + 0.0001 * run["item"]["seed"])
    assert answer(held(made), words) is False


def test_the_reversal_is_judged_for_every_network_by_itself(given):
    settings = plan.settings(replace(given, data="cifar10:images"))
    sgd = [s for s in settings if EPOCHS in s.arms]
    assert {(s.recipe.optimizer, s.recipe.lr, s.recipe.momentum) for s in sgd} == {("sgd", 0.01, 0.9), ("sgd", 0.002, 0.9)}
    runs = made_up(sgd, SEEDS)
    for run in runs:
        if run["item"]["setting"] == "images, MLP, SGD" and run["item"]["arm"] == EPOCHS_DECAY and run["item"]["batch"] != "16":
            run["measures"]["keskar"] = 100.0 * (1 + 0.01 * run["item"]["seed"])
    found = {claim.partition(": ")[0]: holds for claim, holds in held(runs).items() if "for equal epochs" in claim}
    assert found == {s.name: s.name != "images, MLP, SGD" for s in sgd}
    assert [row["network"] for row in columns(runs) if not row["published"]] == ["digits, MLP, SGD"], "images have no main arm"


def test_one_invariant_measure_that_says_the_contrary_is_enough_to_disagree(made):
    for run in made:
        if run["item"]["batch"] == "10 %" and "fisher_rao" in run["measures"]:
            run["measures"]["fisher_rao"] = 0.01 * (1 + 0.01 * run["item"]["seed"])
    assert answer(held(made), "survive a rescaling") is False


def test_the_line_and_the_size_of_the_effect_are_judged(made):
    assert answer(held(made, beyond=0.3), "on the line") is False
    for run in made:
        if run["item"]["arm"] == MAIN and run["item"]["batch"] == "10 %":
            run["measures"]["keskar"] /= 10  # twice as sharp: sharper, but by less than in the paper
    found = held(made)
    assert answer(found, "sharper by Keskar's phi") is True
    assert answer(found, "at least the smallest of the paper") is False


def test_seeds_that_disagree_cannot_tell(made):
    for run in made:
        if run["item"]["arm"] == MAIN and run["item"]["batch"] == "10 %":
            run["measures"]["keskar"] = (0.2, 5.0)[run["item"]["seed"] % 2]
    assert answer(held(made), "sharper by Keskar's phi") is None


def test_an_arm_in_which_a_run_did_not_come_down_has_no_ratio(made):
    for run in made:
        if (run["item"]["setting"], run["item"]["arm"], run["item"]["seed"]) == ("digits, MLP, SGD", SCALED, 3):
            item = dict(run["item"])
            run.clear()
            run |= {"item": item, "fitted": False}
    assert not [r for r in rows(made) if (r["setting"], r["arm"], r["batch"]) == ("digits, MLP, SGD", SCALED, "10 %")]
    assert answer(held(made), "still sharper by phi with a learning rate") is None, "one setting is missing"


def test_a_ratio_is_the_geometric_mean_of_pairs():
    found = ratio([(1.0, 2.0), (10.0, 80.0), (5.0, 20.0)])
    assert found is not None
    assert found["ratio"]["value"] == pytest.approx(4.0)
    assert ratio([(1.0, 2.0), (0.0, 1.0)]) is None
    assert ratio([(1.0, None)]) is None
    assert ratio([]) is None
    assert change([90.0, 91.0], [89.0, 90.5])["difference"]["value"] == pytest.approx(-0.75)


def test_a_direction_needs_its_interval_and_its_q_value():
    above = {"ratio": {"value": 2.0, "low": 1.5, "high": 3.0}}
    assert [direction(above | {"q": q}) for q in (0.01, 0.2)] == [1, 0]
    assert direction({"ratio": {"value": 0.5, "low": 0.3, "high": 0.8}}) == -1
    assert direction({"difference": {"value": 0.5, "low": -0.3, "high": 0.8}}) == 0
    assert [everywhere(d) for d in ([1, 1], [1, 0], [1, -1], [])] == [True, None, False, None]


def test_learning_rates_steps_and_decay_are_those_of_the_arm(given):
    sgd, adam = plan.settings(given)
    assert sgd.trained(SCALED, "10 %").lr == pytest.approx(0.01 * 135 / 16)
    assert adam.trained(SCALED, "10 %").lr == pytest.approx(0.001 * math.sqrt(135 / 16))
    assert sgd.trained(DECAY, "16").weight_decay == sgd.trained(EPOCHS_DECAY, "16").weight_decay == plan.WEIGHT_DECAY
    equal = sgd.trained(STEPS, "10 %", 1000)
    assert (equal.epochs * sgd.steps(equal), equal.stop_loss, equal.lr) == (1000, None, 0.01)
    assert [sgd.steps(sgd.trained(MAIN, batch)) for batch in plan.BATCHES] == [85, 10, 1]  # of 1,347 digits


def test_the_measures_that_are_said_to_survive_do():
    assert all({"layer", "node"} <= set(MEASURES[name].invariant_to) for name in plan.INVARIANT)
    assert not any({"layer", "node"} <= set(MEASURES[name].invariant_to) for name in plan.PHI)


def test_the_table_of_the_paper_is_beside_ours(made):
    table = columns(made)
    assert [row["published"] for row in table] == [True] * 6 + [False] * 2
    assert table[0]["keskar"] == [1.23, 205.14]
    assert [round(c["value"], 1) for c in table[-1]["test_accuracy"]] == [95.1, 90.1]
    assert "1 times" in plus_one(rows(made))


def test_a_line_joins_the_minima_of_one_seed(given, made):
    planned = lines(plan.settings(given), made)
    assert len(planned) == 2 * 2 * len(SEEDS)
    assert all(i["small"]["seed"] == i["large"]["seed"] == i["seed"] for i in planned)
    assert {(i["small"]["batch_size"], i["large"]["batch_size"]) for i in planned} == {(16, 0.1), (16, "full")}
