"""The verdict on memorized samples from numbers made by hand, and a run small enough for a test."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments.common.options import Options
from experiments.common.work import Place
from experiments.memorized_samples import runs as study
from experiments.memorized_samples.claims import judged
from landscape import load
from landscape.tasks import Recipe

GIVEN = Options(None, 1000, 8, (0, 1, 2, 3, 4), Path("runs"), 1, "cpu", False)


def runs_of(values: dict[str, float], spread: float = 0.001) -> list[dict]:
    """Runs on digits whose AUROCs are these, a little different for each seed."""
    return [
        {
            "item": item,
            "seconds": 1.0,
            "auroc": {
                name: {"value": v + spread * v * (item["seed"] - 2), "low": 0.0, "high": 1.0} for name, v in values.items()
            },
            "wrong_labels_fitted": 0.99,
            "test_accuracy": 0.9,
        }
        for item in study.planned(GIVEN)
    ]


def claims(runs: list[dict], peer: list[dict] = ()) -> dict[str, dict]:
    found = judged(runs, {"runs": peer}, GIVEN)["claims"]
    return {c["claim"].partition(":")[0]: c for c in found}


def test_labels_are_redrawn_so_that_the_share_asked_for_is_wrong():
    levels = {item["wrong"]: Recipe(**item["recipe"]).corruption_level for item in study.planned(GIVEN)}
    assert {wrong: round(0.9 * level, 12) for wrong, level in levels.items()} == {w: w for w in study.WRONG}


@pytest.mark.parametrize(("value", "holds"), [(0.99, True), (0.95, False), (0.97, None)])
def test_the_bar(value, holds):
    scores = dict.fromkeys(study.SCORES, 0.6) | {"forgetting": value}
    found = claims(runs_of(scores))["digits"]
    assert found["holds"] is holds
    assert found["numbers"]["score"] == "forgetting"


def test_orders_are_paired_and_beside_the_peer():
    scores = dict.fromkeys(study.SCORES, 0.6) | {"cumulative_loss": 0.9, "mean_input_curvature": 0.8, "input_curvature": 0.85}
    peer = [run | {"auroc": {study.PEER: run["auroc"]["loss"]}} for run in runs_of(scores)]
    found = claims(runs_of(scores), peer)
    assert found["the cumulative loss finds more than the input curvature"]["holds"] is True
    assert found["the input curvature finds more averaged over training than at its end"]["holds"] is False
    assert found["the cumulative loss finds more than confident learning"]["holds"] is True
    assert len(claims(runs_of(scores))) == 3, "without the peer there is nothing to compare with"


def test_without_cleanlab_the_earlier_result_is_kept(tmp_path, monkeypatch, capsys):
    runs = runs_of(dict.fromkeys(study.SCORES, 0.6))
    peer = {"cleanlab": "0.0.1", "now": "installed", "runs": [run | {"auroc": {}} for run in runs[:3]]}
    (tmp_path / "memorized_samples.json").write_text(json.dumps({"peer": peer}))

    def absent(name: str) -> str:
        raise study.PackageNotFoundError(name)

    monkeypatch.setattr(study, "version", absent)
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    monkeypatch.setattr("experiments.common.document.RESULTS", tmp_path)
    kept = study.peer_runs(study.planned(GIVEN), GIVEN)
    assert kept == {"cleanlab": "0.0.1", "now": "not installed", "runs": peer["runs"]}
    assert "not installed; 3 of 20" in capsys.readouterr().out


def test_a_small_run_has_the_auroc_of_its_scores(tmp_path):
    recipe = Recipe(
        samples=80, network_options={"widths": [8]}, corruption="labels", corruption_level=0.3, epochs=10, evaluate_every=5
    )
    place = Place(tmp_path, None, "cpu")
    found = study.one({"data": "digits", "wrong": 0.27, "seed": 0, "recipe": recipe.to_json()}, place)
    assert set(found["auroc"]) == set(study.SCORES)
    task = load(place.trained(replace(recipe), keep_every=1))
    losses = task.objective().losses().numpy()
    assert found["auroc"]["loss"]["value"] == pytest.approx(roc_auc_score(task.extras["wrong_labels"].numpy(), losses))
    assert found["wrong_labels"] == int(np.sum(task.extras["wrong_labels"].numpy()))
