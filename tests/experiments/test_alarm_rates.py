"""The study of the memorization alarm: a tiny run, what is counted, and the default that it gives."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta

import landscape as ls
from experiments.common.document import read
from experiments.common.options import Options
from experiments.common.work import Place
from experiments.memorization_alarm import runs
from experiments.memorization_alarm.claims import history, share, table, threshold, told
from landscape.tasks import Recipe

GIVEN = Options(None, 1, 1, (0, 1), Path("runs"), 1, "cpu")


def test_the_default_threshold_is_that_of_the_study():
    document = read("memorization_alarm")
    assert ls.MemorizationAlarm().threshold == document["threshold"] == threshold(document["runs"])


def test_runs_are_drawn_once_and_never_shared_between_calibration_and_judgement():
    items = runs.planned(GIVEN)
    assert len({(i["number"], i["condition"]) for i in items}) == len(items)
    seeds = {part: {i["recipe"]["seed"] for i in items if i["part"] == part} for part in ("chosen", "judged", "noisy")}
    assert not seeds["chosen"] & seeds["judged"]
    assert not seeds["noisy"] & (seeds["chosen"] | seeds["judged"])
    assert runs.drawn(7) == runs.drawn(7) != runs.drawn(8)
    assert len({runs.drawn(n)[0].lr for n in range(20)}) == 20


def test_a_run_keeps_what_the_alarm_hears():
    recipe = Recipe(
        network_options={"widths": [8, 6]},
        samples=64,
        epochs=4,
        corruption="labels",
        corruption_level=0.5,
        lr=0.1,
        evaluate_every=2,
    )
    item = {"part": "noisy", "condition": "labels 50%", "number": 0, "every": 2, "recipe": recipe.to_json()}
    run = {"item": item, **runs.one(item, Place(Path("runs"), None, "cpu"))}
    found = history(run)
    assert found.steps.tolist() == [0, 2, 4]
    assert found.names == ("trace/fc1", "trace/fc2", "trace/fc3")
    wrong = runs.untold(run["series"]["wrong"])
    assert np.isnan(wrong[0])
    assert wrong[2] == pytest.approx(run["final"]["wrong_labels_fitted"], rel=1e-3)
    assert told(run, ls.MemorizationAlarm(threshold=50.0)) == {
        "largest": pytest.approx(ls.MemorizationAlarm()(found).largest), "sounded": None, "half": None, "fitted": None,
    }  # fmt: skip


def synthetic(part: str, condition: str, rise: float, half: int) -> dict:
    """A run of 20 checks whose hidden trace grows by this factor at check 10, half of its wrong labels fitted at `half`."""
    steps = np.arange(20)
    series = {
        "epochs": steps, "loss": 2.3 / (1 + steps), "wrong": np.where(steps >= half, 0.6, 0.1), "test": 0 * steps,
        "trace/fc1": np.where(steps < 10, 5.0, 5.0 * rise), "trace/fc2": 4.0 - 0.1 * steps,
    }  # fmt: skip
    item = {"part": part, "condition": condition, "number": 0}
    return {"item": item, "series": {name: runs.told(values) for name, values in series.items()}}


def test_rates_count_false_alarms_and_those_that_come_in_time():
    clean = [synthetic("judged", "clean", rise, 99) for rise in (1.0, 1.0, 1.0, 2.0)]
    noisy = [synthetic("noisy", level, 3.0, half) for level in runs.LEVELS for half in (15, 5)]
    elsewhere = [synthetic(part, c, 1.0, 99) for part in runs.ELSEWHERE for c in ("clean", "labels 40%")]
    first, *others = table([*clean, *noisy, *elsewhere], ls.MemorizationAlarm(threshold=0.5))
    assert (first["clean"], first["false"]["value"]) == (4, 0.25)
    row = first["labels 40%"]
    assert (row["runs"], row["sounded"], row["in_time"]["value"]) == (2, 2, 0.5)
    assert row["when"] == pytest.approx(np.median([12 / 15, 12 / 5]))
    assert row["fitted"] == pytest.approx(np.median([0.1, 0.6]))
    assert all(o["false"]["value"] == 0 and o["labels 40%"]["sounded"] == 0 for o in others)


def test_the_interval_of_a_share_is_clopper_and_pearsons():
    found = share(3, 80)
    assert found.low == pytest.approx(beta.ppf(0.025, 3, 78))
    assert found.high == pytest.approx(beta.ppf(0.975, 4, 77))
