"""`landscape train --watch` and `landscape watch DIR` measure one run alike, and leave it as it is."""

import json
from dataclasses import replace

import pytest
from in_process import landscape

from landscape.watching import MemorizationAlarm

SMALL = ("train", "digits-mlp", "--epochs", 2, "-M", "widths=[8]", "--samples", 96, "--batch", 32, "--optimizer", "sgd")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    watched = (*SMALL, "--keep-every", 1, "--watch-every", 3, "--out", folder / "a.safetensors", "--json")
    plain = (*SMALL, "--out", folder / "b.safetensors", "--json")
    return folder, json.loads(landscape(*watched).out), json.loads(landscape(*plain).out), watched


def test_a_watched_run_is_the_same_run(run):
    from landscape import checkpoints

    folder, watched, plain, _ = run
    a, b = (checkpoints.read(folder / name).weights().state for name in ("a.safetensors", "b.safetensors"))
    assert all(bool((a[name] == b[name]).all()) for name in a)
    assert watched["train_loss"] == plain["train_loss"]
    history = watched["watch"]
    assert [c["step"] for c in history["checks"]] == [0, 3, 6]
    assert {"lambda_max", "trace", "critical_sharpness"} <= set(history["checks"][0]["measures"])
    assert history["checks"][0]["edges"]["lambda_max"] > 0
    for suffix in ("csv", "json", "png", "pdf"):
        assert (folder / f"a-watch.{suffix}").stat().st_size > 100
    assert (folder / "a-watch-trace.png").stat().st_size > 100
    assert "watch" not in plain


def test_with_adam_what_has_an_edge_is_measured_of_the_chosen_weights_within_a_budget(tmp_path):
    adam = ("train", "digits-mlp", "--epochs", 2, "-M", "widths=[8]", "--samples", 96, "--batch", 32, "--optimizer", "adam")
    asked = ("--watch-every", 1, "--watch-params", "fc1", "--watch-budget", 1, "--out", tmp_path / "a.safetensors", "--json")
    history = json.loads(landscape(*adam, *asked).out)["watch"]
    last = history["checks"][-1]
    assert last["step"] > 0
    assert last["edges"]["preconditioned_lambda_max"] > 0
    assert last["measures"]["preconditioned_lambda_max"]["value"] > 0
    assert [name for name in last["measures"] if name.startswith("trace/")] == ["trace/fc1"]
    assert history["budget"] == 1
    assert history["provenance"]["params"] == ["fc1"]
    assert "expected a budget between 0 and 1, found 5" in landscape(*adam, "--watch-budget", 5, code=2).error


def test_a_finished_run_has_nothing_to_watch(run):
    again = landscape(*run[3])
    assert json.loads(again.out)["watch"] is None
    assert "nothing was watched" in again.err


def test_the_folder_of_checkpoints_gives_the_same_numbers(run, tmp_path):
    folder, watched, _, _ = run
    arguments = ("watch", folder / "a-trajectory", "--measures", "lambda_max,layer_traces", "--out", tmp_path / "w", "--json")
    found = json.loads(landscape(*arguments).out)
    assert [c["step"] for c in found["checks"]] == [0, 1, 2]
    during = {c["step"]: c for c in watched["watch"]["checks"]}
    for epoch, step in ((0, 0), (1, 3), (2, 6)):
        then, now = during[step], found["checks"][epoch]
        assert now["loss"] == pytest.approx(then["loss"], rel=1e-5)
        error = now["measures"]["lambda_max"]["stderr"] + then["measures"]["lambda_max"]["stderr"]
        assert abs(now["measures"]["lambda_max"]["value"] - then["measures"]["lambda_max"]["value"]) <= error
        assert now["edges"]["lambda_max"] == pytest.approx(then["edges"]["lambda_max"])
    assert {p.name for p in (tmp_path / "w").iterdir()} == {
        "run.json", "watch.csv", "watch.json", "watch.png", "watch.pdf", "watch-layer_traces.png", "watch-layer_traces.pdf",
    }  # fmt: skip
    every = ("watch", folder / "a-trajectory", "--every", 2, "--lr", 0.5, "--momentum", 0.9, "--measures", "lambda_max")
    other = json.loads(landscape(*every, "--out", tmp_path / "v", "--json").out)
    assert [c["step"] for c in other["checks"]] == [0, 2]
    assert other["checks"][0]["edges"]["lambda_max"] == pytest.approx(7.6)


def test_momentum_alone_changes_the_edge_of_the_recipe_or_is_refused(run, tmp_path):
    folder = run[0] / "a-trajectory"
    edges = {}
    for momentum in (None, 0.5):
        asked = () if momentum is None else ("--momentum", momentum)
        told = landscape("watch", folder, "--measures", "lambda_max", *asked, "--out", tmp_path / f"m{momentum}", "--json")
        edges[momentum] = json.loads(told.out)["checks"][0]["edges"]["lambda_max"]
    import landscape as ls

    used = ls.load(sorted(folder.glob("*.safetensors"))[0]).recipe["training"]
    assert edges[None] == pytest.approx((2 + 2 * (used["momentum"] or 0.0)) / used["lr"])
    assert edges[0.5] == pytest.approx(3 / used["lr"])
    refused = landscape("watch", folder, "--momentum", 1.7, code=2).error
    assert "expected a momentum from 0 to less than 1, found 1.7" in refused
    assert "expected a positive learning rate, found 0" in landscape("watch", folder, "--lr", 0, code=2).error
    adam = ("train", "digits-mlp", "--epochs", 1, "-M", "widths=[4]", "--samples", 64, "--optimizer", "adam", "--keep-every", 1)
    landscape(*adam, "--out", tmp_path / "adam.safetensors")
    refused = landscape("watch", tmp_path / "adam-trajectory", "--momentum", 0.9, code=2).error
    assert "expected --lr with --momentum" in refused


def test_epochs_are_called_epochs_everywhere(run, tmp_path):
    from landscape.report.over_training.watched import draw_watched
    from landscape.results import WatchHistory

    out = tmp_path / "w"
    arguments = ("watch", run[0] / "a-trajectory", "--measures", "lambda_max,layer_traces", "--lr", 1e4, "--out", out, "--json")
    told = landscape(*arguments)
    history = WatchHistory.from_json(json.loads(told.out))
    assert history.counted == "epoch"
    assert history.cells().head[0] == "epoch"
    assert "from the start: lambda_max" in str(history)
    assert "at epoch 0, the first check with both" in str(history)
    assert " step" not in str(history)
    assert (out / "watch.csv").read_text().startswith("epoch,loss,")
    assert json.loads((out / "watch.json").read_text())["counted"] == "epoch"
    for measure in ("lambda_max", "layer_traces"):
        axes = draw_watched(history, measure=measure)
        axes.figure.canvas.draw()
        assert axes.get_xlabel() == "epoch of training"
        assert all(float(t).is_integer() for t in axes.get_xticks())
        assert not any("step" in t.get_text() for t in axes.get_legend().get_texts())


def test_weights_that_are_held_are_those_of_their_own_checkpoint(run, tmp_path):
    import landscape as ls

    folder = run[0] / "a-trajectory"
    arguments = ("watch", folder, "--params", "fc1", "--measures", "lambda_max,layer_traces", "--out", tmp_path / "w", "--json")
    found = json.loads(landscape(*arguments).out)
    assert list(found["checks"][0]["measures"]) == ["lambda_max", "trace/fc1"]
    assert found["provenance"]["params"] == ["fc1"]
    for check, path in zip(found["checks"], sorted(folder.glob("*.safetensors")), strict=True):
        alone = replace(ls.load(path), params=["fc1"]).objective()
        assert check["loss"] == pytest.approx(alone.value().value, rel=1e-6)
        top = ls.eigenpairs(alone, 1, tol=1e-5).values[0]
        assert check["measures"]["lambda_max"]["value"] == pytest.approx(float(top), rel=1e-4)
    assert found["memorization"]["reason"] == "there is one layer only"


def test_the_alarm_is_told_in_every_form(run, tmp_path):
    folder, watched, _, _ = run
    assert watched["watch"]["memorization"]["threshold"] == pytest.approx(MemorizationAlarm().threshold)
    assert len(watched["watch"]["memorization"]["sums"]) == 3
    told = landscape("watch", folder / "a-trajectory", "--measures", "layer_traces", "--out", tmp_path / "w")
    assert "memorization alarm: " in told.err


def test_mistakes(tmp_path):
    assert "expected measures to watch, found 'sharp'" in landscape("watch", tmp_path, "--measures", "sharp", code=2).error
    assert "expected a folder of checkpoints, found none" in landscape("watch", tmp_path, code=2).error
    told = landscape(*SMALL, "--watch-measures", "sharp", "--out", tmp_path / "c.safetensors", code=2)
    assert "expected measures to watch, found 'sharp'" in told.error
