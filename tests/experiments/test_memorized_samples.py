"""The verdict on memorized samples from numbers made by hand, and a run small enough for a test."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments.common.options import Options
from experiments.common.work import Place
from experiments.memorized_samples import growth
from experiments.memorized_samples import runs as study
from experiments.memorized_samples.claims import BAR, judged
from experiments.memorized_samples.growth import AUGMENTED, DEEP_WIDE, JPEG, OWN, PLAIN, SHARE, WHOLE
from experiments.memorized_samples.growth_claims import Growth, growth_claims
from landscape import load, samples
from landscape.checkpoints import CheckpointFiles
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
    found = judged(runs, {"runs": peer}, Growth(runs, [], GIVEN.samples), GIVEN)["claims"]
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


def test_a_score_that_leaves_no_room_refutes_nothing_but_what_is_worse():
    text = "the cumulative loss finds more than confident learning"
    scores = dict.fromkeys(study.SCORES, 0.6) | {"cumulative_loss": 0.9995}
    full = [run | {"auroc": {study.PEER: {"value": 0.998}}} for run in runs_of(scores)]
    found = claims(runs_of(scores, spread=1e-5), full)[text]
    assert found["holds"] is None
    assert "no room to be better on digits" in found["ours"]
    assert claims(runs_of(scores | {"cumulative_loss": 0.9}), full)[text]["holds"] is False
    room = [run | {"auroc": {study.PEER: {"value": 0.99}}} for run in runs_of(scores)]
    assert claims(runs_of(scores | {"cumulative_loss": 0.99}, spread=1e-5), room)[text]["holds"] is False, "as good"


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


def grown(values: dict[tuple[str, str, int], float], epochs: dict[int, int] | None = None) -> Growth:
    """Runs of some sizes whose AUROCs are these, a little different for each of three seeds."""
    runs = [
        {
            "item": {"images": images, "variant": variant, "images_used": n, "wrong": SHARE, "seed": seed,
                     "recipe": {"epochs": (epochs or {}).get(n, 2)}},
            "auroc": {name: {"value": value + 0.002 * seed} for name in ("cumulative_loss", "forgetting")},
            "after_epochs": [0.5, value - 0.05 + 0.002 * seed, value + 0.002 * seed],
            "train_accuracy": 1.0, "test_accuracy": 0.5, "wrong_labels_fitted": 1.0, "seconds": 3.0,
        }
        for (images, variant, n), value in values.items() for seed in range(3)
    ]  # fmt: skip
    return Growth([], runs, 1000)


def test_more_images_find_more_or_do_not():
    sizes = {(OWN, PLAIN, n): v for n, v in ((1000, 0.80), (4000, 0.90), (16000, 0.95))}
    grows, reaches = growth_claims(grown(sizes), BAR)
    assert (grows.holds, reaches.holds) == (True, False)
    assert grows.numbers[f"{PLAIN}, {OWN}"]["slope"]["value"] == pytest.approx(0.15 / 4)
    # 1 - AUROC halves with four times the images: 0.03 takes 4^(log2(0.05 / 0.03)) times 16,000, and less for better seeds.
    assert (
        reaches.numbers["needed"]["low"]
        < 16000 * 4 ** np.log2(0.05 / 0.03)
        == pytest.approx(reaches.numbers["needed"]["high"], rel=0.01)
    )
    falls = growth_claims(grown({(OWN, PLAIN, n): v for n, v in ((1000, 0.98), (4000, 0.9))}), BAR)
    assert [c.holds for c in falls] == [False, True]
    assert falls[1].numbers["needed"] is None, "a curve that falls meets no bar"


def test_sizes_are_compared_after_as_many_epochs():
    found = grown({(JPEG, PLAIN, 5000): 0.9, (JPEG, PLAIN, 10000): 0.9}, epochs={5000: 2, 10000: 1})
    (claim, *_) = growth_claims(found, BAR)
    values = [v["value"] for v in claim.numbers[f"{PLAIN}, {JPEG}"]["auroc"]]
    assert values == pytest.approx([0.852, 0.902]), "after one epoch, and at the end of one"


@pytest.mark.parametrize(("after", "holds"), [(0.92, True), (0.88, False), (0.9, None)])
def test_a_change_is_paired_by_seed(after, holds, monkeypatch):
    a, b = (OWN, AUGMENTED, 5000), (OWN, PLAIN, 5000)
    monkeypatch.setattr("experiments.memorized_samples.growth_claims.CHANGED", {"augmented": (a, b)})
    found = grown({b: 0.9, a: after})
    assert growth_claims(found, BAR)[2].holds is holds


def test_runs_with_more_images_are_planned_where_there_are_as_many(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "read_data", lambda spec: type("Data", (), {"train_y": range(int(spec))}))
    sizes = lambda **given: {  # noqa: E731
        (i["images"], i["images_used"]) for i in growth.planned_growth(replace(GIVEN, **given))
    }
    assert sizes() == set(), "no images at all"
    assert sizes(data="1000") == {(OWN, 1000)}
    assert sizes(data="5085", larger="10000") == {(OWN, 1000), (OWN, 5000), (JPEG, 5000), (JPEG, 10000)}
    whole = [i for i in growth.planned_growth(replace(GIVEN, data="5085", larger="50000")) if i["images_used"] == WHOLE]
    assert {i["wrong"] for i in whole if i["variant"] == DEEP_WIDE} == set(study.WRONG)
    assert all(i["recipe"]["corruption_level"] == pytest.approx(i["wrong"] / 0.9) for i in whole)


@pytest.mark.parametrize(
    ("values", "lows", "holds"),
    [
        ({0.01: [0.98], 0.02: [0.98], 0.05: [0.98, 0.982], 0.1: [0.98]}, 0.975, True),
        ({0.01: [0.98], 0.02: [0.98], 0.05: [0.98, 0.982], 0.1: [0.98]}, 0.96, None),  # one seed, and its interval has the bar
        ({0.01: [0.98], 0.02: [0.98], 0.05: [0.94, 0.942], 0.1: [0.98]}, 0.975, False),
        ({0.01: [0.98], 0.05: [0.98, 0.982]}, 0.975, None),  # two shares were not run
    ],
)
def test_the_bar_with_all_images_is_held_to_every_share(values, lows, holds):
    runs = [
        {
            "item": {"images": JPEG, "variant": DEEP_WIDE, "images_used": WHOLE, "wrong": wrong, "seed": seed,
                     "recipe": {"epochs": 2}},
            "auroc": {name: {"value": v, "low": lows, "high": 0.99} for name in ("cumulative_loss", "forgetting")},
            "after_epochs": [0.5, 0.9, v], "train_accuracy": 1.0, "test_accuracy": 0.5, "wrong_labels_fitted": 1.0,
            "seconds": 3.0,
        }
        for wrong, several in values.items() for seed, v in enumerate(several)
    ]  # fmt: skip
    claim = growth_claims(Growth([], runs, 1000), BAR)[2]
    assert f"all {WHOLE:,} images" in claim.claim
    assert claim.holds is holds
    assert claim.numbers["0.05"]["n"] == len(values[0.05]), "over seeds where there are more than one"


def test_the_cheap_scores_are_those_of_the_command(tmp_path):
    recipe = Recipe(
        samples=80, network_options={"widths": [8]}, corruption="labels", corruption_level=0.3, epochs=4, evaluate_every=2
    )
    place = Place(tmp_path, None, "cpu")
    item = {"images": OWN, "variant": PLAIN, "images_used": 80, "wrong": SHARE, "seed": 0, "recipe": recipe.to_json()}
    found = growth.followed(item, place)
    path = place.trained(recipe, keep_every=1)
    task = place.task(recipe, keep_every=1)
    files = CheckpointFiles(path.with_name(f"{path.stem}-trajectory"), task.model)
    wrong = task.extras["wrong_labels"]
    same = samples(task.objective(), study.EVERY_EPOCH, trajectory=files.points(), wrong=wrong).detection
    assert {name: d["value"] for name, d in found["auroc"].items()} == pytest.approx({n: d.auroc for n, d in same.items()})
    after_two = samples(task.objective(), "cumulative_loss", trajectory=files[:3].points(), wrong=wrong).detection
    assert found["after_epochs"][2] == pytest.approx(after_two["cumulative_loss"].auroc)
    assert len(found["after_epochs"]) == 5
