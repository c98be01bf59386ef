"""Several processes that run one command as an array of jobs, through submitit: on SLURM, or on this machine to try it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from landscape.errors import UsageError, first_line

if TYPE_CHECKING:
    import submitit


_GRACE = 20.0  # seconds for a command to stop; submitit's signal comes 90 s before SLURM ends a job, 30 s on this machine


class Worker:
    """What a job does: run a command of landscape. A job that SLURM preempts or that reaches its time is queued again.

    Args:
        words: the command, without the program's name.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> str:
        """Run it, with its output in the job's log. However this ends, the command has ended before.

        Raises:
            RuntimeError: it does not end with 0; submitit stores this.
        """
        self._process = subprocess.Popen([sys.executable, "-m", "landscape", *self.words], preexec_fn=_deaf)
        try:
            # Not `wait`: it holds a lock, and submitit calls `checkpoint` in the middle of it.
            while (code := self._process.poll()) is None:
                time.sleep(0.1)
        finally:
            self.stop()
        if code:
            raise RuntimeError(f"landscape {' '.join(self.words)} ended with exit code {code}")
        return "done"

    def stop(self) -> None:
        """Ask the command to end, so that it gives up its claim, and wait for it; after 20 s it is killed."""
        process, last = self._process, time.monotonic() + _GRACE
        if process is None or process.poll() is not None:
            return
        process.terminate()
        while process.poll() is None and time.monotonic() < last:
            time.sleep(0.1)
        process.kill()

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """The same command again: it continues where it was. submitit calls this in its handler of the job's signal."""
        import submitit

        self.stop()
        return submitit.helpers.DelayedSubmission(Worker(self.words))


def _deaf() -> None:
    """Let the command ignore the signal that a job gets before its end: SLURM may send it to all processes of the job."""
    name = f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"
    signal.signal(getattr(signal, name, signal.SIGUSR2), signal.SIG_IGN)


def submit(words: Sequence[str], folder: Path, workers: int, options: Sequence[str]) -> list[str]:
    """Submit one array of jobs that all run a command.

    Args:
        words: the command, without the program's name.
        folder: folder of the logs and of submitit's files, created if missing.
        workers: number of jobs.
        options: KEY=VALUE for `submitit.AutoExecutor.update_parameters`: timeout_min, slurm_partition, ...; `cluster=local`
            starts processes on this machine instead.

    Returns:
        Identifiers of the jobs.

    Raises:
        UsageError: submitit is not installed, an option is unknown, or the jobs cannot be submitted.
    """
    try:
        import submitit
    except ImportError:
        raise UsageError(
            "expected submitit for --slurm, found it not installed", fix="pip install 'landscape-sharpness[slurm]'"
        ) from None
    given: dict[str, str | int] = {"name": "landscape"}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"expected --slurm-option KEY=VALUE, found {text!r}", fix="for example timeout_min=120")
        given[key] = int(value) if value.isascii() and value.isdecimal() else value
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=str(given.pop("cluster", "slurm")))
        executor.update_parameters(**given)
        with executor.batch():
            jobs = [executor.submit(Worker(words)) for _ in range(workers)]
    except Exception as error:  # submitit raises many types, for options and for what sbatch prints
        raise UsageError(
            f"expected to submit {workers} jobs, found {first_line(error)}",
            fix="see submitit's parameters for --slurm-option, or run this command in several processes without --slurm",
        ) from error
    return [job.job_id for job in jobs]
