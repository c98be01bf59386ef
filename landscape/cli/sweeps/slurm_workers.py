"""Several processes that run one command as an array of jobs, through submitit: on SLURM, or on this machine to try it."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from landscape.errors import UsageError, first_line

if TYPE_CHECKING:
    import submitit


class Worker:
    """What a job does: run a command of landscape. A job that SLURM preempts or that reaches its time is queued again.

    Args:
        words: the command, without the program's name.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)

    def __call__(self) -> str:
        """Run it, with its output in the job's log.

        Raises:
            RuntimeError: it does not end with 0; submitit stores this.
        """
        done = subprocess.run([sys.executable, "-m", "landscape", *self.words])
        if done.returncode:
            raise RuntimeError(f"landscape {' '.join(self.words)} ended with exit code {done.returncode}")
        return "done"

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """The same command again: it continues where it was."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


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
