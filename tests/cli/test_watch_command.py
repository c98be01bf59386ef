"""`landscape train --watch` and `landscape watch DIR` measure one run alike, and leave it as it is."""

import json

import pytest
from in_process import landscape

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
    assert "watch" not in plain


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
    assert {p.name for p in (tmp_path / "w").iterdir()} == {"run.json", "watch.csv", "watch.json", "watch.png", "watch.pdf"}
    every = ("watch", folder / "a-trajectory", "--every", 2, "--lr", 0.5, "--momentum", 0.9, "--measures", "lambda_max")
    other = json.loads(landscape(*every, "--out", tmp_path / "v", "--json").out)
    assert [c["step"] for c in other["checks"]] == [0, 2]
    assert other["checks"][0]["edges"]["lambda_max"] == pytest.approx(7.6)


def test_mistakes(tmp_path):
    assert "expected measures to watch, found 'sharp'" in landscape("watch", tmp_path, "--measures", "sharp", code=2).error
    assert "expected a folder of checkpoints, found none" in landscape("watch", tmp_path, code=2).error
    told = landscape(*SMALL, "--watch-measures", "sharp", "--out", tmp_path / "c.safetensors", code=2)
    assert "expected measures to watch, found 'sharp'" in told.error
