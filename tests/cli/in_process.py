"""Commands run inside the test's own process: a fresh interpreter imports PyTorch for seconds."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from landscape.cli import app


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed on each stream."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a failed command ends with."""
        lines = [line for line in self.err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, self.err
        return lines[0]


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """`landscape ARGUMENTS`."""
    capfd.readouterr()
    code = _exit_code(arguments)
    out, err = capfd.readouterr()
    assert "Traceback" not in err or "--debug" in arguments
    return Done(code, out, err)


def landscape(*arguments: object, cwd: Path | None = None, code: int = 0) -> Done:
    """`landscape ARGUMENTS` in a directory, which must end with this code: one error line after a mistake, none otherwise."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with contextlib.chdir(cwd or Path.cwd()), _written_to(out, "stdout", 1), _written_to(err, "stderr", 2):
            ended = _exit_code(arguments)
        for file in (out, err):
            file.seek(0)
        done = Done(ended, out.read(), err.read())
    assert done.code == code, f"exit {done.code}\n{done.out}\n{done.err}"
    assert "Traceback" not in done.err
    assert "Warning" not in done.err
    if code not in (0, 6):
        assert done.error
    return done


@contextlib.contextmanager
def _written_to(file: IO[str], name: str, descriptor: int) -> Iterator[None]:
    """What Python and what libraries write on one stream goes to a file."""
    before, saved = getattr(sys, name), os.dup(descriptor)
    before.flush()
    os.dup2(file.fileno(), descriptor)
    try:
        with open(descriptor, "w", closefd=False) as stream:
            setattr(sys, name, stream)
            yield
    finally:
        setattr(sys, name, before)
        os.dup2(saved, descriptor)
        os.close(saved)


def _exit_code(arguments: tuple[object, ...]) -> int:
    before = sys.argv
    sys.argv = ["landscape", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as end:
            app.run()
    finally:
        sys.argv = before
    return int(end.value.code or 0)
