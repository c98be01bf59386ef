"""The saved state of a run: one flipped bit never goes on with other weights, and a full disk loses nothing."""

import errno
import os
import resource
import signal
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, same, state

from landscape.errors import NumericalError, UsageError
from landscape.machine import progress
from landscape.tasks import Recipe, train
from landscape.tasks.training import snapshot as states
from landscape.tasks.training.snapshot import before_path, read_snapshot, snapshot_path, write_snapshot

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Ear:
    """A listener that keeps remarks."""

    said: list[str] = field(default_factory=list)

    def start(self, label: str, total: int | None) -> int:
        return 0

    def advance(self, handle: int, steps: int) -> None: ...

    def finish(self, handle: int) -> None: ...

    def remark(self, text: str) -> None:
        self.said.append(text)


def flip(path: Path) -> None:
    """One bit in the middle of the largest record."""
    content = bytearray(path.read_bytes())
    largest = max(zipfile.ZipFile(path).infolist(), key=lambda item: item.file_size)
    head = largest.header_offset
    begin = head + 30 + len(largest.filename) + int.from_bytes(content[head + 28 : head + 30], "little")
    content[begin + largest.file_size // 2 + 2] ^= 64
    path.write_bytes(content)


def cut(out: Path, monkeypatch, calls: int, **options: object) -> None:
    """A run that is interrupted after its state was saved so many times."""
    from landscape.tasks.training import by_recipe

    count = 0

    def counted(*arguments):
        nonlocal count
        count += 1
        write_snapshot(*arguments)
        if count == calls:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(by_recipe, "write_snapshot", counted)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, out=out, save_every=0.0, **options)


def resumed(out: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights that the run ends with, and what it said."""
    ear = Ear()
    with progress.listening(ear):
        train(SMALL, out=out)
    return state(out), ear.said


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    return state(train(SMALL, out=tmp_path_factory.mktemp("whole") / "a.safetensors").path)


@pytest.mark.parametrize(("damaged", "then"), [(1, "continuing from the state before it, at epoch 1"), (2, "starting again")])
def test_a_flipped_bit_is_set_aside_and_said(tmp_path, monkeypatch, whole, damaged, then):
    out = tmp_path / "a.safetensors"
    cut(out, monkeypatch, calls=15)
    hurt = [snapshot_path(out), before_path(out)][:damaged]
    for path in hurt:
        flip(path)
    kept = [path.read_bytes() for path in hurt]
    got, said = resumed(out)
    assert same(got, whole)
    assert len(said) == 1
    assert said[0].startswith("a.safetensors.partial is damaged (")
    assert said[0].endswith(f"; {then}")
    assert [path.with_name(path.name + ".damaged").read_bytes() for path in hurt] == kept, "nothing is thrown away"
    assert not any(path.exists() for path in (snapshot_path(out), before_path(out)))


def test_a_sound_state_says_nothing(tmp_path, monkeypatch, whole):
    cut(tmp_path / "a.safetensors", monkeypatch, calls=15)
    got, said = resumed(tmp_path / "a.safetensors")
    assert said == []
    assert same(got, whole)


@pytest.mark.parametrize("where", ["start", "middle", "end", "empty"])
def test_damage_anywhere_is_never_read(tmp_path, where):
    out = tmp_path / "a.safetensors"
    write_snapshot(out, {"epoch": 3, "w": torch.arange(50.0)})
    content = bytearray(snapshot_path(out).read_bytes())
    if where == "empty":
        content = bytearray()
    else:
        content[{"start": 1, "middle": len(content) // 2, "end": len(content) - 30}[where]] ^= 1
    snapshot_path(out).write_bytes(content)
    if where == "start":  # its first bytes tell what a file is
        with pytest.raises(UsageError, match="found another file"):
            read_snapshot(out)
    else:
        assert read_snapshot(out) is None


@pytest.mark.parametrize(("what", "times"), [(".partial", 12), (".safetensors", 3)])
def test_a_full_disk_loses_nothing_and_the_run_goes_on(tmp_path, monkeypatch, whole, what, times):
    out = tmp_path / "a.safetensors"
    left = [times]

    def full(path, content, **options):
        if Path(path).suffix == what:
            left[0] -= 1
            if left[0] < 0:
                raise UsageError("expected to write, found: No space left on device", fix="free some space")
        return real(path, content, **options)

    real = states.write
    with monkeypatch.context() as patch:
        patch.setattr(states, "write", full)
        patch.setattr(sys.modules["landscape.checkpoints.saving"], "write", full)
        with pytest.raises(UsageError, match="No space left on device"):
            train(SMALL, out=out, save_every=0.0, keep_every=1)
    folder = tmp_path / "a-trajectory"
    assert snapshot_path(out).is_file()
    there = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(there) >= 2
    train(SMALL, out=out, keep_every=1)
    assert same(state(out), whole)
    assert len(list(folder.iterdir())) == 6
    assert all((folder / name).read_bytes() == content for name, content in there.items())


def test_a_real_full_disk(tmp_path, monkeypatch):
    """The system's own refusal, by a limit on what a file may hold, is the same line."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(UsageError, match=os.strerror(errno.EFBIG) + "; free some space and run the same command again"):
            train(SMALL, out=tmp_path / "a.safetensors", keep_every=1, save_every=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.name for p in (tmp_path / "a-trajectory").iterdir()] == ["epoch-0000.safetensors"]


def test_a_run_that_diverges_keeps_nothing(tmp_path):
    recipe = Recipe(network_options={"widths": [16]}, batch_size=128, epochs=5, lr=1e30)
    with pytest.raises(NumericalError, match="expected a finite training loss"):
        train(recipe, out=tmp_path / "a.safetensors", save_every=0.0, keep_every=1)
    assert list(tmp_path.iterdir()) == []
