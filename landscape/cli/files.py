"""The directory that a command writes to: never over another run's files, never half a file."""

import json
import os
from pathlib import Path
from typing import Any

from landscape.errors import UsageError, printable
from landscape.files import write
from landscape.plain import plain

_RECORD = "run.json"


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
        self.inputs: dict[str, Any] = json.loads(json.dumps(inputs, default=str))
        self.written: list[Path] = []
        if path.exists():
            self._refuse()

    def _refuse(self, partly: bool = False) -> None:
        """Refuse a directory of another run, or of somebody else."""
        try:
            held = [p.name for p in self._path.iterdir()]
        except OSError as error:
            raise self._unusable(error) from error
        if _RECORD in held:
            self._compare(self._path / _RECORD, partly)
        elif held:
            raise UsageError(
                f"expected an empty directory or one of this very run, found {self._path} with {held[0]} in it",
                fix="choose another --out",
            )

    @classmethod
    def allow(cls, path: Path, inputs: dict[str, Any]) -> None:
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
            probe = cls.__new__(cls)
            probe._path, probe.inputs = path, json.loads(json.dumps(inputs, default=str))
            probe._refuse(partly=True)

    @property
    def path(self) -> Path:
        """The directory, made and marked when the first file is about to be written: a run that fails owns nothing."""
        record = self._path / _RECORD
        if record not in self.written:
            try:
                self._path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._unusable(error) from error
            self.written.append(write(record, (json.dumps(plain(self.inputs), indent=2) + "\n").encode()))
        return self._path

    def file(self, name: str) -> Path:
        """Path of a file to write; remembered for the list at the end."""
        path = self.path / name
        self.written.append(path)
        return path

    def json(self, name: str, document: dict[str, Any]) -> Path:
        """Write a JSON file."""
        return write(self.file(name), (json.dumps(plain(document), indent=2, allow_nan=False) + "\n").encode())

    def _unusable(self, error: OSError) -> UsageError:
        return UsageError(
            f"expected a directory that can be written, found {self._path}: {error.strerror}", fix="choose another --out"
        )

    def _compare(self, record: Path, partly: bool) -> None:
        """Refuse a directory whose record differs from this run's inputs."""
        try:
            there = json.loads(record.read_text())
        except (OSError, ValueError):
            there = None
        if there == self.inputs:
            return
        keys = sorted(set(self.inputs) if partly else set(there) | set(self.inputs)) if isinstance(there, dict) else []
        differing = [k for k in keys if there.get(k) != self.inputs.get(k)]
        if partly and keys and not differing:
            return
        what = f"it differs in {', '.join(differing)}" if differing else "its record cannot be read"
        raise UsageError(
            f"expected {self._path} to be new, found another run there: {printable(what)}", fix="choose another --out"
        )
