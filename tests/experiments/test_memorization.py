"""The claims of the memorization study flip when the numbers do."""

import itertools

import pytest

from experiments.common.options import Options
from experiments.memorization.claims import CONDITIONS, LEVELS
from experiments.memorization.claims import judged as verdict_of
from experiments.memorization.runs import planned, table


@pytest.fixture
def runs(tmp_path):
    """Made-up runs in which every claim holds, of all that the study plans on digits."""
    given = Options(None, 10, 8, (0, 1, 2, 3, 4), tmp_path, 1, "cpu", False)
    order = ("clean", *(f"labels {p:.0%}" for p in LEVELS), "random labels")
    made = []
    for item in planned(given):
        jitter = 0.001 * item["seed"] + 0.0003 * (item["seed"] ** 2 % 3)
        condition = item.get("condition", "labels 40%")
        rank = order.index(condition) if condition in order else 0
        test = (0.95, 0.8, 0.65, 0.5, 0.35, 0.1)[rank] + (0.02 * item["depth"] if item["part"] == "depth" else 0)
        wrong = condition in order and condition != "clean"
        made.append(
            {
                "item": item, "seconds": 1.0, "epochs_to_fit": round(10 * 1.3**rank + item["seed"]), "epochs": 100,
                "train_accuracy": 1.0, "train_loss": 0.01, "best_train_accuracy": 1.0,
                "test_accuracy": test + (jitter - 0.002 if condition == "random labels" else jitter),
                "best_test_accuracy": 0.95, "wrong_labels_fitted": 1.0 if wrong else None, "stopped": "loss",
            }
        )  # fmt: skip
    return made, given


def test_every_kind_of_run_is_planned_once(runs):
    made, _ = runs
    kinds = [tuple(sorted((k, str(v)) for k, v in r["item"].items() if k != "recipe")) for r in made]
    assert len(set(kinds)) == len(kinds)
    assert {r["item"]["condition"] for r in made if r["item"]["part"] == "fit"} == set(CONDITIONS)
    rows = table(made)
    assert all(row["seeds"] == 5 for row in rows)
    assert len(rows) * 5 == len(made)


def test_the_verdict_is_that_of_the_numbers(runs):
    made, given = runs
    found = verdict_of(made, given)
    assert found["verdict"] == "reproduced", [c["claim"] for c in found["claims"] if not c["holds"]]


@pytest.mark.parametrize(
    ("part", "number", "value", "claim"),
    [
        ("fit", "train_accuracy", 0.5, "networks fit true labels"),
        ("fit", "test_accuracy", 0.3, "with random labels the test accuracy"),
        ("random labels", "epochs_to_fit", 3, "random labels take longer"),
        ("random labels", "epochs_to_fit", 900, "random labels take longer"),
        ("random labels", "epochs_to_fit", 3, "images of noise"),
        ("clean", "test_accuracy", 0.3, "the more labels are wrong"),
        ("regularizers", "train_accuracy", 0.5, "explicit regularizers"),
    ],
)
def test_a_claim_falls_with_its_numbers(runs, part, number, value, claim):
    made, given = runs
    for run in made:
        if part in (run["item"]["part"], run["item"].get("condition")):
            run[number] = value
    (found,) = [c for c in verdict_of(made, given)["claims"] if c["claim"].startswith(claim)]
    assert found["holds"] is False


@pytest.mark.parametrize(
    ("part", "number", "value", "claim"),
    [
        ("fit", "epochs_to_fit", 7, "random labels take longer"),
        ("random labels", "epochs_to_fit", None, "random labels take longer"),
        ("random labels", "epochs_to_fit", None, "images of noise"),
        ("fit", "test_accuracy", 0.3, "the more labels are wrong"),
    ],
)
def test_what_cannot_be_told_is_not_refuted(runs, part, number, value, claim):
    made, given = runs
    for run in made:
        if part in (run["item"]["part"], run["item"].get("condition")):
            run[number] = value
    (found,) = [c for c in verdict_of(made, given)["claims"] if c["claim"].startswith(claim)]
    assert found["holds"] is None


def test_a_run_that_ended_with_its_epochs_refutes_nothing(runs):
    made, given = runs
    for run in made:
        if run["item"].get("regularizer") == "dropout":
            run |= {"train_accuracy": 0.8, "stopped": "epochs"}
    (found,) = [c for c in verdict_of(made, given)["claims"] if c["claim"].startswith("explicit regularizers")]
    assert found["holds"] is None
    assert "ended with their epochs" in found["ours"]


def test_deeper_networks_that_test_worse_are_noticed(runs):
    made, given = runs
    for run in made:
        if run["item"]["part"] == "depth":
            run["test_accuracy"] = 0.9 - 0.02 * run["item"]["depth"] + 0.001 * run["item"]["seed"]
    (found,) = [c for c in verdict_of(made, given)["claims"] if c["claim"].startswith("with partly wrong labels")]
    assert found["holds"] is False


def test_a_large_gain_of_a_regularizer_is_noticed(runs):
    made, given = runs
    for run in made:
        if run["item"].get("regularizer") == "dropout":
            run["test_accuracy"] += 0.2
    claims = verdict_of(made, given)["claims"]
    (found,) = [c for c in claims if c["claim"].startswith("regularizers change")]
    assert found["holds"] is False
    assert list(itertools.chain(found["numbers"]))
