"""Output of a command: tables, lines, warnings and progress for a person, one JSON document for a program."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

    def line(self, text: str = "") -> None:
        """Print a line of results; `line()` prints an empty one."""
        self.out.print(escape(printable(text)))

    def note(self, text: str) -> None:
        """Print a remark on stderr."""
        self.err.print(f"[dim]note: {escape(printable(text))}[/]")

    def warn(self, text: str) -> None:
        """Print a warning on stderr: something to check before trusting the numbers."""
        self.err.print(f"[bold yellow]warning:[/] {escape(printable(text))}")

    def error(self, text: str, table: Sequence[Sequence[str]] | None = None) -> None:
        """Print the error that ends a command, after the first rows of a table of details, if there is one."""
        rows = list(table or ())
        for row in rows[:_ROWS]:
            self.err.print(escape("  " + "  ".join(printable(c, limit=100) for c in row)))
        if len(rows) > _ROWS:
            self.err.print(f"  and {len(rows) - _ROWS} more")
        self.err.print(f"[bold red]error:[/] {escape(printable(text, limit=1000))}")

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
            """The remaining time that the work itself reports, else an estimate from its steps."""

            def render(self, task: "Task") -> "Text":
                said: str | None = task.fields.get("left")
                return Text(said) if said else Text("left at most ") + super().render(task)

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Left())
        with Progress(*columns, console=self.err, transient=True) as bars, progress.listening(_Bars(bars, self.note)):
            yield


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
        self.bars.update(handle, left=left_words(seconds, low, high))  # type: ignore[arg-type]  # as above


class _Lines:
    """Progress as a line every ten seconds, for logs."""

    def __init__(self, console: Console, remark: Callable[[str], None]) -> None:
        self.console, self.remark = console, remark
        self.stages: dict[int, tuple[str, int | None, float]] = {}
        self.done: dict[int, int] = {}
        self.known: dict[int, str] = {}  # the remaining time that a stage itself reports
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
        label, total, started = self.stages[handle]
        if now - self.spoken < _PLAIN_SECONDS or now - started < 1 or self.done[handle] == total:
            return
        self.spoken = now
        text = f"{label}: {self.done[handle]}"
        if total and (left := self.paces[handle].left(total - self.done[handle])) is not None:
            text += f" of at most {total}, {now - started:.0f} s, at most {left:.0f} s left"
        told = [f"{self.stages[h][0]}: {self.done[h]} of {self.stages[h][1]}, {words}" for h, words in self.known.items()]
        self.console.print(escape(printable("; ".join([*told, text] if handle not in self.known else told))))

    def finish(self, handle: int) -> None:
        del self.done[handle], self.stages[handle], self.paces[handle]
        self.known.pop(handle, None)

    def left(self, handle: int, seconds: float, low: float, high: float) -> None:
        self.known[handle] = left_words(seconds, low, high)


def left_words(seconds: float, low: float, high: float) -> str:
    """An estimate of the remaining time, with its range.

    Example:
        >>> left_words(200.0, 100.0, 400.0)
        'about 3 min left (2 min to 7 min)'
    """
    return f"about {progress.duration(seconds)} left ({progress.duration(low)} to {progress.duration(high)})"
