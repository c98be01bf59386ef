"""The child process that parses every format except safetensors.

It is started as `python -P -m landscape.checkpoints.reading.parser_process KIND BUDGET SECONDS [LIST]`.

Standard input is the checkpoint; standard output is the answer, a safetensors stream of the tensors with everything else as
JSON in its metadata. The process limits its memory, time and output, and stops if anything tries to start a program, open a
socket or write a file.
"""

import io
import json
import os
import sys
from typing import Any, BinaryIO, cast

import torch

from landscape.checkpoints.parallel.saved_metadata import plan
from landscape.checkpoints.parallel.shard_parts import parts
from landscape.checkpoints.reading import messages, safetensors_file
from landscape.checkpoints.reading.contents import Contents
from landscape.checkpoints.reading.formats import Kind, Part
from landscape.checkpoints.reading.parse import parse
from landscape.errors import LandscapeError, MalformedError, UsageError, is_out_of_memory, printable

_SLACK = 256 << 20  # what Python and torch allocate besides the tensors
_FORBIDDEN = tuple(  # prefixes of audit event names
    """
    os.system os.exec os.fork os.posix_spawn os.spawn os.startfile os.kill os.putenv
    os.remove os.rename os.rmdir os.mkdir os.link os.symlink os.truncate os.chmod os.chown
    subprocess. pty. socket. ctypes. shutil. urllib. http. ftplib. smtplib. webbrowser.
    """.split()  # noqa: SIM905  # a column of quoted words would be longer and no clearer
)


def main() -> None:
    """Answer for one file, then exit."""
    kind, budget, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    answer_to = os.dup(1)
    os.dup2(2, 1)  # printed text must not enter the answer
    limit(budget, seconds)
    guard()
    with os.fdopen(0, "rb", closefd=False) as file, os.fdopen(answer_to, "wb") as out:
        answer(file, cast(Kind | Part, kind), budget, out, *sys.argv[4:])


def answer(file: BinaryIO, kind: Kind | Part, budget: int, out: BinaryIO, *more: str) -> None:
    """Parse a file, and write its content or the error."""
    try:
        size = file.seek(0, os.SEEK_END)
        tensors, report = messages.pack(_read(file, kind, size, budget, *more))
    except LandscapeError as error:
        tensors, report = {}, {"error": [type(error).__name__, error.problem, error.fix]}
    except (Exception, MemoryError) as error:  # any other error from a hostile file means that it is malformed
        tensors, report = {}, {"error": [MalformedError.__name__, _explain(error), "save or download the file again"]}
    try:
        safetensors_file.write(out, tensors, {"report": json.dumps(report)})
        out.flush()
    except OSError as error:
        problem = f"expected space for the tensors in the temporary directory, found: {error.strerror}"
        report = {"error": [UsageError.__name__, problem, "set TMPDIR to a larger disk"]}
        short = io.BytesIO()
        safetensors_file.write(short, {}, {"report": json.dumps(report)})
        os.ftruncate(out.fileno(), 0)
        os.pwrite(out.fileno(), short.getvalue(), 0)
        os._exit(0)  # skips flushing the buffer of `out`, which would fail again


def _read(file: BinaryIO, kind: Kind | Part, size: int, budget: int, *more: str) -> Contents:
    """The contents of a file of torch.save, or of a file of a distributed checkpoint."""
    if kind == "distributed metadata":
        return plan(file, size, budget)
    return parts(file, budget, *more) if kind == "distributed parts" else parse(file, kind, size, budget)


def limit(budget: int, seconds: int) -> None:
    """Limit memory, processor time and written bytes of this process from now on."""
    torch.set_num_threads(1)
    try:
        import resource
    except ImportError:  # not on this system; the parent's timeout remains
        return
    for name, value in (
        ("RLIMIT_AS", _virtual_memory() + 2 * budget + _SLACK),
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_FSIZE", 2 * budget + _SLACK),
        ("RLIMIT_CORE", 0),
    ):
        _, hard = resource.getrlimit(getattr(resource, name))
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # With a later hard limit, the end of processor time gives a distinct signal.
        resource.setrlimit(getattr(resource, name), (value, value + 5 if name == "RLIMIT_CPU" and hard < 0 else value))


def guard() -> None:
    """Stop this process at the first attempt to run, send or write anything; a last line of defence behind torch's checks."""
    sys.dont_write_bytecode = True
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.load(empty, weights_only=True)  # triggers torch's late imports before the guard is active

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        forbidden = event.startswith(_FORBIDDEN)
        if event == "open" and isinstance(arguments[0], str | bytes) and isinstance(arguments[2], int):
            forbidden = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        if forbidden:
            os.write(2, event.encode())
            os._exit(messages.CAUGHT)

    sys.addaudithook(hook)


def _explain(error: BaseException) -> str:
    """Describe an unforeseen exception as a problem of the file."""
    text = str(error).strip().split("\n")[0]
    if is_out_of_memory(error):
        return "torch file: expected one that fits the memory budget, found one that is over the memory budget"
    return f"torch file: expected one that can be read, found {type(error).__name__}: {printable(text, limit=200)}"


def _virtual_memory() -> int:
    """Bytes of address space in use, or a generous guess if the system does not say."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 16 << 30


if __name__ == "__main__":
    main()
