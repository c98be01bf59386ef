"""The trade-offs of the study of control against counting, and its claims, which flip when the numbers do."""

import numpy as np
import pytest

from experiments.common.options import Options
from experiments.control.claims import judged
from experiments.control.front import best_of, chosen_by_halves, dominated_area, on_front, undominated
from experiments.control.runs import planned
from experiments.control.table import CONTROLS, EARLY, areas, label, table


def test_undominated_points_are_those_that_no_other_beats():
    g = np.random.default_rng(1)
    memorized, tested = g.integers(6, size=(2, 200, 8)) / 5  # many ties
    found = undominated(memorized, tested)
    for m, t, mask in zip(memorized, tested, found, strict=True):
        for k in range(8):
            beaten = any(m[j] <= m[k] and t[j] >= t[k] and (m[j], t[j]) != (m[k], t[k]) for j in range(8))
            assert mask[k] == (not beaten)


def test_the_area_is_the_share_of_tradeoffs_that_are_beaten():
    g = np.random.default_rng(2)
    memorized, tested = g.random(4), g.random(4)
    drawn = np.stack([g.random(200_000), 0.1 + 0.9 * g.random(200_000)])
    beaten = ((memorized[:, None] <= drawn[0]) & (tested[:, None] >= drawn[1])).any(axis=0).mean()
    assert dominated_area(memorized, tested) == pytest.approx(beaten, abs=0.004)
    assert dominated_area([1.0], [0.9]) == 0
    assert dominated_area([0.0, 0.2], [1.0, 0.3]) == pytest.approx(1.0)
    assert dominated_area([0.0], [0.05]) == 0  # below chance


def test_a_front_is_as_sure_as_its_seeds():
    apart = {"good": ([0.1, 0.2, 0.1], [0.9, 0.8, 0.9]), "bad": ([0.9, 0.8, 0.9], [0.5, 0.6, 0.5])}
    assert on_front(apart) == {"good": 1.0, "bad": 0.0}
    same = {"a": ([0.0, 1.0] * 3, [0.5] * 6), "b": ([1.0, 0.0] * 3, [0.5] * 6)}
    found = on_front(same)
    assert found["a"] == pytest.approx(found["b"], abs=0.05)
    assert 0.5 < found["a"] < 0.8  # a tie leaves both on the front


def test_the_best_of_those_that_memorize_little():
    points = {"most": ([0.9] * 5, [0.9] * 5), "few": ([0.3] * 5, [0.7] * 5), "fewer": ([0.1] * 5, [0.6] * 5)}
    assert best_of(points, 0.5) == {"few": 1.0}
    assert best_of(points, 0.05) == {}
    assert best_of(points, 1.0) == {"most": 1.0}


def test_early_stopping_is_reported_on_the_half_that_did_not_choose():
    right = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0]], dtype=bool)
    # Even samples choose epoch 0, where no odd one is right; odd samples choose epoch 1, where no even one is.
    assert chosen_by_halves(right) == ((0, 1), 0.0)
    assert chosen_by_halves(np.array([[0, 0, 0, 0], [1, 1, 1, 0]], dtype=bool)) == ((1, 1), 0.75)


@pytest.fixture
def runs(tmp_path):
    """Made-up runs on digits in which every claim holds, but the last, which contradicts that dropout is best."""
    given = Options(None, 10, 8, (0, 1, 2, 3, 4), tmp_path, 1, "cpu", False)
    made = []
    for item in planned(given):
        jitter = 0.002 * (item["seed"] - 2) + 0.0007 * (item["seed"] ** 2 % 3)
        control = item["control"]
        strong = 0 if control == "none" else 1 + CONTROLS[control][1].index(item["strength"])
        step = {"none": (0, 0), "dropout": (0.04 * 4 ** (strong - 1), 0.09)}.get(control, (0.05 * strong, 0.03))
        made.append(
            {
                "item": item,
                "seconds": 1.0,
                "wrong_labels_fitted": 0.99 - step[0] - jitter,
                "clean_labels_fitted": 1.0,
                "test_accuracy": 0.6 + step[1] * strong + jitter / 2,
                "train_loss": 0.1,
                "early_stopping": {
                    "epochs": [3, 5],
                    "test_accuracy": 0.85 - jitter,
                    "wrong_labels_fitted": 0.45 + 2 * jitter,
                    "clean_labels_fitted": 0.9,
                },
            }
        )
    return made, given


def verdicts(made, given):
    return {claim["claim"]: claim["holds"] for claim in judged(table(made), given)["claims"]}


def test_every_setting_is_planned_once_for_every_seed(runs):
    made, _ = runs
    rows = table(made)
    assert len(made) == 5 * (1 + sum(len(s) for _, s in CONTROLS.values()))
    assert len({label(r) for r in rows}) == len(rows) == len(made) // 5 + 1
    assert all(len(r["tested"]) == 5 for r in rows)
    assert set(areas(rows, "digits")) == {*CONTROLS, EARLY}


@pytest.mark.parametrize(
    ("control", "number", "value", "claim"),
    [
        ("dropout", "wrong_labels_fitted", 0.5, "weight decay and dropout of usual strength"),
        ("dropout", "test_accuracy", 0.3, "dropout limits memorization"),
        ("dropout", "test_accuracy", 0.05, "dropout has a better trade-off"),
        ("SAM", "test_accuracy", 0.3, "with wrong labels, SAM"),
        ("mixup", "test_accuracy", 0.3, "with wrong labels, mixup"),
        ("mixup", "wrong_labels_fitted", 0.999, "mixup reduces the memorization"),
        ("label smoothing", "test_accuracy", 0.3, "with wrong labels, label smoothing"),
    ],
)  # fmt: skip
def test_a_claim_falls_with_its_numbers(runs, control, number, value, claim):
    made, given = runs
    before = verdicts(made, given)
    for run in made:
        if run["item"]["control"] == control:
            run[number] = value + 0.001 * run["item"]["seed"]
    after = verdicts(made, given)
    name = next(c for c in before if c.startswith(claim))
    assert before[name] is True
    assert after[name] is False


def test_what_the_seeds_cannot_tell_is_not_refuted(runs):
    made, given = runs
    for run in made:
        if run["item"]["control"] in ("SAM", "dropout", "mixup"):
            seed = run["item"]["seed"]
            run["test_accuracy"] = 0.6 + 0.2 * (-1) ** seed * (seed > 0)  # as good as the baseline, but for a wide spread
            run["wrong_labels_fitted"] = 0.7 + 0.25 * (-1) ** seed * (seed > 0)
    found = verdicts(made, given)
    unsure = ("dropout limits memorization", "mixup reduces", "with wrong labels, SAM", "with wrong labels, mixup")
    assert [h for c, h in found.items() if c.startswith(unsure)] == [None] * 4


def test_the_fit_of_clean_labels_is_told(runs):
    made, given = runs
    claims = judged(table(made), given)["claims"]
    free = next(c for c in claims if "not the only ways" in c["claim"])
    assert "mixup 8 (fits 100.0 % of the clean labels)" in free["ours"]
    assert "early stopping (fits 90.0 % of the clean labels)" in free["ours"]
    assert "dropout 0.8 (fits 100.0 % of the clean labels)" in claims[-1]["ours"]


def test_the_open_question_is_answered_by_the_other_controls(runs):
    made, given = runs
    free, least = list(verdicts(made, given))[-2:]
    for run in made:
        if run["item"]["control"] == "none":
            run["early_stopping"]["test_accuracy"] = 0.3
        elif run["item"]["control"] not in ("dropout", "weight decay"):
            run["wrong_labels_fitted"] = 0.99
    found = verdicts(made, given)
    assert found[free] is False
    assert found[least] is False
