"""Seconds of `landscape --help` beside a bare typer program of one command, each in a fresh interpreter."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.parts import Options
from benchmarks.record import OURS, ROOT, Row, row
from benchmarks.timing import alternate

BARE = Path(__file__).resolve().parent.parent / "bare.py"


def run(case: Case, options: Options) -> Iterator[Row]:
    """Rows in seconds; the network plays no part."""
    script = Path(sys.executable).parent / "landscape"
    commands = {
        "bare typer": [sys.executable, str(BARE), "--help"],
        OURS: [sys.executable, *([str(script)] if script.exists() else ["-m", "landscape"]), "--help"],
    }
    repeats = 1 if options.quick else 15
    times = alternate({name: _call(c) for name, c in commands.items()}, repeats=repeats, budget=options.budget)
    bare = times["bare typer"].median
    for name, timed in times.items():
        facts = {} if timed.failure else {"of_bare": timed.median / bare}
        yield row("start", "", "--help", name, timed, **facts)


def _call(command: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
