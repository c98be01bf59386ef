"""A command under torchrun: one process speaks and writes, and all stop together, with one line that says why."""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from landscape.cli.terminal import Terminal
from landscape.errors import UsageError
from landscape.machine.agreement import check_alike
from landscape.machine.distributed import ALONE, GOES_ON, Group, LostError
from landscape.machine.torchrun import joined, launched
from landscape.version import __version__

RANK, SIZE = launched()
# The commands whose work is a sum over samples or a set of points.
SHARED = ("sharpness", "spectrum", "surface", "reparam", "compare")
# Seconds that a silent process waits for the one that speaks, where they have not come together yet; torchrun ends it sooner.
_LINGER = 10.0
# Seconds to unwind in after a request to stop; a process that waits inside a library for one that is gone is ended then.
_UNWIND = 10.0


class Stopped(KeyboardInterrupt):
    """Somebody told this process to stop: torchrun, after another one failed, or the user by way of it."""


class Interrupted(KeyboardInterrupt):
    """Somebody pressed Ctrl-C; a KeyboardInterrupt of another kind is one that the user's code raised by itself."""


# What ends a command because somebody asked for it.
REQUESTS = (Interrupted, Stopped)


class Crew:
    """The processes of one command, from coming together to telling why they stop.

    Args:
        terminal: silent in all but one of them.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.group: Group = ALONE
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # A run that is told to stop unwinds like one that is interrupted, so that temporary files are removed.
        self._before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _stop)}
        if callable(signal.getsignal(signal.SIGINT)):  # else it is ignored, as in the background of a script
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def join(self, command: str) -> None:
        """Come together; at once where there is only one.

        Raises:
            UsageError: the command cannot be shared.
            LostError: the others did not come.
        """
        if SIZE > 1 and command not in SHARED:
            raise UsageError(
                f"expected a command that processes can share ({', '.join(SHARED)}), found {command}",
                fix=f"run landscape {command} without torchrun",
            )
        self.group = self._stack.enter_context(joined())
        if self.group.size > 1:
            self._stack.enter_context(_Watch(self))

    def compare(self, options: Mapping[str, object]) -> None:
        """Refuse processes that were given different options; files may lie elsewhere on every machine: their bytes count.

        Raises:
            UsageError: they differ.
        """
        if self.group.size == 1:
            return
        flat: dict[str, object] = {}
        for name, value in options.items():
            flat |= vars(value) if is_dataclass(value) else {name: value}
        told = {f"--{n.replace('_', '-')}": repr(v) for n, v in flat.items() if n not in _OWN and not _names_files(v)}
        check_alike(self.group, {"landscape": __version__} | told)

    def wait(self) -> None:
        """Wait until all are done."""
        self.group.everyone(None)

    def tell(self, error: BaseException, text: str, table: Sequence[Sequence[str]] | None = None) -> None:
        """Say why the command fails: once where all fail alike or because one did, else with the number of the process."""
        if SIZE > 1:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the others end, and torchrun with them: first this line
        if self.group.size == 1:
            self.terminal.error(text, table)
            if RANK > 0:
                time.sleep(_LINGER)
            return
        if isinstance(error, (LostError, KeyboardInterrupt)):
            mine = not self.group.said()
        elif isinstance(error, Exception) and self.group.alike(error):
            mine = self.terminal.silent is False and not self.group.said()
        else:
            mine, text = True, f"process {RANK} of {SIZE}: {text}"
            self.group.said()
        if mine:
            Terminal(json=self.terminal.json).error(text, table)
            self.group.done_saying()
        else:
            self.group.until_said()

    def interrupted(self, error: KeyboardInterrupt) -> int:
        """Say that the command was interrupted, or stopped because another process did; the exit code."""
        if SIZE == 1 or not isinstance(error, Stopped):
            self.tell(error, "interrupted")
            return 130
        self.tell(error, _STOPPED)
        return LostError.exit_code


# Options that each process may have its own of, or that name files.
_OWN = frozenset({"out", "device", "memory", "json", "debug", "task", "model", "data"})


def _names_files(value: object) -> bool:
    """Whether an option's value is, or holds, a path."""
    if isinstance(value, (list, tuple)):
        return any(map(_names_files, value))
    return isinstance(value, Path) or (isinstance(value, str) and (os.sep in value or ":" in value))


_STOPPED = f"expected all {SIZE} processes, found that one stopped, or that all were told to; {GOES_ON}"


class _Watch:
    """Ends a process that was told to stop and cannot hear it, because it waits inside a library for one that is gone."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write)
        threading.Thread(target=self._wait, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self._write)

    def _wait(self) -> None:
        while (heard := os.read(self._read, 1)) not in (b"", bytes([signal.SIGTERM])):
            pass
        os.close(self._read)
        if not heard:
            return
        time.sleep(_UNWIND)
        if not self._crew.group.said():
            Terminal(json=False).error(_STOPPED)
        os._exit(LostError.exit_code)


def _stop(*_: object) -> None:
    """What SIGTERM does."""
    raise Stopped


def _interrupt(*_: object) -> None:
    """What Ctrl-C does."""
    raise Interrupted


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line before any command runs; of several processes the first one."""
    if RANK == 0:
        print(text, file=file or sys.stdout)
    else:
        time.sleep(_LINGER)
