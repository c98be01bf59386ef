"""One append-only file a process, a line a point: what is found is never lost, and processes share a grid without locks."""

import json
import math
import os
import secrets
import socket
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from landscape.errors import UsageError
from landscape.files import sync_folder, unwritable, write

Record = dict[str, Any]

_SYNC = 3.0  # seconds between fsyncs: what a power cut can take; a killed process loses nothing that was written
_FOREIGN = 600.0  # seconds after which a claim from another machine, whose processes cannot be looked up, is void
_FAILED = '{"failed"'
_TRIES = 5  # different values for one point, after which it is declared not to reproduce


class Journal:
    """Records by key, read from the segments of all processes and appended to this one's own.

    A line is "CRC-32 JSON". Its JSON is {"open": run, "after": [segments seen]}, {"claim": [keys]}, or {"key", "record"}. A
    claim says what a process is about to do; others leave it for last, and do it themselves if its owner has died, so no lock
    is ever held. Of several that claim a key at the same instant it is left to the one whose segment was named first, by the
    clock of its machine. Two records of one key must be the same to the bit; if they are not, neither counts, and the point is
    computed again until two agree.

    Args:
        folder: of the segments, made if missing; None keeps everything in memory.
        run: digest of the run that the records belong to; segments of another one are set aside.

    Raises:
        UsageError: the folder cannot be read or written.

    Attributes:
        records: what is known.
        problems: what was set aside, in words: torn and damaged lines, lost segments, values that disagree.

    Cost: some 500 bytes of memory and 20 microseconds a record to open; a refresh reads what is new.
    """

    def __init__(self, folder: Path | None, run: str) -> None:
        self.folder, self.run = folder, run
        self._texts: dict[str, str] = {}
        self.records: Mapping[str, Record] = _Decoded(self._texts)
        self.problems: list[str] = []
        self._rivals: dict[str, Counter[str]] = {}
        self._claims: dict[str, set[str]] = {}
        self._offsets: dict[str, int] = {}
        self._void: set[str] = set()
        self._own: int | None = None
        self._name = f"{time.time_ns():x}-{_HOST}-{os.getpid()}-{secrets.token_hex(2)}.jsonl"
        self._synced = time.monotonic()
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(folder, error) from None
            self.refresh(opening=True)

    def refresh(self, *, opening: bool = False) -> None:
        """Take in what other processes have written since the last call."""
        if self.folder is None:
            return
        try:
            entries = sorted(os.scandir(self.folder), key=lambda e: e.name)
        except OSError as error:
            raise UsageError(
                f"expected a journal in {self.folder}, found: {error.strerror}", fix="make it a folder that can be read"
            ) from None
        for entry in entries:
            if not entry.name.endswith(".jsonl") or entry.name == self._name or entry.name in self._void:
                continue
            try:
                size = entry.stat().st_size
                if not entry.is_file():
                    self._set_aside(entry.name, "is no file")
                elif size > self._offsets.get(entry.name, 0):
                    self._read(Path(entry.path), opening)
            except FileNotFoundError:
                continue  # gone since the folder was listed
            except OSError as error:
                self._set_aside(entry.name, f"cannot be read ({error.strerror})")

    def is_claimed(self, key: str) -> bool:
        """Whether a key is left to another process that is still alive: of those that claim it the one that began first."""
        owners = set() if key in self._texts else self._claims.get(key, set())
        mine = self._name in owners
        return any((owner < self._name or not mine) and self._alive(owner) for owner in owners)

    def claim(self, keys: list[str]) -> None:
        """Say what this process does next."""
        if self.folder is not None:
            self._append({"claim": keys})
            self._claimed_by(self._name, keys)

    def write(self, records: Mapping[str, Record]) -> None:
        """Append records: one write, so that a kill leaves whole lines, and at most a last one that does not count.

        Raises:
            UsageError: the disk is full, or the folder is gone.
        """
        if self.folder is not None:
            self._append(*({"key": key, "record": record} for key, record in records.items()))
        for key, record in records.items():
            self._take(key, _text(record), own=True)

    def close(self) -> None:
        """Sync and close this process's segment."""
        own, self._own = self._own, None
        _WRITING.discard(self._name)
        if own is None:
            return
        try:
            os.fsync(own)
        except OSError as error:
            raise self._refused(error) from None
        finally:
            os.close(own)

    def _claimed_by(self, segment: str, keys: list[str]) -> None:
        """Remember who is at work on keys."""
        for key in keys:
            self._claims.setdefault(key, set()).add(segment)

    def _append(self, *lines: dict[str, Any]) -> None:
        """Lines at the end of the own segment, which begins with the names of the segments that were there."""
        assert self.folder is not None  # a journal in memory appends nothing
        bodies = [_text(line).encode() for line in lines]
        whole = b"".join(b"%08x %s\n" % (zlib.crc32(body), body) for body in bodies)
        try:
            if new := self._own is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                self._own = os.open(self.folder / self._name, flags, 0o644)
                _WRITING.add(self._name)
                self._append({"open": self.run, "after": sorted(self._offsets)})
            if os.write(self._own, whole) != len(whole):
                raise UsageError(
                    f"expected room for the journal in {self.folder}, found a disk that is full",
                    fix="free some space and run the same command again",
                )
            if new:  # not sooner: others are to see the claim at once
                sync_folder(self.folder)
            if time.monotonic() - self._synced > _SYNC:
                os.fsync(self._own)
                self._synced = time.monotonic()
        except OSError as error:
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> UsageError:
        assert self.folder is not None  # only what is on a disk can be refused
        return unwritable(self.folder / self._name, error)

    def _read(self, path: Path, opening: bool) -> None:
        """The whole lines of a segment that are new."""
        offset = start = self._offsets.get(path.name, 0)
        damaged = []
        with open(path, "rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    if opening and not self._alive(path.name):
                        self.problems.append(f"the last line of {path.name} is torn")
                    break
                parsed = _parsed(line[:-1])
                if offset == 0 and (parsed is None or parsed.get("open") != self.run):
                    strange = (
                        "does not say which run it is of" if parsed is None or "open" not in parsed else "is of another run"
                    )
                    self._set_aside(path.name, strange)
                    return
                offset += len(line)
                self._offsets[path.name] = offset
                if parsed is None:
                    damaged.append(line)
                elif "open" in parsed:
                    self._miss(parsed["after"])
                elif "claim" in parsed:
                    self._claimed_by(path.name, parsed["claim"])
                else:
                    self._take(parsed["key"], parsed["text"])
        self._offsets.setdefault(path.name, 0)
        if damaged:
            lines = "line is" if len(damaged) == 1 else "lines are"
            self.problems.append(f"{len(damaged)} {lines} damaged in {path.name}: set aside, computed again")
            write(path.with_name(f"quarantine-{path.stem}-{start}.txt"), b"".join(damaged))

    def _set_aside(self, name: str, why: str) -> None:
        """Read a segment no more."""
        self._void.add(name)
        self.problems.append(f"{name} {why}: set aside")

    def _miss(self, names: list[str]) -> None:
        """Report segments that another one saw and that are gone."""
        assert self.folder is not None  # called while reading from it
        for name in names:
            text = f"segment {name} is lost: its points are computed again"
            if name not in self._offsets and not (self.folder / name).exists() and text not in self.problems:
                self.problems.append(text)

    def _take(self, key: str, text: str, own: bool = False) -> None:
        """Count a value for a key and settle what its record is."""
        failed = text.startswith(_FAILED)
        if failed and not own:
            return  # what failed elsewhere is tried once more here
        self._claims.pop(key, None)
        there = self._texts.get(key)
        if key not in self._rivals:
            if there is None or there.startswith(_FAILED):
                self._texts[key] = text
                return
            self._rivals[key] = Counter([there])
        if failed:
            return  # a value is more than none
        counts = self._rivals[key]
        counts[text] += 1
        (first, best), (_, second) = [*counts.most_common(2), ("", 0)][:2]
        if best > second:
            self._texts[key] = first
        elif counts.total() >= _TRIES:
            self._texts[key] = _text({"failed": f"not reproducible: {len(counts)} different values"})
        else:
            self._texts.pop(key, None)
            if counts.total() == 2:
                self.problems.append(f"two records of {key} disagree: computed again")

    def _alive(self, segment: str) -> bool:
        """Whether the process that writes a segment still runs, as far as can be told."""
        _, host, pid, *_ = [*segment.removesuffix(".jsonl").split("-"), "", ""]
        if host != _HOST or not pid.isdecimal():
            assert self.folder is not None  # there are no segments without one
            try:
                return time.time() - (self.folder / segment).stat().st_mtime < _FOREIGN
            except OSError:
                return False
        if int(pid) == os.getpid():
            return segment in _WRITING  # else it is of an earlier process that had this number
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            return True
        return True


class _Decoded(Mapping[str, Record]):
    """Records, kept as the text that they are in a segment: a fifth of the memory."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def __getitem__(self, key: str) -> Record:
        return json.loads(self._texts[key])

    def __contains__(self, key: object) -> bool:
        return key in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def failure(error: Exception) -> Record:
    """The record of a point that could not be computed."""
    return {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]}


def encoded(x: float | None) -> float | str | None:
    """A number as JSON can hold it; what is not finite is spelt out."""
    return x if x is None or math.isfinite(x) else repr(x)


def decoded(x: float | str | None) -> float:
    """Inverse of `encoded`; None is nan."""
    return math.nan if x is None else float(x)


def _text(line: dict[str, Any]) -> str:
    """Canonical JSON: floats by their shortest exact form."""
    return json.dumps(line, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's content, a record as its text; None if it is not what was written."""
    crc, _, body = line.partition(b" ")
    try:
        match json.loads(body) if int(crc, 16) == zlib.crc32(body) else None:
            case {"open": str(run), "after": list(names)} if all(isinstance(n, str) for n in names):
                return {"open": run, "after": names}
            case {"claim": list(keys)} if all(isinstance(k, str) for k in keys):
                return {"claim": keys}
            case {"key": str(key), "record": dict(record)}:
                return {"key": key, "text": _text(record)}
    except (ValueError, RecursionError):
        pass
    return None


def _host() -> str:
    """This machine, as eight hexadecimal digits."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


_HOST = _host()
_WRITING: set[str] = set()  # the segments that this process has open
