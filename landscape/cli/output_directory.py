"""The directory that a command writes to. It never overwrites another run's files and never leaves a partial file."""

import atexit
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from landscape.cli import processes
from landscape.errors import UsageError, printable
from landscape.machine.files import create, is_part, read_json, sweep, write
from landscape.machine.json_values import differences, plain

_RECORD = "run.json"
_START = re.compile(r"start-[0-9a-f]{8}-[0-9a-f]{8}\.json")  # what a run chose before its first result: run, what was measured
_POINTS = "points"  # where a surface keeps its points
# What a surface keeps there before the first of them.
_CHOSEN = ("manifest.json", "plan.json", "tracks.json", "directions.safetensors", "journal", "vectors")
_LARGEST = 16 << 20  # largest record in bytes: room for the digests of a hundred thousand files


class OutputDirectory:
    """A directory that belongs to one run, identified by the record of its inputs.

    Args:
        path: the directory; created if it is missing.
        inputs: everything that determines the results: command, digests of the files, options. JSON-able.

    Raises:
        UsageError: it cannot be written, it holds another run (the message says what differs), or it holds unrelated files.
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
        """Check before any work that the results can be written to this directory.

        Args:
            path: as for the class.
            inputs: those of the inputs that are known beforehand.

        Raises:
            UsageError: as for the class, as far as the known inputs show it.
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
        """Path of the directory, which exists once a file is written."""
        return self._path

    @property
    def path(self) -> Path:
        """The directory. It is created, with its record, just before the first result is written, so a failed run leaves none.

        Only what was chosen before the first result (`start`) may be there without a record, of a run that was interrupted.
        Under torchrun the first process writes here; the others write to temporary directories.
        """
        return self.shared if self._own == self._path else self._own

    @property
    def shared(self) -> Path:
        """The directory itself, for files that every process reads and writes."""
        record = self._path / _RECORD
        if record not in self.written:
            _clear(self._path, self.inputs)
            try:
                self._path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unusable(self._path, error) from error
            self.written.append(create(record, (json.dumps(self.inputs, indent=2) + "\n").encode()))
            _compare(self._path, self.inputs, partly=False)  # another command may have been first
            # Of runs with other inputs that came to no result: the directory is closed to them now. Those of this run may be in
            # use, by other processes or for its other checkpoints.
            for left in self._path.iterdir():
                if _START.fullmatch(left.name) and not left.name.startswith(f"start-{_sum(self.inputs)}-"):
                    left.unlink(missing_ok=True)
            sweep(self._path)
        return self._path

    def start(self, inputs: dict[str, Any]) -> Path:
        """Path of the file for what is chosen before the first result with these inputs.

        The directory belongs to no run until the first result is there.
        """
        return self._own / f"start-{_sum(self.inputs)}-{_sum(_recorded(inputs))}.json"

    def file(self, name: str) -> Path:
        """Path of a file to write, added to the list of written files."""
        path = self.path / name
        self.written.append(path)
        return path

    def json(self, name: str, document: dict[str, Any]) -> Path:
        """Write a JSON file."""
        return write(self.file(name), (json.dumps(plain(document), indent=2, allow_nan=False) + "\n").encode())


def _recorded(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs as they are read back from the record, without those that do not change results: memory plan, product method."""
    return _without_work(plain(json.loads(json.dumps(inputs, default=str))))


def _sum(inputs: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(inputs, sort_keys=True).encode()):08x}"


def _without_work(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_work(v) for k, v in value.items() if k not in ("memory", "products")}
    return [_without_work(v) for v in value] if isinstance(value, list) else value


def _refuse(path: Path, inputs: dict[str, Any], partly: bool = False) -> None:
    """Refuse a directory that holds another run or unrelated files."""
    try:
        held = _held(path)
    except OSError as error:
        raise _unusable(path, error) from error
    if _RECORD in held and _unstarted(path, held):
        return
    if _RECORD in held:
        _compare(path, inputs, partly)
    elif held:
        raise UsageError(
            f"expected an empty directory or one of this same run, found {path} with {held[0]} in it",
            fix="choose another --out",
        )


def _held(path: Path) -> list[str]:
    """What results a directory holds: partial files (a command was killed or is running) and starts are none."""
    return [p.name for p in path.iterdir() if not is_part(p.name) and not _START.fullmatch(p.name)]


def _unstarted(path: Path, held: Iterable[str]) -> bool:
    """Whether a run left only its record, or of a surface what is chosen before its first point: it binds no other run."""
    points = path / _POINTS
    try:
        there = read_json(path / _RECORD, _LARGEST)
    except (OSError, ValueError):
        return False
    if not set(held) <= {_RECORD, _POINTS} or not isinstance(there, dict) or not {"command", "landscape"} <= set(there):
        return False
    inside = [p.relative_to(points).as_posix() for p in points.rglob("*")]
    return all(name in _CHOSEN or is_part(Path(name).name) for name in inside)


def _clear(path: Path, inputs: dict[str, Any]) -> None:
    """Remove what another run left that came to no result."""
    record = path / _RECORD
    try:
        held = _held(path)
        if _RECORD not in held or not _unstarted(path, held) or read_json(record, _LARGEST) == inputs:
            return
        record.unlink()
        shutil.rmtree(path / _POINTS, ignore_errors=True)
    except (OSError, ValueError):
        return  # it is compared next, which tells what is wrong


def _unusable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"expected a directory that can be written, found {path}: {error.strerror}", fix="choose another --out")


def _compare(path: Path, inputs: dict[str, Any], partly: bool) -> None:
    """Refuse a directory whose record differs from this run's inputs (`partly`: from those known so far)."""
    try:
        there, why = read_json(path / _RECORD, _LARGEST), "it holds no record of a run's inputs"
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
    raise UsageError(
        f"expected {path} to be new or of this same run, found another run there: {printable(what)}",
        fix="choose another --out, or delete that folder to start again",
    )
