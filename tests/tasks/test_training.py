"""Training: determinism, kill and resume, stopping, refusal; and the checkpoint that comes out."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import small_runs
import torch
from safetensors.torch import save_file
from small_runs import state

from landscape import checkpoints
from landscape.errors import NumericalError, UsageError
from landscape.tasks import DEMO_RECIPES, TRAINING_TASKS, Recipe, customise, load, train
from landscape.tasks.data.by_name import read_data
from landscape.tasks.data.corruption import corrupt
from landscape.tasks.training.snapshot import snapshot_path

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Recipe(network_options={"widths": [16]}, batch_size=64, epochs=3, lr=0.1, momentum=0.5)
# Everything that has a random state or an optimizer state at once; small images so that it stays quick.
FULL = Recipe(
    network="c1",
    network_options={"width": 2},
    data="safetensors",
    batch_size=8,
    optimizer="adam",
    lr=0.01,
    weight_decay=1e-3,
    label_smoothing=0.1,
    mixup=0.5,
    augment=True,
    schedule="cosine",
    epochs=40,
    evaluate_every=4,
    corruption="labels",
    corruption_level=0.3,
)


def same(a, b) -> bool:
    return small_runs.same(state(a), state(b))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    g = torch.Generator().manual_seed(0)
    content = {
        "train_images": torch.randint(256, (97, 3, 8, 8), generator=g).to(torch.uint8),
        "train_labels": torch.randint(4, (97,), generator=g),
        "test_images": torch.randint(256, (30, 3, 8, 8), generator=g).to(torch.uint8),
        "test_labels": torch.randint(4, (30,), generator=g),
    }
    path = tmp_path_factory.mktemp("data") / "pictures.safetensors"
    save_file(content, str(path))
    return path


def test_same_seed_same_bits_and_global_state_left(tmp_path, pictures):
    recipe = replace(FULL, epochs=3)
    before = torch.get_rng_state()
    paths = [train(recipe, out=tmp_path / f"{i}.safetensors", data_path=pictures).path for i in range(2)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.backends.cudnn.benchmark is False
    assert same(*paths)
    other = train(replace(recipe, seed=1), out=tmp_path / "s.safetensors", data_path=pictures).path
    assert not same(paths[0], other)


PROGRAM = """
import json, sys, time, torch
from landscape.tasks import Recipe, train
recipe, out, data, hold, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
def slow(record):
    time.sleep(0.1 if record.epoch < int(hold) else 600)
train(Recipe.from_json(json.loads(recipe)), out=out, data_path=data, progress=slow, save_every=0.05)
"""


def test_killed_and_resumed_equals_uninterrupted(tmp_path, pictures):
    whole = train(FULL, out=tmp_path / "whole.safetensors", data_path=pictures).path
    out = tmp_path / "killed.safetensors"
    command = [sys.executable, "-c", PROGRAM, json.dumps(FULL.to_json()), str(out), str(pictures)]
    positions = []
    # Killed twice, the second time after a resume in a process that has another number of threads. Eight epochs later it waits
    # for its end, however late that comes.
    for epoch, threads in ((2, 1), (14, 2)):
        process = subprocess.Popen([*command, str(epoch + 8), str(threads)], stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline and process.poll() is None:
                if snapshot_path(out).exists() and torch.load(snapshot_path(out), weights_only=True)["epoch"] >= epoch:
                    break
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL, process.stderr.read().decode()
        process.stderr.close()
        kept = torch.load(snapshot_path(out), weights_only=True)
        positions.append((kept["epoch"], kept["step"]))
        assert not out.exists()
    assert positions[0][0] >= 2
    assert positions[1][0] >= 14
    resumed = train(FULL, out=out, data_path=pictures).path
    assert same(whole, resumed)
    first, second = (checkpoints.read(p).recipe for p in (whole, resumed))
    assert first["history"] == second["history"]
    assert first["final"] == second["final"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.safetensors", "whole.safetensors"]


@pytest.mark.parametrize(
    ("stop", "optimizer"), [(1, "adam"), (5, "adam"), (13, "adam"), (14, "adam"), (27, "adam"), (5, "sam"), (14, "sam")]
)
def test_resume_from_any_step(tmp_path, pictures, stop, optimizer, monkeypatch):
    """A run that ends by an exception in the middle of an epoch, without a process."""
    recipe = replace(FULL, epochs=3, evaluate_every=1, optimizer=optimizer, dropout=0.3)
    whole = train(recipe, out=tmp_path / "whole.safetensors", data_path=pictures).path
    out = tmp_path / "cut.safetensors"
    from landscape.tasks.training import by_recipe

    calls = 0
    original = by_recipe.write_snapshot

    def counted(*arguments):
        nonlocal calls
        calls += 1
        original(*arguments)
        if calls == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(by_recipe, "write_snapshot", counted)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=out, data_path=pictures, save_every=0.0)
    monkeypatch.undo()
    assert same(whole, train(recipe, out=out, data_path=pictures).path)


def test_resume_refuses_another_recipe_and_other_data(tmp_path, pictures):
    out = tmp_path / "run.safetensors"
    seen = []

    def stop(record):
        seen.append(record)
        if len(seen) == 2:
            raise KeyboardInterrupt

    recipe = replace(FULL, evaluate_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=out, data_path=pictures, progress=stop, save_every=0.0)
    with pytest.raises(
        UsageError, match=r"expected this recipe's run at .*, found another one: lr 0.5, there 0.01; seed 3, there 0"
    ):
        train(replace(recipe, lr=0.5, seed=3), out=out, data_path=pictures)
    other = tmp_path / "other.safetensors"
    content = {"train_images": torch.zeros(97, 3, 8, 8, dtype=torch.uint8), "train_labels": torch.arange(97) % 4}
    save_file(content, str(other))
    with pytest.raises(UsageError, match=r"expected the data with which .*partial was started, found other data in"):
        train(recipe, out=out, data_path=other)
    assert snapshot_path(out).exists()
    snapshot_path(out).write_bytes(b"not a snapshot")
    with pytest.raises(UsageError, match=r"expected the state of a training run in .*, found another file; delete it"):
        train(recipe, out=out, data_path=pictures)
    assert train(replace(recipe, epochs=1), out=out, data_path=pictures, resume=False).path == out


def test_finished_run_is_returned_and_never_overwritten(tmp_path):
    out = tmp_path / "run.safetensors"
    first = train(SMALL, out=out)
    stamp = os.stat(out).st_mtime_ns
    again = train(SMALL, out=out)
    assert os.stat(out).st_mtime_ns == stamp
    assert again.summary() == first.summary()
    with pytest.raises(UsageError, match="found another one: seed 5, there 0"):
        train(replace(SMALL, seed=5), out=out)
    with pytest.raises(UsageError, match="expected a free path for the checkpoint, found a file at"):
        train(SMALL, out=out, resume=False)
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"my own file")
    with pytest.raises(UsageError, match="expected a free path"):
        train(SMALL, out=mine)
    assert mine.read_bytes() == b"my own file"


def test_unwritable(tmp_path):
    with pytest.raises(UsageError, match=r"expected a name ending in .safetensors, .pt or .pth, found run.txt"):
        train(SMALL, out=tmp_path / "run.txt")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"expected to write .*, found: (Not a directory|File exists)"):
        train(SMALL, out=tmp_path / "file" / "run.safetensors")


def test_full_batch_step_is_the_gradient_step(tmp_path):
    """One step of SGD with weight decay against autograd on the same network, in float64."""
    recipe = Recipe(network_options={"widths": [5]}, batch_size="full", lr=0.3, weight_decay=0.1, epochs=1, dtype="float64")
    trained = state(train(recipe, out=tmp_path / "a.safetensors").path)
    data = read_data("digits")
    x, y = data.train_x.double().flatten(1) / 16, data.train_y
    from landscape.tasks import build

    start = {k: p.double() for k, p in build("mlp", widths=[5]).state_dict().items()}
    leaves = {k: p.clone().requires_grad_() for k, p in start.items()}
    hidden = (x @ leaves["fc1.weight"].T + leaves["fc1.bias"]).clamp(min=0)
    logits = hidden @ leaves["fc2.weight"].T + leaves["fc2.bias"]
    loss = (logits.logsumexp(1) - logits[torch.arange(len(y)), y]).mean()
    gradient = torch.autograd.grad(loss, list(leaves.values()))
    for (name, p), g in zip(start.items(), gradient, strict=True):
        torch.testing.assert_close(trained[name], p - 0.3 * (g + 0.1 * p), rtol=1e-10, atol=1e-12)


def test_stops_at_the_loss_and_tells(tmp_path):
    recipe = replace(SMALL, stop_loss=0.5, epochs=50)
    record = train(recipe, out=tmp_path / "a.safetensors").record
    losses = [row["train_loss"] for row in record["history"]]
    assert record["final"]["stopped"] == "loss"
    assert losses[-1] <= 0.5 < losses[-2]
    assert record["final"]["steps"] == record["final"]["epochs"] * math.ceil(1347 / 64)
    assert train(replace(recipe, epochs=1), out=tmp_path / "b.safetensors").record["final"]["stopped"] == "epochs"


def test_history_agrees_with_the_objective(tmp_path):
    run = train(SMALL, out=tmp_path / "a.safetensors")
    task = load(run.path)
    assert task.checkpoint.path == str(run.path)
    assert len(task.checkpoint.sha256) == 64
    for split in ("train", "test"):
        found = task.objective(split, dtype="float64").evaluate()
        assert found.loss.value == pytest.approx(run.record["final"][f"{split}_loss"], rel=1e-5)
        assert found.accuracy.value == pytest.approx(run.record["final"][f"{split}_accuracy"], rel=1e-12)


def test_cosine_schedule_and_single_left_over(tmp_path, pictures):
    recipe = replace(FULL, epochs=4, evaluate_every=1)
    record = train(recipe, out=tmp_path / "a.safetensors", data_path=pictures).record
    rates = [row["lr"] for row in record["history"]]
    assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * k / 4)) for k in (1, 2, 3, 4)])
    assert record["final"]["steps"] == 4 * 12  # 97 = 12 x 8 + 1, and BatchNorm has no variance of one sample


def test_divergence(tmp_path):
    out = tmp_path / "a.safetensors"
    with pytest.raises(
        NumericalError, match="expected a finite training loss, found nan after epoch 1; train with a learning rate below 1e"
    ):
        train(replace(SMALL, lr=1e30), out=out, save_every=0.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"network": "vgg16"}, "expected a built-in network .*, found 'vgg16'"),
        ({"network": "digits-cnn", "network_options": {"depth": 2}}, "expected options of digits-cnn .*, found 'depth'"),
        ({"corruption": "noise"}, "expected a corruption .*, found 'noise'"),
        ({"data": "cifar10"}, "expected a path for cifar10 data, found none"),
        ({"samples": 2000}, "expected from 1 to 1347 training samples, the whole set, found 2000"),
    ],
)
def test_bad_runs(tmp_path, changes, text):
    with pytest.raises(UsageError, match=text):
        train(replace(SMALL, **{"network_options": {}} | changes), out=tmp_path / "a.safetensors")


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_missing_device(tmp_path, device):
    with pytest.raises(UsageError, match="expected a device of this machine, found"):
        train(SMALL, out=tmp_path / "a.safetensors", device=device)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch_size": 0}, "expected batch size as a number of at least 1, a fraction below 1, or 'full', found 0"),
        ({"batch_size": 1.5}, "found 1.5"),
        ({"batch_size": "half"}, "found 'half'"),
        ({"batch_size": True}, "found True"),
        ({"optimizer": "lion"}, "expected optimizer as sgd, adam, sam, found 'lion'"),
        ({"lr": float("nan")}, "expected learning rate as a positive number, found nan"),
        ({"lr": -1.0}, "expected learning rate as a positive number, found -1.0"),
        ({"momentum": 1.0}, r"expected momentum as a number in \[0, 1\), found 1.0"),
        ({"rho": 0.0, "optimizer": "sam"}, "expected rho as a positive number, found 0.0"),
        ({"rho": 0.1}, "expected rho with optimizer sam and no other, found 0.1 with sgd; add --optimizer sam"),
        ({"label_smoothing": 1.0}, r"expected label smoothing as a number in \[0, 1\), found 1.0"),
        ({"label_smoothing": None}, r"expected label smoothing as a number in \[0, 1\), found None"),
        ({"mixup": -0.2}, "expected mixup as a positive number, found -0.2"),
        ({"mixup": float("inf")}, "expected mixup as a positive number, found inf"),
        ({"epochs": 0}, "expected epochs as an integer of at least 1, found 0"),
        ({"seed": -1}, "expected seed as an integer of at least 0, found -1"),
        ({"dtype": "float16"}, "expected dtype as float32, float64, bfloat16, found 'float16'"),
        ({"corruption": "labels"}, "expected a corruption level with corruption 'labels' and no other"),
        ({"corruption_level": 0.5}, "found 'clean', level 0.5"),
        ({"network_options": {"a": object()}}, "expected network options as plain values"),
    ],
)
def test_bad_recipes(changes, text):
    with pytest.raises(UsageError, match=text):
        Recipe(**changes)


def test_recipe_survives_json():
    for recipe in (
        *DEMO_RECIPES.values(),
        *(t.recipe for t in TRAINING_TASKS.values()),
        FULL,
        Recipe(network_options={"widths": (3, 4)}),
    ):
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    old = Recipe(lr=0.3).to_json()
    for added in ("rho", "label_smoothing", "mixup"):  # recipes of older checkpoints have none of these
        del old[added]
    assert Recipe.from_json(old) == Recipe(lr=0.3)
    with pytest.raises(UsageError, match="expected a training recipe, found colour"):
        Recipe.from_json({"colour": 3})
    with pytest.raises(UsageError, match="expected a training recipe, found list"):
        Recipe.from_json([])


def test_customise():
    recipe = customise(
        "cifar-resnet20", lr=None, seed=3, corruption="labels", corruption_level=0.2, network_options={"width": 4}
    )
    assert (recipe.lr, recipe.seed, recipe.augment, recipe.network_options) == (0.1, 3, False, {"width": 4})
    assert customise("cifar-resnet20", corruption="random-labels", augment=True).augment
    with pytest.raises(UsageError, match=r"expected a training task .*, found 'mnist'"):
        customise("mnist")
    with pytest.raises(UsageError, match=r"expected fields of a recipe .*, found 'speed'"):
        customise("digits-mlp", speed=3)


def test_corruption_is_inside_the_checkpoint(tmp_path):
    recipe = replace(SMALL, corruption="labels", corruption_level=0.4, epochs=2, corruption_seed=7)
    run = train(recipe, out=tmp_path / "a.safetensors")
    data = read_data("digits")
    expected = corrupt(data.train_x, data.train_y, "labels", classes=10, seed=7, level=0.4)
    task = load(run.path)
    assert torch.equal(task.train[1], expected.y)
    assert torch.equal(task.test[1], data.test_y)
    assert torch.equal(task.extras["wrong_labels"], expected.wrong)
    assert torch.equal(task.extras["redrawn_labels"], expected.redrawn)
    assert run.record["final"]["wrong_labels"] == int(expected.wrong.sum())
    assert 0 < run.record["final"]["wrong_labels_fitted"] < 1


def test_history_has_the_shares_of_wrong_and_of_clean_labels_that_are_fitted(tmp_path):
    """Against predictions of the weights kept at every epoch."""
    recipe = replace(SMALL, corruption="labels", corruption_level=0.4, network_options={"widths": [16], "batchnorm": True})
    run = train(recipe, out=tmp_path / "a.safetensors", keep_every=1)
    data = read_data("digits")
    noisy = corrupt(data.train_x, data.train_y, "labels", classes=10, seed=0, level=0.4)
    from landscape.tasks import build

    model = build("mlp", widths=[16], batchnorm=True).eval()
    for row in run.record["history"]:
        model.load_state_dict(state(run.trajectory / f"epoch-{row['epoch']:04d}.safetensors"))
        with torch.no_grad():
            hits = [int(a) == int(b) for a, b in zip(model(data.train_x.float() / 16).argmax(1), noisy.y, strict=True)]
        wrong = [hit for hit, bad in zip(hits, noisy.wrong.tolist(), strict=True) if bad]
        clean = [hit for hit, bad in zip(hits, noisy.wrong.tolist(), strict=True) if not bad]
        assert row["wrong_labels_fitted"] == pytest.approx(sum(wrong) / len(wrong), abs=1e-12)
        assert row["clean_labels_fitted"] == pytest.approx(sum(clean) / len(clean), abs=1e-12)
    final = run.record["final"]
    assert {k: final[k] for k in run.record["history"][-1]} == run.record["history"][-1]
    clean = train(SMALL, out=tmp_path / "b.safetensors").record["final"]
    assert clean["wrong_labels_fitted"] is None
    assert clean["clean_labels_fitted"] == clean["train_accuracy"]


def test_memorizes_random_labels(tmp_path):
    """The demo's claim on fewer samples, so that it takes a second."""
    recipe = replace(DEMO_RECIPES["random-labels"], samples=200)
    final = train(recipe, out=tmp_path / "a.safetensors").record["final"]
    assert final["stopped"] == "loss"
    assert final["train_accuracy"] >= 0.99
    assert final["wrong_labels_fitted"] >= 0.99
    assert final["test_accuracy"] < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", DEMO_RECIPES)
def test_demo_recipes(tmp_path, name):
    final = train(DEMO_RECIPES[name], out=tmp_path / "a.safetensors").record["final"]
    assert final["stopped"] == "loss"
    assert final["train_accuracy"] >= 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cuda(tmp_path, pictures, dtype):
    recipe = replace(FULL, network="resnet20", network_options={"width": 4, "blocks": 1}, epochs=8, dtype=dtype)
    paths = [train(recipe, out=tmp_path / f"{i}.safetensors", data_path=pictures, device="cuda").path for i in range(2)]
    assert same(*paths)
    found = load(paths[0]).objective().evaluate().loss.value
    assert found == pytest.approx(checkpoints.read(paths[0]).recipe["final"]["train_loss"], rel=1e-3)
