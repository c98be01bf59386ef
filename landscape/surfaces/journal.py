"""One append-only file a process, a line a point: what is found is never lost, and processes share a grid without locks."""

import json
import math
import os
import secrets
import socket
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from landscape.errors import UsageError
from landscape.files import write

Record = dict[str, Any]

_SYNC = 3.0  # seconds between fsyncs: what a power cut can take; a killed process loses nothing that was written
_FOREIGN = 600.0  # seconds after which a claim from another machine, whose processes cannot be looked up, is void
_FAILED = '{"failed"'
_TRIES = 5  # different values for one point, after which it is declared not to reproduce


class Journal:
    """Records by key, read from the segments of all processes and appended to this one's own.

    A line is "CRC-32 JSON". Its JSON is {"open": run, "after": [segments seen]}, {"claim": [keys]}, or {"key", "record"}. A
    claim says what a process is about to do; others leave it for last, and do it themselves if its owner has died, so no lock
    is ever held. Two records of one key must be the same to the bit; if they are not, neither counts, and the point is
    computed again until two agree.

    Args:
        folder: of the segments, made if missing; None keeps everything in memory.
        run: digest of the run that the records belong to; segments of another one are set aside.

    Attributes:
        records: what is known.
        problems: what was set aside, in words: torn and damaged lines, lost segments, values that disagree.
    """

    def __init__(self, folder: Path | None, run: str) -> None:
        self.folder, self.run = folder, run
        self.records: dict[str, Record] = {}
        self.problems: list[str] = []
        self._found: dict[str, Counter[str]] = {}
        self._claims: dict[str, str] = {}
        self._offsets: dict[str, int] = {}
        self._void: set[str] = set()
        self._own: int | None = None
        self._name = f"{time.time_ns():x}-{_host()}-{os.getpid()}-{secrets.token_hex(2)}.jsonl"
        self._synced = time.monotonic()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.refresh(opening=True)

    def refresh(self, *, opening: bool = False) -> None:
        """Take in what other processes have written since the last call."""
        if self.folder is None:
            return
        for entry in sorted(os.scandir(self.folder), key=lambda e: e.name):
            if not entry.name.endswith(".jsonl") or entry.name in (self._name, *self._void):
                continue
            offset = self._offsets.get(entry.name, 0)
            if entry.stat().st_size > offset:
                self._read(Path(entry.path), offset, opening)

    def is_claimed(self, key: str) -> bool:
        """Whether another process that is still alive is at work on a key."""
        owner = self._claims.get(key)
        return owner is not None and key not in self.records and self._alive(owner)

    def claim(self, keys: list[str]) -> None:
        """Say what this process does next."""
        if self.folder is not None:
            self._append({"claim": keys})

    def write(self, key: str, record: Record) -> None:
        """Append a record: one write, so that a kill leaves a whole line or none that counts."""
        text = _text(record)
        if self.folder is not None:
            self._append({"key": key, "record": record})
        self._take(key, text, own=True)

    def close(self) -> None:
        """Sync and close this process's segment."""
        if self._own is not None:
            os.fsync(self._own)
            os.close(self._own)
            self._own = None

    def _append(self, line: dict[str, Any]) -> None:
        """One line at the end of the own segment, which begins with the names of the segments that were there."""
        if self._own is None:
            assert self.folder is not None  # a journal in memory appends nothing
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._own = os.open(self.folder / self._name, flags, 0o644)
            self._append({"open": self.run, "after": sorted(self._offsets)})
        body = _text(line).encode()
        whole = b"%08x %s\n" % (zlib.crc32(body), body)
        if os.write(self._own, whole) != len(whole):
            raise UsageError(
                "expected room for the journal, found a disk that is full", fix="free some and run the same command again"
            )
        if time.monotonic() - self._synced > _SYNC:
            os.fsync(self._own)
            self._synced = time.monotonic()

    def _read(self, path: Path, offset: int, opening: bool) -> None:
        """The whole lines of a segment from `offset` on."""
        with open(path, "rb") as file:
            file.seek(offset)
            content = file.read()
        end = content.rfind(b"\n") + 1
        self._offsets[path.name] = offset + end
        if opening and end < len(content) and not self._alive(path.name):
            self.problems.append(f"the last line of {path.name} is torn")
        damaged = []
        for line in content[:end].splitlines():
            parsed = _parsed(line)
            if parsed is None:
                damaged.append(line)
            elif "open" in parsed:
                if parsed["open"] != self.run:
                    self._void.add(path.name)
                    self.problems.append(f"{path.name} belongs to another run: set aside")
                    return
                self._miss(parsed.get("after", ()))
            elif "claim" in parsed:
                self._claims |= dict.fromkeys(parsed["claim"], path.name)
            else:
                self._take(parsed["key"], _text(parsed["record"]))
        if damaged:
            assert self.folder is not None  # read from there
            lines = "line is" if len(damaged) == 1 else "lines are"
            self.problems.append(f"{len(damaged)} {lines} damaged in {path.name}: set aside, computed again")
            write(self.folder / f"quarantine-{path.stem}-{offset}.txt", b"\n".join(damaged) + b"\n")

    def _miss(self, names: list[str]) -> None:
        """Report segments that another one saw and that are gone."""
        assert self.folder is not None  # called while reading from it
        for name in names:
            text = f"segment {name} is lost: its points are computed again"
            if name not in self._offsets and not (self.folder / name).exists() and text not in self.problems:
                self.problems.append(text)

    def _take(self, key: str, text: str, own: bool = False) -> None:
        """Count a value for a key and settle what its record is."""
        if text.startswith(_FAILED) and not own:
            return  # what failed elsewhere is tried once more here
        counts = self._found.setdefault(key, Counter())
        counts[text] += 1
        values = {t: n for t, n in counts.items() if not t.startswith(_FAILED)}
        if len(values) <= 1:
            self.records[key] = json.loads(next(iter(values), text))
            return
        best, second = sorted(values.values(), reverse=True)[:2]
        if best > second:
            self.records[key] = json.loads(max(values, key=lambda t: values[t]))
        elif sum(values.values()) >= _TRIES:
            self.records[key] = {"failed": f"not reproducible: {len(values)} different values"}
        else:
            self.records.pop(key, None)
            if best == 1 and len(values) == 2:
                self.problems.append(f"two records of {key} disagree: computed again")

    def _alive(self, segment: str) -> bool:
        """Whether the process that writes a segment still runs, as far as can be told."""
        _, host, pid, *_ = [*segment.removesuffix(".jsonl").split("-"), "", ""]
        if host != _host() or not pid.isdigit():
            assert self.folder is not None  # there are no segments without one
            try:
                return time.time() - (self.folder / segment).stat().st_mtime < _FOREIGN
            except OSError:
                return False
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


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
    """A line's content; None if it is not what was written."""
    crc, _, body = line.partition(b" ")
    try:
        parsed = json.loads(body) if int(crc, 16) == zlib.crc32(body) else None
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) and any(k in parsed for k in ("open", "claim", "key")) else None


def _host() -> str:
    """This machine, as eight hexadecimal digits."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"
