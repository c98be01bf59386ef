"""Measures of one checkpoint, saved in files as they are computed, so that an interrupted run can continue."""

import json
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscape.curvature.method import Method
from landscape.errors import LandscapeError, UsageError
from landscape.machine.distributed import ALONE, Group
from landscape.machine.files import create, open_regular, read_json, sealed, unsealed, write
from landscape.machine.json_values import differences, plain
from landscape.measures.running.warm_starts import directions_of
from landscape.objective import Objective
from landscape.results import Measurement

_MANIFEST, _WORK = "manifest.json", "work.json"
_DIRECTIONS = re.compile(r"directions-(\w+)-(\w+)\.safetensors")
_LARGEST = 1 << 20  # bytes of one measure's file


class Kept:
    """Saved measures of one checkpoint: those of an earlier run with the same inputs, and those of this run.

    Each measure is a file with one line and its checksum. It is written under a temporary name and renamed, so that a process
    killed at any time leaves complete files and loses only the current measure. What is chosen before the first measure is a
    file of its own, which binds nobody to these inputs: until a measure is saved the folder's place is free for other ones.

    Args:
        folder: created when the first measure is saved.
        manifest: all inputs that determine the numbers: digests of weights and data, seed, dtype, versions. JSON-able.
        for_next: also save eigenvectors, from which the Lanczos runs of the next checkpoint start.
        making: called before the folder is created.
        start: file for what is chosen before the first measure, until the folder is there; None keeps no such file.
        processes: group of processes; the first one reads and writes, and all get the same. Eigenvectors are then not saved.

    Raises:
        UsageError: the folder has measures of other inputs; the message says what differs.

    Attributes:
        measurements: the saved measures, by name.
        paid: digests of shared computations whose cost is counted in one of them; see `landscape.measures.running.memo`.
        problems: descriptions of damaged files, whose measures are computed again.
    """

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        *,
        for_next: bool = False,
        making: Callable[[], object] | None = None,
        start: Path | None = None,
        processes: Group = ALONE,
    ) -> None:
        self.folder, self._manifest = folder, json.loads(json.dumps(plain(manifest), default=str))
        self._for_next, self._making = for_next and processes.size == 1, making
        self._writes, self._start = processes.rank == 0, start
        self.measurements: dict[str, Measurement] = {}
        self.paid: set[str] = set()
        self.problems: list[str] = []
        self._work: dict[str, Any] | None = None
        self._place_made = False  # whether the folder of `start` was created for it
        failed: LandscapeError | None = None
        try:
            if self._writes and folder.exists():
                self._open()
            elif self._writes and start is not None:
                self._read_work(start)
        except LandscapeError as error:
            failed = error
        found = processes.agreed((failed, self.measurements, self.paid, self._work))
        if found[0] is not None:
            raise found[0]
        _, self.measurements, self.paid, self._work = found

    def _open(self) -> None:
        """Read the saved measures."""
        self._compare()
        for path in sorted(self.folder.glob("*.record")):
            self._read(path)
        self._read_work(self.folder / _WORK)

    def _read_work(self, path: Path) -> None:
        """Read what was chosen before the first measure."""
        try:
            self._work = read_json(path, _LARGEST)
            Method(**self._work["method"]), dict(self._work["work"])
            rounding, in_float64 = self._work.get("verdict", (0.0, None))
            if not isinstance(rounding, float) or not isinstance(in_float64, float | None):
                raise ValueError("no verdict")
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError):
            self._work = None
            self.problems.append(f"{path.name} is damaged: derivatives are checked, and the method of products chosen, again")

    def keep(self, objective: Objective, name: str, measurement: Measurement, shared: Sequence[str]) -> None:
        """Save a measure, with the digests of the shared computations that were done for it.

        Raises:
            UsageError: the folder cannot be written, or another run has started there.
        """
        self.measurements[name] = measurement
        self.paid |= set(shared)
        if not self._writes:
            return
        if self._for_next:  # eigenvectors first: a saved measure must have them
            self._keep_directions(objective)
        record = {"measure": name, "measurement": measurement.to_json(), "shared": list(shared)}
        record["exact"] = {k: repr(getattr(measurement.estimate, k)) for k in ("value", "stderr", "data_stderr")}
        write(self._made() / _name(name), sealed(plain(record)))

    def method(self, objective: Objective, work: Callable[[Objective], dict[str, Any]]) -> tuple[Objective, dict[str, Any]]:
        """The objective with the product method of the first run, by whose checks it stands, and its record of the work.

        Args:
            objective: the network on its data.
            work: returns the record for a new run; called once.
        """
        if self._work is not None:
            objective = objective.by(Method(**self._work["method"]))  # `objective.method` would try them all again
            if "verdict" in self._work:
                objective.trust(*self._work["verdict"])
            work(objective)
            return objective, dict(self._work["work"])
        self._work = {"method": asdict(objective.method), "verdict": list(objective.verdict), "work": work(objective)}
        if self._writes and self._start is not None:
            self._place_made = not self._start.parent.exists()
            try:
                self._start.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"expected {self._start.parent} to be writable, found {error.strerror}") from None
            write(self._start, self._work_bytes())
        return objective, self._work["work"]

    def abandon(self) -> None:
        """Delete what was chosen before the first measure, if the run failed there, and the folder that was created for it."""
        if self._writes and self._start is not None and not self.folder.exists():
            self._start.unlink(missing_ok=True)
            if self._place_made:
                with suppress(OSError):  # not empty: another process works there
                    self._start.parent.rmdir()

    def _work_bytes(self) -> bytes:
        return (json.dumps(plain(self._work), indent=2) + "\n").encode()

    @property
    def started(self) -> bool:
        """Whether what is chosen before the first measure is saved."""
        return any(path is not None and path.exists() for path in (self._start, self.folder / _WORK))

    def _keep_directions(self, objective: Objective) -> None:
        """Save eigenvectors that are not saved yet."""
        from safetensors.torch import save

        for (matrix, units), rows in directions_of(objective).rows.items():
            path = self._made() / f"directions-{matrix}-{units}.safetensors"
            if not path.exists():
                create(path, save({"rows": rows.detach().cpu().contiguous()}))

    def directions(self, objective: Objective) -> dict[tuple[str, str], Tensor]:
        """The saved eigenvectors, (k, P) by matrix and units; damaged ones and those of another size are left out."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        out: dict[tuple[str, str], Tensor] = {}
        for path in sorted(self.folder.glob("directions-*.safetensors")):
            named = _DIRECTIONS.fullmatch(path.name)
            try:
                with open_regular(path) as file:
                    rows = load(file.read())["rows"]
            except (OSError, SafetensorError, KeyError):
                continue
            if named and rows.ndim == 2 and rows.shape[1] == objective.dim and bool(torch.isfinite(rows).all()):
                out[named[1], named[2]] = rows.to(dtype=objective.dtype, device=objective.device)
        return out

    def forget_directions(self) -> None:
        """Delete the eigenvectors; the checkpoint that started from them is done."""
        for path in self.folder.glob("directions-*.safetensors"):
            path.unlink(missing_ok=True)

    def _made(self) -> Path:
        """The folder; created with its manifest if necessary."""
        if not (self.folder / _MANIFEST).exists():
            if self._making is not None:
                self._making()
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"expected a folder that can be written, found {self.folder}: {error.strerror}") from None
            create(self.folder / _MANIFEST, (json.dumps(self._manifest, indent=2) + "\n").encode())
            self._compare()  # another process may have been first
            if self._work is not None:
                create(self.folder / _WORK, self._work_bytes())
            if self._start is not None:
                self._start.unlink(missing_ok=True)
        return self.folder

    def _compare(self) -> None:
        """Raise UsageError if the folder has measures of other inputs."""
        try:
            there, why = read_json(self.folder / _MANIFEST, _LARGEST), "it has no record of inputs"
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            there, why = None, getattr(error, "strerror", None) or str(error)
        if there == self._manifest:
            return
        what = (
            f"its inputs differ in {differences(there, self._manifest)}" if isinstance(there, dict) else f"{_MANIFEST}: {why}"
        )
        raise UsageError(
            f"expected measures of this checkpoint and data in {self.folder}, found others: {what}",
            fix="choose another --out, or delete that folder to compute them again",
        )

    def _read(self, path: Path) -> None:
        """Read one measure."""
        try:
            with open_regular(path) as file:
                record = unsealed(file.read(_LARGEST))
            if record is None:
                raise ValueError("its checksum is wrong")
            found = Measurement.from_json(record["measurement"])
            exact: dict[str, Any] = {k: None if text == "None" else float(text) for k, text in record["exact"].items()}
            name, shared = str(record["measure"]), {str(s) for s in record["shared"]}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"without {error}" if isinstance(error, KeyError) else str(error)
            self.problems.append(f"{path.name} is damaged ({what}): its measure is computed again")
            return
        self.measurements[name] = replace(found, estimate=replace(found.estimate, **exact))
        self.paid |= shared


def _name(measure: str) -> str:
    """File name of a measure. Settings may contain any character, so a checksum of the full name is appended."""
    return f"{re.sub(r'[^A-Za-z0-9_]', '-', measure)[:60]}-{zlib.crc32(measure.encode()):08x}.record"
