"""A command under torchrun: one process prints and writes, and all stop together with one line that says why."""

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
# The commands that can divide their work: it is a sum over samples or a set of points.
SHARED = ("sharpness", "spectrum", "surface", "reparam", "compare")
# Seconds that a silent process waits for the printing one if the group has not formed; torchrun usually ends it sooner.
_LINGER = 10.0
# Seconds to clean up after a request to stop. A process that still waits inside a library for a lost one is then ended.
_UNWIND = 10.0


class Stopped(KeyboardInterrupt):
    """SIGTERM: torchrun stopped this process, because another one failed or because the user stopped torchrun."""


class Interrupted(KeyboardInterrupt):
    """SIGINT: the user pressed Ctrl-C. Any other KeyboardInterrupt was raised by the user's code."""


# The exceptions that end a command on request.
REQUESTS = (Interrupted, Stopped)


class Crew:
    """The processes of one command: they form a group, run, and report why they stop.

    Args:
        terminal: silent in all processes but one.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.group: Group = ALONE
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # SIGTERM raises like Ctrl-C does, so that temporary files are removed.
        self._before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _stop)}
        if callable(signal.getsignal(signal.SIGINT)):  # not if it is ignored, as in a script's background jobs
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def join(self, command: str) -> None:
        """Form the group of processes; does nothing for a single process.

        Raises:
            UsageError: the command cannot be divided among processes.
            LostError: another process did not join.
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
        """Check that all processes have the same options. Paths may differ between machines: the files' bytes are compared.

        Raises:
            UsageError: the options differ.
        """
        if self.group.size == 1:
            return
        flat: dict[str, object] = {}
        for name, value in options.items():
            flat |= vars(value) if is_dataclass(value) else {name: value}
        told = {f"--{n.replace('_', '-')}": repr(v) for n, v in flat.items() if n not in _OWN and not _names_files(v)}
        check_alike(self.group, {"landscape": __version__} | told)

    def wait(self) -> None:
        """Wait until all processes are done."""
        self.group.everyone(None)

    def tell(self, error: BaseException, text: str, table: Sequence[Sequence[str]] | None = None) -> None:
        """Report why the command fails: once if all fail alike or because of one, else with the number of the process."""
        if SIZE > 1:
            signal.signal(
                signal.SIGTERM, signal.SIG_IGN
            )  # torchrun ends this process as soon as another one exits: print first
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
        """Report that the command was interrupted, or stopped with another process; return the exit code."""
        if SIZE == 1 or not isinstance(error, Stopped):
            self.tell(error, "interrupted")
            return 130
        self.tell(error, _STOPPED)
        return LostError.exit_code


# Options that may differ between processes, or that name files.
_OWN = frozenset({"out", "device", "memory", "json", "debug", "task", "model", "data"})


def _names_files(value: object) -> bool:
    """Whether an option's value is or contains a path."""
    if isinstance(value, (list, tuple)):
        return any(map(_names_files, value))
    return isinstance(value, Path) or (isinstance(value, str) and (os.sep in value or ":" in value))


_STOPPED = f"expected all {SIZE} processes, found that one stopped, or that torchrun was stopped; {GOES_ON}"


class _Watch:
    """Ends a process that cannot react to SIGTERM because it waits inside a library for a process that is gone."""

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
    """Handler of SIGTERM."""
    raise Stopped


def _interrupt(*_: object) -> None:
    """Handler of SIGINT."""
    raise Interrupted


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line before any command runs; under torchrun only the first process prints."""
    if RANK == 0:
        print(text, file=file or sys.stdout)
    else:
        time.sleep(_LINGER)
