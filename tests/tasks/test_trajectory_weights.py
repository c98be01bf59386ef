"""The weights kept on the way: which, the same bytes whatever was killed, a run that does not notice, refusals."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import SMALL, same, state

from landscape import checkpoints
from landscape.errors import NumericalError, UsageError
from landscape.surfaces.axes.trajectory import project, trajectory_directions
from landscape.tasks import Recipe, build, load, train
from landscape.tasks.training import trainer as loop

pytestmark = pytest.mark.usefixtures("one_thread")


def kept(out: Path) -> dict[str, bytes]:
    folder = out.with_name(f"{out.stem}-trajectory")
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def cut(out: Path, recipe: Recipe, monkeypatch, *, epoch: int, every: int | None = 1, save_every: float = 0.0) -> None:
    """A run that is interrupted in the middle of an epoch."""
    original = loop.Trainer._update

    def until(self, *arguments):
        if self.epoch == epoch and self.step == 3:
            raise KeyboardInterrupt
        original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_update", until)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=out, keep_every=every, save_every=save_every)


def test_epochs_kept_and_the_run_is_the_same(tmp_path):
    with_, without = tmp_path / "with.safetensors", tmp_path / "without.safetensors"
    run = train(SMALL, out=with_, keep_every=2)
    plain = train(SMALL, out=without)
    assert run.trajectory == tmp_path / "with-trajectory"
    assert plain.trajectory is None
    assert not (tmp_path / "without-trajectory").exists()
    assert same(state(with_), state(without))
    first, second = (dict(r.record) | {"seconds": 0} for r in (run, plain))
    assert first == second
    assert sorted(kept(with_)) == [f"epoch-{e:04d}.safetensors" for e in (0, 2, 4, 5)]
    assert same(state(run.trajectory / "epoch-0005.safetensors"), state(with_))
    start = build("mlp", seed=SMALL.seed, widths=[16], dropout=0.2).state_dict()
    assert same(state(run.trajectory / "epoch-0000.safetensors"), start)
    shorter = train(replace(SMALL, epochs=2), out=tmp_path / "two.safetensors")
    assert same(state(run.trajectory / "epoch-0002.safetensors"), state(shorter.path))


def test_each_is_a_checkpoint_like_any_other(tmp_path):
    run = train(SMALL, out=tmp_path / "a.safetensors", keep_every=4)
    for epoch in (0, 4, 5):
        path = run.trajectory / f"epoch-{epoch:04d}.safetensors"
        assert checkpoints.describe(checkpoints.read(path)).candidates
        assert checkpoints.read(path).recipe["epoch"] == epoch
        found = load(path).objective("train").evaluate().loss.value
        if epoch:
            assert found == pytest.approx(run.record["history"][epoch - 1]["train_loss"], rel=1e-5)
        assert path.stat().st_size < 4 * sum(t.numel() for t in state(path).values()) + 4000


def test_batchnorm_s_statistics_are_kept(tmp_path):
    recipe = Recipe(network="digits-cnn", network_options={"width": 2}, samples=64, batch_size=16, epochs=2)
    run = train(recipe, out=tmp_path / "a.pt", keep_every=1)
    assert run.trajectory == tmp_path / "a-trajectory"
    assert same(state(run.trajectory / "epoch-0002.safetensors"), state(run.path))


def test_a_run_that_stops_at_its_loss_keeps_the_end(tmp_path):
    recipe = replace(SMALL, dropout=None, stop_loss=0.5, epochs=100)
    run = train(recipe, out=tmp_path / "a.safetensors", keep_every=1000)
    last = run.record["final"]["epochs"]
    assert 1 < last < 100
    assert sorted(kept(run.path)) == ["epoch-0000.safetensors", f"epoch-{last:04d}.safetensors"]
    assert train(recipe, out=run.path, keep_every=1000).trajectory == run.trajectory  # finished: nothing to do


@pytest.mark.parametrize("epoch", [0, 2, 4])
@pytest.mark.parametrize("save_every", [0.0, 1e9])
def test_interrupted_and_resumed(tmp_path, monkeypatch, epoch, save_every):
    """With a state at every step, and with none at all: the same command starts anew."""
    whole, out = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    train(SMALL, out=whole, keep_every=2)
    cut(out, SMALL, monkeypatch, epoch=epoch, every=2, save_every=save_every)
    stray = tmp_path / "cut-trajectory" / ".epoch-0002.safetensors.123-abc"
    stray.write_bytes(b"half of a file")
    train(SMALL, out=out, keep_every=2)
    stray.unlink(missing_ok=True)
    assert kept(out) == kept(whole)


PROGRAM = """
import json, sys, time, torch
from landscape.tasks import Recipe, train
torch.set_num_threads(1)
recipe = Recipe.from_json(json.loads(sys.argv[1]))
wait = lambda record: time.sleep(0.05 if record.epoch < 10 else 600)
train(recipe, out=sys.argv[2], keep_every=1, save_every=0.0, progress=wait)
"""


def test_killed_and_resumed(tmp_path):
    recipe = replace(SMALL, epochs=12)
    whole, out = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    train(recipe, out=whole, keep_every=1)
    command = [sys.executable, "-c", PROGRAM, json.dumps(recipe.to_json()), str(out)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            if len(list((tmp_path / "killed-trajectory").glob("epoch-*"))) > 4:
                break
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    assert len(kept(out)) < 13
    train(recipe, out=out, keep_every=1)
    assert kept(out) == kept(whole)


def test_resume_refuses_other_epochs(tmp_path, monkeypatch):
    out = tmp_path / "a.safetensors"
    cut(out, SMALL, monkeypatch, epoch=2, every=2)
    with pytest.raises(UsageError, match="expected --keep-every 2, as the run was started with, found --keep-every 1; say the"):
        train(SMALL, out=out, keep_every=1)
    with pytest.raises(UsageError, match="expected --keep-every 2, as the run was started with, found no --keep-every"):
        train(SMALL, out=out)
    (tmp_path / "a-trajectory" / "epoch-0000.safetensors").unlink()
    with pytest.raises(
        UsageError, match=r"expected the weights that the run has kept, found no .*epoch-0000.safetensors; start"
    ):
        train(SMALL, out=out, keep_every=2)
    train(SMALL, out=out, keep_every=1, resume=False)
    assert len(kept(out)) == 6
    other = tmp_path / "b.safetensors"
    cut(other, SMALL, monkeypatch, epoch=2, every=None)
    with pytest.raises(UsageError, match="expected no --keep-every, as the run was started with, found --keep-every 3"):
        train(SMALL, out=other, keep_every=3)


def test_a_finished_run_without_its_trajectory_is_refused(tmp_path):
    out = train(SMALL, out=tmp_path / "a.safetensors").path
    with pytest.raises(UsageError, match=r"expected the trajectory of the finished run .*, found no .*epoch-0000"):
        train(SMALL, out=out, keep_every=5)
    done = train(SMALL, out=tmp_path / "b.safetensors", keep_every=5)
    assert train(SMALL, out=done.path, keep_every=5).trajectory == done.trajectory
    with pytest.raises(UsageError, match=r"found no .*epoch-0001.safetensors; train it again to another --out, or leave out"):
        train(SMALL, out=done.path, keep_every=1)
    shutil.copy(train(replace(SMALL, seed=1), out=tmp_path / "c.safetensors").path, done.trajectory / "epoch-0000.safetensors")
    with pytest.raises(UsageError, match=r"found no .*epoch-0000.safetensors"):
        train(SMALL, out=done.path, keep_every=5)


def test_another_run_s_folder_is_left_alone(tmp_path, monkeypatch):
    out = tmp_path / "a.safetensors"
    cut(out, replace(SMALL, seed=3), monkeypatch, epoch=1, save_every=1e9)
    before = kept(out)
    with pytest.raises(UsageError, match=r"expected an empty folder for the run's trajectory, found .*epoch-0000.safetensors"):
        train(SMALL, out=out, keep_every=1)
    assert kept(out) == before
    note = tmp_path / "a-trajectory" / "notes.txt"
    note.write_text("mine")
    train(replace(SMALL, seed=3), out=out, keep_every=2)
    assert sorted(kept(out)) == [*(f"epoch-{e:04d}.safetensors" for e in (0, 2, 4, 5)), "notes.txt"]


def test_bad_requests(tmp_path):
    with pytest.raises(UsageError, match="expected to keep weights every 1 epoch or more, found 0"):
        train(SMALL, out=tmp_path / "a.safetensors", keep_every=0)
    (tmp_path / "a-trajectory").touch()
    with pytest.raises(UsageError, match=r"expected to write .*a-trajectory, found: File exists"):
        train(SMALL, out=tmp_path / "a.safetensors", keep_every=1)


def test_divergence_keeps_nothing(tmp_path):
    with pytest.raises(NumericalError, match="expected a finite training loss"):
        train(replace(SMALL, dropout=None, lr=1e30), out=tmp_path / "a.safetensors", keep_every=1)
    assert list(tmp_path.iterdir()) == []


def test_principal_directions_of_a_kept_trajectory(tmp_path):
    run = train(replace(SMALL, epochs=8, dropout=None), out=tmp_path / "a.safetensors", keep_every=1)
    task = load(run.path)
    objective = task.objective("train")
    files = checkpoints.CheckpointFiles(run.trajectory, task.model, objective.layout)
    axes = trajectory_directions(objective, files)
    track = project(objective, axes, files, files.names)
    assert track.names == tuple(f"epoch-{e:04d}" for e in range(9))
    assert track.explained == pytest.approx(sum(float(a.name.split()[3]) for a in axes) / 100, abs=1e-3)
    assert track.explained > 0.9
    assert track.coordinates[0, 0] > 0
    assert track.coordinates[-1].tolist() == [0.0, 0.0]  # the end is the centre, to the bit
    assert track.distances[-1] == 0.0
