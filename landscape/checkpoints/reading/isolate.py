"""Parse a file in a child process: start it, wait for it, and accept only tensors and JSON from it."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from landscape.checkpoints.reading import messages, safetensors_file
from landscape.checkpoints.reading.contents import Contents
from landscape.checkpoints.reading.formats import Kind, Part
from landscape.errors import MalformedError, UnsafeError, UsageError, printable

_START = 120  # seconds to import torch on a slow disk
_PARSE = 60  # seconds of processor time for any file, plus time by size
_BYTES_PER_SECOND = 20_000_000
_METADATA_PER_SECOND = 200_000  # of pickled objects, an opcode every three bytes


def parse_apart(file: BinaryIO, kind: Kind | Part, size: int, budget: int, *more: str) -> Contents:
    """Parse an open file in a child process. `more` are further arguments of the child.

    Raises:
        LandscapeError: the error that the child found, or that the child was stopped by the file.
    """
    # Both files are unnamed, so nothing remains if a process is killed.
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as complaints:
        status = run_child(file, kind, size, budget, answer, complaints, *more)
        complaints.seek(0)
        last = complaints.read(1 << 20).decode("utf-8", "replace").strip().split("\n")[-1]
        return take(answer, status, printable(last, limit=200))


def run_child(
    file: BinaryIO, kind: Kind | Part, size: int, budget: int, answer: BinaryIO, complaints: BinaryIO, *more: str
) -> int:
    """Run the child to its end; returns its exit status, negative for a signal as in subprocess."""
    seconds = _PARSE + size // (_METADATA_PER_SECOND if kind == "distributed metadata" else _BYTES_PER_SECOND)
    arguments = [kind, str(budget), str(seconds), *more]
    command = [sys.executable, "-P", "-m", "landscape.checkpoints.reading.parser_process", *arguments]
    file.seek(0)
    try:
        done = subprocess.run(
            command, stdin=file, stdout=answer, stderr=complaints, env=_environment(), timeout=_START + 2 * seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise MalformedError(f"expected a file that parses in {seconds} s, found one that takes longer") from None
    return done.returncode


def take(answer: BinaryIO, status: int, complaint: str) -> Contents:
    """Read the child's answer, checked like any other file."""
    if status == messages.CAUGHT:
        raise UnsafeError(f"expected weights, found a file that tried to run code ({complaint}); it was stopped")
    if status < 0:
        name = signal.Signals(-status).name
        raise MalformedError(f"expected a file that can be read, found one that ended its reader with {name}")
    size = answer.seek(0, os.SEEK_END)
    if status != 0 or size == 0:
        raise UsageError(
            f"expected the process that reads checkpoints to start, found: {complaint}", fix="run `landscape doctor`"
        )
    header = safetensors_file.read_header(answer, size, budget=sys.maxsize)
    tensors = safetensors_file.read_tensors(answer, header)
    return messages.rebuild(safetensors_file.parse_json(header.metadata["report"].encode(), "the answer"), tensors)


def _environment() -> dict[str, str]:
    """The parent's environment and import path, without variables that change how torch loads."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TORCH_", "COV_", "PYTHON"))}
    package = str(Path(__file__).resolve().parents[3])
    environment["PYTHONPATH"] = os.pathsep.join([package, *(entry for entry in sys.path if os.path.isabs(entry))])
    environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    return environment
