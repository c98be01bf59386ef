"""Fixtures of the checkpoint tests: a canary, files on disk, and a child that is quick to start."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from landscape import checkpoints
from landscape.checkpoints.reading import isolate
from landscape.errors import LandscapeError

BUDGET = 64 << 20


class ForkServer:
    """The other end of fork_worker.py, in the shape of `isolate.run_child`."""

    def __init__(self) -> None:
        self.connection, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("fork_worker.py")), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=isolate._environment(),
            )

    def run_child(
        self, file: BinaryIO, kind: str, size: int, budget: int, answer: BinaryIO, complaints: BinaryIO, *more: str
    ) -> int:
        file.seek(0)
        message = json.dumps([kind, str(budget), "60", *more]).encode()
        socket.send_fds(self.connection, [message], [file.fileno(), answer.fileno(), complaints.fileno()])
        reply = self.connection.recv(64)
        assert reply, "the fork server died"
        return int(reply)

    def close(self) -> None:
        self.connection.close()
        self.process.wait(timeout=100)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def quick(fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start children by a fork; everything after the start of Python is the same."""
    monkeypatch.setattr(isolate, "run_child", fork_server.run_child)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A path that only executed code would create."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code from the file was executed"


Refuse = Callable[..., LandscapeError]


@pytest.fixture
def refuse(canary: Path) -> Refuse:
    """Read a file that must be refused: the kind, its exit code, the words, one line, and the file left as it was."""

    def check(path: Path, code: int, words: str, *, budget: int = BUDGET) -> LandscapeError:
        before = hashlib.sha256(path.read_bytes()).digest() if os.path.isfile(path) else None
        with pytest.raises(LandscapeError) as caught:
            checkpoints.read(path, budget=budget)
        message = str(caught.value)
        assert caught.value.exit_code == code, message
        assert re.search(words, message), message
        assert message.isprintable()
        assert len(message) < 1500
        if before is not None:
            assert hashlib.sha256(path.read_bytes()).digest() == before
        return caught.value

    return check


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes to a file and return its path."""

    def write(content: bytes, name: str = "ckpt.pt") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write
