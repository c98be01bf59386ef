"""Output of a command: tables, lines, warnings and progress for a person, one JSON document for a program."""

import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from landscape.errors import printable
from landscape.machine import progress
from landscape.machine.json_values import plain
from landscape.machine.time_estimate import Pace

if TYPE_CHECKING:
    from rich.progress import Progress, Task

_PLAIN_SECONDS = 10.0
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")

_ROWS = 10  # most rows of the table below an error


class Terminal:
    """Prints the output of a command.

    Args:
        json: print text on stderr, and `document` on stdout at the end.
        silent: print nothing; under torchrun one process prints.
        results: the stream of stdout; see `landscape.cli.streams`.

    Every method escapes characters that are not printable, so that a name from a file can neither break a line nor send
    control sequences to the terminal. Callers pass text unescaped.
    """

    def __init__(self, *, json: bool, silent: bool = False, results: TextIO | None = None) -> None:
        self.json = json and not silent
        self.silent = silent
        self.results = results or sys.stdout
        self.out = _console(stderr=json, quiet=silent, file=None if json else results)
        self.err = _console(stderr=True, quiet=silent)
        self.unconverged: list[str] = []
        self._document: dict[str, Any] | None = None
        self._details: set[str] = set()  # of the subject at hand, and of the one before, with rounded numbers
        self._before: set[str] = set()

    def line(self, text: str = "") -> None:
        """Print a line of results; `line()` prints an empty one."""
        self.out.print(escape(printable(text)))

    def note(self, text: str) -> None:
        """Print a remark on stderr."""
        self.err.print(f"[dim]note: {escape(printable(text))}[/]")

    def detail(self, text: str, subject: str = "") -> None:
        """Print a remark on how something is measured; of many in a row, one that holds for the one before is not said again.

        Args:
            text: without a subject it is about time or memory: the same but for numbers that round to the same digit counts as
                said.
            subject: what it is about, such as the name of a file; printed before it.
        """
        about = text if subject else _NUMBER.sub(lambda found: f"{float(found[0].replace(',', '')):.0e}", text)
        self._details.add(about)
        if about not in self._before:
            self.note(f"{subject}: {text}" if subject else text)

    def next_subject(self) -> None:
        """The next of many that are measured alike begins; see `detail`."""
        self._before, self._details = self._details, set()

    def warn(self, text: str) -> None:
        """Print a warning on stderr: something to check before trusting the numbers."""
        self.err.print(f"[bold yellow]warning:[/] {escape(printable(text))}")

    def error(self, text: str, table: Sequence[Sequence[str]] | None = None) -> None:
        """Print the error that ends a command, and below it the first rows of a table of details that it lacks."""
        self.err.print(f"[bold red]error:[/] {escape(printable(text, limit=1000))}")
        rows = [row for row in table or () if not row or f"{printable(row[0], limit=80)}: " not in text]
        if rows:
            self.err.print("the other disagreements (name, in the file, in the model):")
        for row in rows[:_ROWS]:
            self.err.print(escape("  " + "  ".join(printable(c, limit=100) for c in row)))
        if len(rows) > _ROWS:
            self.err.print(f"  and {len(rows) - _ROWS} more")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table. Only the last column may wrap."""
        table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, name in enumerate(head):
            table.add_column(escape(printable(name)), no_wrap=i < len(head) - 1, overflow="fold")
        for row in rows:
            table.add_row(*(escape(printable(cell)) for cell in row))
        self.out.print(table, soft_wrap=False)

    def written(self, paths: Sequence[Path]) -> None:
        """Print the files that the command wrote."""
        for path in paths:
            self.err.print(f"[dim]wrote[/] {escape(printable(str(path)))}")

    def document(self, document: dict[str, Any]) -> None:
        """Set the document that `--json` prints."""
        self._document = document

    def finish(self) -> None:
        """Print the document if `--json` is set."""
        if self.json and self._document is not None:
            json.dump(plain(self._document), self.results, indent=2, allow_nan=False)
            self.results.write("\n")
            self.results.flush()

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show the progress of the work inside the block: bars with the remaining time on a terminal, plain lines elsewhere."""
        if self.silent:
            yield
            return
        if not self.err.is_terminal:
            with progress.listening(_Lines(self.err, self.note)):
                yield
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        class Left(TimeRemainingColumn):
            """The remaining time of the outermost stage that knows one, as it reports it, else from its steps."""

            def render(self, task: "Task") -> "Text":
                first = next(
                    (t for t in bars.tasks if _known(t) or (not t.fields.get("left") and t.time_remaining is not None)), None
                )
                if first is None or task.id != first.id:
                    return Text("")
                said: Told | None = task.fields.get("left")
                return Text(said.words(time.monotonic())) if said else Text("left at most ") + super().render(task)

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Left())
        bars = Progress(*columns, console=self.err, transient=True)
        with bars, progress.listening(_Bars(bars, self.note)):
            yield


def _known(task: "Task") -> bool:
    """Whether a stage itself knows its remaining time."""
    said: Told | None = task.fields.get("left")
    return said is not None and said.known


def _console(*, stderr: bool, quiet: bool, file: TextIO | None = None) -> Console:
    """A console as wide as its terminal; in a file or a pipe it is wide enough for every table."""
    console = Console(stderr=stderr, file=file, highlight=False, soft_wrap=True, quiet=quiet)
    if not console.is_terminal:
        console.width = 200
    return console


class _Bars:
    """Progress on a terminal."""

    def __init__(self, bars: "Progress", remark: Callable[[str], None]) -> None:
        self.bars, self.remark = bars, remark

    def start(self, label: str, total: int | None) -> int:
        return self.bars.add_task(escape(printable(label)), total=total)

    def advance(self, handle: int, steps: int) -> None:
        self.bars.advance(handle, steps)  # type: ignore[arg-type]  # rich's TaskID is an int

    def finish(self, handle: int) -> None:
        self.bars.remove_task(handle)  # type: ignore[arg-type]  # as above

    def left(self, handle: int, seconds: float, low: float, high: float) -> None:
        self.bars.update(handle, left=Told(seconds, low, high, time.monotonic()))  # type: ignore[arg-type]  # as above


class _Lines:
    """Progress as a line every ten seconds, for logs. Of nested stages only one has a time: the outermost that knows it."""

    def __init__(self, console: Console, remark: Callable[[str], None]) -> None:
        self.console, self.remark = console, remark
        self.stages: dict[int, tuple[str, int | None, float]] = {}
        self.done: dict[int, int] = {}
        self.known: dict[int, Told] = {}  # the remaining time that a stage itself reports
        self.paces: dict[int, Pace] = {}
        self.spoken = time.monotonic()
        self.last = 0

    def start(self, label: str, total: int | None) -> int:
        self.last += 1
        handle = self.last
        self.stages[handle] = (label, total, time.monotonic())
        self.done[handle], self.paces[handle] = 0, Pace(time.monotonic())
        return handle

    def advance(self, handle: int, steps: int) -> None:
        self.done[handle] += steps
        now = time.monotonic()
        self.paces[handle].add(steps, now)
        _, total, started = self.stages[handle]
        if now - self.spoken < _PLAIN_SECONDS or now - started < 1 or self.done[handle] == total:
            return
        self.spoken = now
        told = {h: words for h in self.stages if (words := self._time(h, now))}
        timed = next(iter(told), None)
        parts = [self._count(h) + (f", {told[h]}" if h == timed else "") for h in self.stages if h in (timed, handle)]
        self.console.print(escape(printable("; ".join(parts))))

    def _count(self, handle: int) -> str:
        """How far a stage is."""
        label, total, _ = self.stages[handle]
        bound = "" if not total else f" of {total}" if handle in self.known else f" of at most {total}"
        return f"{label}: {self.done[handle]}{bound}"

    def _time(self, handle: int, now: float) -> str:
        """The remaining time of a stage as it reports it, else from its steps; "" before the first of them."""
        if handle in self.known:
            return self.known[handle].words(now)
        _, total, started = self.stages[handle]
        left = self.paces[handle].left(total - self.done[handle]) if total else None
        return "" if left is None else f"{now - started:.0f} s, at most {left:.0f} s left"

    def finish(self, handle: int) -> None:
        del self.done[handle], self.stages[handle], self.paces[handle]
        self.known.pop(handle, None)

    def left(self, handle: int, seconds: float, low: float, high: float) -> None:
        self.known[handle] = Told(seconds, low, high, time.monotonic())


@dataclass(frozen=True)
class Told:
    """An estimate of the remaining time, with its range, and when it was made."""

    seconds: float
    low: float
    high: float
    at: float

    @property
    def known(self) -> bool:
        """Whether there is an estimate: a search without a known end has none."""
        return not math.isnan(self.seconds)

    def words(self, now: float) -> str:
        """The time that is left of it; "" if it is not known.

        Example:
            >>> Told(200.0, 100.0, 400.0, at=0.0).words(50.0)
            'about 2 min left (50 s to 6 min)'
            >>> Told(2.0, 1.0, 4.0, at=0.0).words(3.0)
            'longer than forecast'
        """
        if not self.known:
            return ""
        likely, low, high = (max(x - (now - self.at), 0.0) for x in (self.seconds, self.low, self.high))
        if likely <= 0 < self.seconds:
            return "longer than forecast"
        ends = f"{progress.duration(low)} to" if low > 0 else "at most"
        return f"about {progress.duration(likely)} left ({ends} {progress.duration(high)})"
