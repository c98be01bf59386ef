"""Row 13: what is not a file of bytes; and what every file is asked."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch

from landscape import checkpoints
from landscape.checkpoints.reading import formats
from landscape.errors import MalformedError, UsageError

Refuse = Callable[..., Any]


@pytest.fixture(autouse=True)
def hurry() -> Iterator[None]:
    """Nothing here may wait: what waits for a writer that never comes is ended."""

    def ends(number: int, frame: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ends)
    signal.alarm(200)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_what_is_no_file_with_bytes(tmp_path: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.pt").touch()
    refuse(tmp_path / "empty.pt", 2, r"empty file \(0 bytes\)")
    os.mkfifo(tmp_path / "fifo")
    refuse(tmp_path / "fifo", 2, "a pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refuse(tmp_path / "link", 2, "a dangling link")
    refuse(tmp_path / "nowhere", 2, "found nothing at")
    (tmp_path / "directory").mkdir()
    refuse(tmp_path / "directory", 2, "a directory without model.safetensors.index.json")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refuse(tmp_path / "loop", 2, "cannot be opened")
    refuse(tmp_path / ("x" * 400), 2, "cannot be opened")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # names of sockets must be short
        server.bind("socket")
        refuse(tmp_path / "socket", 2, "a socket")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/random"])
def test_devices(refuse: Refuse, device: str) -> None:
    refuse(Path(device), 2, "a character device")


def test_a_link_to_a_pipe(tmp_path: Path, refuse: Refuse) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link.pt").symlink_to(tmp_path / "fifo")
    refuse(tmp_path / "link.pt", 2, "a pipe")


def test_no_permission(tmp_path: Path, refuse: Refuse) -> None:
    path = tmp_path / "secret.pt"
    path.write_bytes(b"x")
    path.chmod(0)
    tmp_path.chmod(0o755)
    root = os.geteuid() == 0
    if root:  # who may read everything must step down to see the error
        os.seteuid(65534)
    try:
        with pytest.raises(UsageError, match="no permission") as caught:
            checkpoints.read(path)
    finally:
        if root:
            os.seteuid(0)
    assert caught.value.exit_code == 2


def test_a_nul_byte_in_the_path() -> None:
    with pytest.raises(UsageError, match="cannot be opened"):
        formats.open_checkpoint("a\0b")


def test_a_file_over_the_budget_is_the_users_choice(tmp_path: Path, refuse: Refuse) -> None:
    checkpoints.save(tmp_path / "big.safetensors", {"w": torch.zeros(10_000)}, recipe={})
    error = refuse(tmp_path / "big.safetensors", 2, "memory budget", budget=20_000)
    assert error.fix == "raise the budget"
    assert checkpoints.read(tmp_path / "big.safetensors", budget=50_000).size > 40_000
    checkpoints.save(tmp_path / "big.pt", {"w": torch.zeros(10_000)}, recipe={})
    refuse(tmp_path / "big.pt", 2, "memory budget", budget=20_000)


def test_a_pickle_that_starts_like_a_header_length(tmp_path: Path) -> None:
    # 640 is 0x280, whose first two bytes are those of a pickle of protocol 2.
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(0x280)
    (tmp_path / "a.bin").write_bytes(hostile.safetensors(header, b"\0\0\x80\x3f"))
    assert checkpoints.read(tmp_path / "a.bin").weights().state["w"].item() == 1.0


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "a.safetensors"
    checkpoints.save(path, {"w": torch.zeros(3)}, recipe={})
    found = checkpoints.read(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.size == path.stat().st_size


def test_unknown_bytes_with_the_right_ending_get_the_format_s_own_words(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(MalformedError, match="at most 100 MB"):
        checkpoints.read(tmp_path / "a.safetensors")
