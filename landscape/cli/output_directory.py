"""The directory that a command writes to: never over another run's files, never half a file."""

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from landscape.cli import processes
from landscape.errors import UsageError, printable
from landscape.machine.files import create, is_part, read_json, sweep, write
from landscape.machine.json_values import differences, plain

_RECORD = "run.json"
_LARGEST = 16 << 20  # bytes of it: the digests of a hundred thousand files


class OutputDirectory:
    """A directory that belongs to one run, told by the record of its inputs.

    Args:
        path: created where it is missing.
        inputs: everything that determines the results: command, digests of the files, options. JSON-able.

    Raises:
        UsageError: it cannot be written, or it holds another run (the message says what differs) or files of somebody else.
    """

    def __init__(self, path: Path, inputs: dict[str, Any]) -> None:
        self._path = path
        self._own = path if processes.RANK == 0 else Path(tempfile.mkdtemp(prefix="landscape-"))
        self.inputs = _recorded(inputs)
        self.written: list[Path] = []
        if self._own != path:
            atexit.register(shutil.rmtree, self._own, ignore_errors=True)
        if path.exists():
            _refuse(path, self.inputs)

    @staticmethod
    def allow(path: Path, inputs: dict[str, Any]) -> None:
        """Refuse, before any work, a directory that could not be written at its end.

        Args:
            path: as for the class.
            inputs: those of the inputs that are known beforehand.

        Raises:
            UsageError: as the class, as far as can be told.
        """
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UsageError(
                f"expected a directory that can be written, found {path}: {there} is "
                + ("not writable" if there.is_dir() else "a file"),
                fix="choose another --out",
            )
        if path.exists():
            _refuse(path, _recorded(inputs), partly=True)

    @property
    def place(self) -> Path:
        """Where the directory is, or will be once something is written."""
        return self._path

    @property
    def path(self) -> Path:
        """The directory, made and marked when the first file is about to be written: a run that fails owns nothing.

        Of several processes at one command the first one writes; the others have directories that nobody sees.
        """
        return self.shared if self._own == self._path else self._own

    @property
    def shared(self) -> Path:
        """The directory itself, for files that every process reads and writes."""
        record = self._path / _RECORD
        if record not in self.written:
            try:
                self._path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unusable(self._path, error) from error
            self.written.append(create(record, (json.dumps(self.inputs, indent=2) + "\n").encode()))
            _compare(self._path, self.inputs, partly=False)  # another command may have been first
            sweep(self._path)
        return self._path

    def file(self, name: str) -> Path:
        """Path of a file to write; remembered for the list at the end."""
        path = self.path / name
        self.written.append(path)
        return path

    def json(self, name: str, document: dict[str, Any]) -> Path:
        """Write a JSON file."""
        return write(self.file(name), (json.dumps(plain(document), indent=2, allow_nan=False) + "\n").encode())


def _recorded(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs as they read back from the record, without what decides nothing: how the work was cut and computed."""
    return _without_work(plain(json.loads(json.dumps(inputs, default=str))))


def _without_work(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_work(v) for k, v in value.items() if k not in ("memory", "products")}
    return [_without_work(v) for v in value] if isinstance(value, list) else value


def _refuse(path: Path, inputs: dict[str, Any], partly: bool = False) -> None:
    """Refuse a directory of another run, or of somebody else."""
    try:
        held = [p.name for p in path.iterdir() if not is_part(p.name)]  # of a command that was killed, or has just begun
    except OSError as error:
        raise _unusable(path, error) from error
    if _RECORD in held:
        _compare(path, inputs, partly)
    elif held:
        raise UsageError(
            f"expected an empty directory or one of this very run, found {path} with {held[0]} in it",
            fix="choose another --out",
        )


def _unusable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"expected a directory that can be written, found {path}: {error.strerror}", fix="choose another --out")


def _compare(path: Path, inputs: dict[str, Any], partly: bool) -> None:
    """Refuse a directory whose record differs from this run's inputs, or from the part of them that is known."""
    try:
        there, why = read_json(path / _RECORD, _LARGEST), "it holds no inputs of a run"
    except (OSError, ValueError) as error:
        there, why = None, f"its record {_RECORD} cannot be read: {getattr(error, 'strerror', None) or error}"
    if there == inputs:
        return
    keys = sorted(set(inputs) if partly else set(there) | set(inputs)) if isinstance(there, dict) else []
    differing = [k for k in keys if there.get(k) != inputs.get(k)]
    if partly and keys and not differing:
        return
    parts = [{k: record.get(k) for k in differing} for record in (there, inputs)] if differing else []
    what = f"it differs in {differences(*parts)}" if parts else why
    raise UsageError(f"expected {path} to be new, found another run there: {printable(what)}", fix="choose another --out")
