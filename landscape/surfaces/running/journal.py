"""The journal of a surface: one append-only file per process, one line per point. Processes share a grid without locks."""

import os
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from landscape.errors import UsageError
from landscape.machine.files import sealed, sync_folder, unwritable, write
from landscape.surfaces.running.journal_segments import (
    FAILED,
    HOST,
    SUFFIX,
    Claim,
    Opening,
    compact,
    is_compacted,
    is_over,
    parsed,
    text_of,
)
from landscape.surfaces.running.point_records import Decoded, Record

_SYNC = 3.0  # seconds between fsyncs, the most that a power cut can lose; a killed process loses nothing that was written
_TRIES = 5  # computations of a point that keeps disagreeing, after which it is marked as not reproducible
_NEWEST = 32  # a new segment names this many of the newest files, and older ones only if no other segment names them
_LISTINGS = 3  # most listings of the folder per refresh, if listed files have been compacted meanwhile


class Journal:
    """Records by key, read from the segments (files) of all processes and appended to this process's segment.

    A line is "CRC-32 JSON". Its JSON is {"open": run, "after": [files seen]}, {"claim": [keys]}, or {"key", "record"}. A claim
    announces the points that a process computes next. Other processes leave these for last, and compute them if the owner has
    died, so no locks are needed. If several processes claim a key at once, the one whose segment was named first, by the
    clock of its machine, keeps it. Two records of one key must be equal to the bit. If they are not, neither counts, and the
    point is computed again until two agree.

    Many segments of dead processes are merged into one file (`tidy`), so that a start after a thousand interruptions takes as
    long as one after ten.

    Args:
        folder: folder of the segments, created if missing; None keeps everything in memory.
        run: digest of the run; segments of another run are set aside.

    Raises:
        UsageError: the folder cannot be read or written.

    Attributes:
        records: the known records.
        problems: descriptions of what was set aside: torn and damaged lines, lost segments, values that disagree.

    Cost: opening takes about 500 bytes of memory and 20 microseconds per record; a refresh reads only new lines.
    """

    def __init__(self, folder: Path | None, run: str) -> None:
        self.folder, self.run = folder, run
        self._texts: dict[str, str] = {}
        self.records: Mapping[str, Record] = Decoded(self._texts)
        self.problems: list[str] = []
        self._rivals: dict[str, Counter[str]] = {}
        self._claims: dict[str, set[str]] = {}
        self._offsets: dict[str, int] = {}  # bytes read of each file, directly or from a merged file
        self._files: list[str] = []  # files at the last listing
        self._awaited: set[str] = set()  # files that another process has seen and this one has not
        self._mentioned: set[str] = set()  # files that other processes have seen
        self._void: set[str] = set()
        self._own: int | None = None
        self._name = _new_name()
        self._names = {self._name}
        self._synced = self._tidied = time.monotonic()
        self._placed = True
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(folder, error) from None
            self.refresh(opening=True)

    def refresh(self, *, opening: bool = False) -> None:
        """Read what other processes have written since the last call."""
        if self.folder is None:
            return
        for _ in range(_LISTINGS):
            gone = self._look(self.folder, opening)
            self._awaited = {n for n in self._awaited if n not in self._offsets and not (self.folder / n).exists()}
            if not gone and not self._awaited:
                return  # else they may have been merged since the folder was listed
        self.problems += [f"segment {name} is lost: its points are computed again" for name in sorted(self._awaited)]
        self._offsets |= dict.fromkeys(self._awaited, 0)  # reported only once
        self._awaited = set()

    def tidy(self) -> None:
        """Merge the segments of dead processes into one file, if there are many; see
        `landscape.surfaces.running.journal_segments.compact`.

        A process calls this only after it has computed something, so that short-lived processes make progress, too.
        """
        if self.folder is None or time.monotonic() < self._tidied:
            return
        self._tidied = time.monotonic() + _SYNC
        over = [name for name in self._files if name not in self._void and is_over(self.folder, name, _WRITING)]
        self.refresh()  # read finished segments to their end
        if (made := compact(self.folder, self.run, self._offsets, over)) is not None:
            self._offsets[made] = (self.folder / made).stat().st_size
            self.refresh()

    def _look(self, folder: Path, opening: bool) -> bool:
        """Read new lines of all files; return whether a listed file is gone."""
        try:
            entries = sorted(os.scandir(folder), key=lambda e: (not is_compacted(e.name), e.name))
        except OSError as error:
            raise UsageError(
                f"expected a journal in {folder}, found: {error.strerror}", fix="make it a folder that can be read"
            ) from None
        self._files, gone = [], False
        for entry in entries:
            if not entry.name.endswith(SUFFIX) or entry.name in self._names or entry.name in self._void:
                continue
            try:
                size = entry.stat().st_size
                if not entry.is_file():
                    self._set_aside(entry.name, "is no file")
                    continue
                if size > self._offsets.get(entry.name, 0):
                    self._read(Path(entry.path), opening)
                self._files.append(entry.name)
            except FileNotFoundError:
                gone = gone or not entry.is_symlink()
            except OSError as error:
                self._set_aside(entry.name, f"cannot be read ({error.strerror})")
        return gone

    def is_claimed(self, key: str) -> bool:
        """Whether another living process has a claim on a key; of several claims the earliest segment's counts."""
        owners = set() if key in self._texts else self._claims.get(key, set())
        mine = self._name in owners
        return any((owner < self._name or not mine) and self._alive(owner) for owner in owners)

    def claim(self, keys: list[str]) -> None:
        """Announce the points that this process computes next."""
        if self.folder is not None:
            self._append({"claim": keys})
            self._claimed_by(self._name, keys)

    def write(self, records: Mapping[str, Record]) -> None:
        """Append records in one write: a killed process leaves complete lines, and at most a torn last line, which is ignored.

        Raises:
            UsageError: the disk is full, or the folder is gone.
        """
        if self.folder is not None:
            self._append(*({"key": key, "record": record} for key, record in records.items()))
        for key, record in records.items():
            self._take(key, text_of(record), own=True)

    def close(self) -> None:
        """Sync and close this process's segment."""
        own, self._own = self._own, None
        _WRITING.discard(self._name)
        if own is None:
            return
        try:
            self._sync(own)
        except OSError as error:
            raise self._refused(error) from None
        finally:
            os.close(own)

    def _claimed_by(self, segment: str, keys: Iterable[str]) -> None:
        """Record which segment claims the keys."""
        for key in keys:
            self._claims.setdefault(key, set()).add(segment)

    def _append(self, *lines: dict[str, Any]) -> None:
        """Append lines to this process's segment, which starts with the names of the existing files."""
        assert self.folder is not None  # a journal in memory appends nothing
        whole = b"".join(map(sealed, lines))
        try:
            if self._own is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                self._own, self._placed = os.open(self.folder / self._name, flags, 0o644), False
                _WRITING.add(self._name)
                newest = self._files[-_NEWEST:]
                after = [n for n in self._files[:-_NEWEST] if n not in self._mentioned] + newest
                self._append({"open": self.run, "after": after})
            if os.write(self._own, whole) != len(whole):
                raise UsageError(
                    f"expected room for the journal in {self.folder}, found a disk that is full",
                    fix="free some space and run the same command again",
                )
            if not (self.folder / self._name).exists():
                self._begin_anew()
                self._append(*lines)
            elif time.monotonic() - self._synced > _SYNC:  # not at the start: the first points need not wait for a sync
                self._sync(self._own)
                self._synced = time.monotonic()
        except OSError as error:
            raise self._refused(error) from None

    def _begin_anew(self) -> None:
        """Start a new segment after another machine, which cannot see this process, merged and removed the old one."""
        assert self._own is not None  # there is a segment to leave
        os.close(self._own)
        _WRITING.discard(self._name)
        self._own, self._name = None, _new_name()
        self._names.add(self._name)

    def _sync(self, own: int) -> None:
        """Sync the segment, and once its folder, so that both survive a power cut."""
        os.fsync(own)
        if not self._placed:
            assert self.folder is not None  # there is a segment
            sync_folder(self.folder)
            self._placed = True

    def _refused(self, error: OSError) -> UsageError:
        assert self.folder is not None  # only a journal on disk writes
        return unwritable(self.folder / self._name, error)

    def _read(self, path: Path, opening: bool) -> None:
        """Read the new complete lines of a file."""
        offset = start = self._offsets.get(path.name, 0)
        damaged = []
        of: tuple[tuple[str, int], ...] = ()
        with open(path, "rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    if opening and not self._alive(path.name):
                        self.problems.append(f"the last line of {path.name} is torn")
                    break
                content = parsed(line)
                if offset == 0 and not (isinstance(content, Opening) and content.run == self.run):
                    other = "is of another run" if isinstance(content, Opening) else "does not say which run it is of"
                    self._set_aside(path.name, other)
                    return
                offset += len(line)
                self._offsets[path.name] = offset
                if content is None:
                    damaged.append(line)
                elif isinstance(content, Opening):
                    of = content.of
                    self._awaited.update(content.after)
                    self._mentioned.update(content.after)
                elif isinstance(content, Claim):
                    self._claimed_by(path.name, content.keys)
                elif content.at is None:
                    self._take(content.key, content.text)
                elif not 0 <= content.at[0] < len(of):
                    damaged.append(line)
                elif self._is_new(of[content.at[0]][0], content.at[1]):
                    self._take(content.key, content.text)
        self._offsets.setdefault(path.name, 0)
        for name, size in of:
            self._offsets[name] = max(size, self._offsets.get(name, 0))
        if damaged:
            lines = "line is" if len(damaged) == 1 else "lines are"
            self.problems.append(f"{len(damaged)} {lines} damaged in {path.name}: set aside, computed again")
            write(path.with_name(f"quarantine-{path.stem}-{start}.txt"), b"".join(damaged))

    def _is_new(self, segment: str, end: int) -> bool:
        """Whether a line of a merged file was not read from its original segment, where it ended at `end`."""
        return segment not in self._names and end > self._offsets.get(segment, 0)

    def _set_aside(self, name: str, why: str) -> None:
        """Stop reading a segment and report why."""
        self._void.add(name)
        self.problems.append(f"{name} {why}: set aside")

    def _take(self, key: str, text: str, own: bool = False) -> None:
        """Count a value for a key and decide which record is valid."""
        failed = text.startswith(FAILED)
        if failed and not own:
            return  # a point that failed in another process is tried again
        self._claims.pop(key, None)
        there = self._texts.get(key)
        if key not in self._rivals:
            if there is None or there.startswith(FAILED):
                self._texts[key] = text
                return
            self._rivals[key] = Counter([there])
        if failed:
            return  # a value takes precedence over a failure
        counts = self._rivals[key]
        counts[text] += 1
        (first, best), (_, second) = [*counts.most_common(2), ("", 0)][:2]
        if best > second:
            self._texts[key] = first
        elif counts.total() >= _TRIES:
            self._texts[key] = text_of({"failed": f"not reproducible: {len(counts)} different values"})
        else:
            self._texts.pop(key, None)
            if counts.total() == 2:
                self.problems.append(f"two records of {key} disagree: computed again")

    def _alive(self, segment: str) -> bool:
        """Whether the process that writes a segment still runs, as far as is known."""
        assert self.folder is not None  # there are no segments without one
        return not is_over(self.folder, segment, _WRITING)


def _new_name() -> str:
    """Name of a segment: start time, by the clock of its machine, machine and process."""
    return f"{time.time_ns():x}-{HOST}-{os.getpid()}-{secrets.token_hex(2)}{SUFFIX}"


_WRITING: set[str] = set()  # the segments that this process has open
