"""Commands run inside the test's own process: a fresh interpreter imports PyTorch for seconds."""

import sys
from dataclasses import dataclass

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
    before = sys.argv
    sys.argv = ["landscape", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as end:
            app.run()
    finally:
        sys.argv = before
    out, err = capfd.readouterr()
    assert "Traceback" not in err or "--debug" in arguments
    return Done(int(end.value.code or 0), out, err)
