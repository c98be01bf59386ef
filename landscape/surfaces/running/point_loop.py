"""The loop over the points of a chart: from coarse to fine, shared among processes, safe to interrupt at any time."""

import math
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

from landscape.errors import UsageError
from landscape.machine import progress
from landscape.machine.json_values import number_or_nan
from landscape.surfaces.axes.chart import Chart
from landscape.surfaces.running.journal import Journal
from landscape.surfaces.running.measurement import Part, Unit
from landscape.surfaces.running.point_records import Record, failure

# Seconds of work that a process claims at once: long compared with reading other processes' records, short for the others.
_CLAIM = 0.2
# An idle process waits for a point that another process claimed for at least this many seconds and this many times the
# duration of a point. Then it computes the point itself, in case the other process hangs.
_PATIENCE, _TIMES = 1.0, 5.0
_LOOK = 0.02  # seconds between two refreshes of a waiting process
# A working process refreshes after _WORK times the duration of a refresh, so that refreshing takes a twentieth of its time, but
# after _UNSEEN seconds at the latest.
_WORK, _UNSEEN = 20.0, 0.05


def survey(part: Part, journal: Journal, seen: Callable[[], None] | None = None) -> None:
    """Compute every point of a part that is not in the journal yet.

    A point whose computation fails is recorded as failed with its reason; the others are computed all the same.

    The points of a group are always computed together, even if some are known, so that the last bits of a point do not depend
    on what the journal had.

    Args:
        part: the measurement, with the order and the groups of points.
        journal: the known values; every group is written to it as soon as it is computed.
        seen: called after each chunk of work.

    Raises:
        UsageError: the journal, or another file of the run, cannot be written.
    """
    seconds = 0.0
    idle = _Idle()
    # Known points are not counted: they take no time and would make the estimate of the remaining time too low.
    known = sum(len(unit) for unit in part.units if not _missing(part, journal, unit))
    with progress.stage(f"{part.name}, points", len(part.order) - known) as advance:
        reported = known

        def do(chunk: list[Unit], todo: deque[Unit], later: deque[Unit], *, claimed: bool = False) -> None:
            nonlocal seconds, reported
            took, left = _work(part, journal, chunk, claimed)
            seconds = took or seconds
            later.extend(left)
            so_far = int(len(part.order) * (1 - (len(todo) + len(later)) / len(part.units)))
            advance(max(0, so_far - reported))
            reported = max(so_far, reported)
            if seen is not None:
                seen()
            journal.refresh()
            journal.tidy()

        while True:
            journal.refresh()
            todo = deque(unit for unit in part.units if _missing(part, journal, unit))
            if not todo:
                advance(len(part.order) - reported)
                return
            later: deque[Unit] = deque()
            free = False
            while chunk := _chunk(part, journal, todo, later, max(1, int(_CLAIM / seconds)) if seconds else 1, False):
                free = True
                do(chunk, todo, later)
            if free:
                idle.reset()
            elif idle.seconds(len(journal.records)) > max(_PATIENCE, _TIMES * seconds):
                waiting: deque[Unit] = deque()
                chunk = _chunk(part, journal, later, waiting, 1, True)
                do(chunk, later, waiting, claimed=True)
                idle.own += sum(map(len, chunk))
            else:
                time.sleep(_LOOK)


def recheck(part: Part, journal: Journal, chart: Chart) -> None:
    """Compute one point of the journal again, if it has any, and raise if the value differs.

    The point is the first with finite values. Among the first sixteen, points with a value other than zero, which does not
    depend on the loss's scale, and points other than the centre, which does not depend on the axes, are preferred. Nothing is
    written.

    Args:
        part: the measurement.
        journal: the known values.
        chart: the points.

    Raises:
        UsageError: the value differs.

    Cost: one point, or one group of points.
    """
    known = ((k, journal.records.get(_key(part, k), {})) for k in part.order)
    done = list(islice(((k, record) for k, record in known if _finite(record)), 16))
    if not done:
        return

    def says_little(point: tuple[int, Record]) -> tuple[bool, bool]:
        number, record = point
        return record["values"].get(part.name, [0])[0] == 0, chart.place(number) == chart.centre

    number, there = min(done, key=says_little)
    here = _measured(part, next(unit for unit in part.units if number in unit))[_key(part, number)]
    if there != here:
        raise UsageError(
            f"expected the {part.name} at point {number} to equal the journal's, {_told(there, here)}, "
            f"found {_told(here, there)}: the network, the data or the code changed, or the machine computes differently",
            fix="choose another directory",
        )


def _finite(record: Record) -> bool:
    """Whether a record has values, all of them finite."""
    return bool(record.get("values")) and all(math.isfinite(number_or_nan(row[0])) for row in record["values"].values())


def _told(record: Record, other: Record) -> str:
    """The values of a record, with errors, that differ from another record, or its failure."""
    if "failed" in record:
        return str(record["failed"])
    theirs = other.get("values", {})
    return ", ".join(f"{name} {row}" for name, row in record["values"].items() if theirs.get(name) != row) or "no such value"


class _Idle:
    """The time without progress of other processes while this process is idle."""

    def __init__(self) -> None:
        self.own = 0  # points that this process computed meanwhile
        self.reset()

    def reset(self) -> None:
        """The process is not idle."""
        self._others: int | None = None

    def seconds(self, known: int) -> float:
        """Seconds without progress, given the number of records known now."""
        if known - self.own != self._others:
            self._others, self._from = known - self.own, time.monotonic()
        return time.monotonic() - self._from


def _key(part: Part, number: int) -> str:
    """A point's key in the journal."""
    return f"{part.name}:{number}"


def _missing(part: Part, journal: Journal, unit: Unit) -> list[str]:
    """Keys of the points of a unit that the journal does not have."""
    return [key for k in unit if (key := _key(part, k)) not in journal.records]


def _awaited(part: Part, journal: Journal, unit: Unit) -> Unit:
    """The unit that must be computed before this one and is not yet; else ()."""
    before = part.wants(unit[0])
    return () if before is None or _key(part, before) in journal.records else (before,)


def _chunk(
    part: Part, journal: Journal, todo: deque[Unit], later: deque[Unit], size: int, claimed: bool
) -> list[Unit]:  # fmt: skip
    """The next units to compute; those that other processes claim, or that wait for another point, go to `later`."""
    out: list[Unit] = []
    while todo and len(out) < size:
        unit = todo.popleft()
        missing = _missing(part, journal, unit)
        if not missing:
            continue
        waits = _awaited(part, journal, unit)
        if (waits and waits not in out) or (not claimed and any(map(journal.is_claimed, missing))):
            later.append(unit)
        else:
            out.append(unit)
    return out


def _work(part: Part, journal: Journal, chunk: list[Unit], claimed: bool) -> tuple[float, list[Unit]]:
    """Claim units and compute them, except those to which another process has a prior claim.

    Args:
        claimed: whether to compute those, too.

    Returns:
        Mean seconds per unit, 0 if none was computed; the units that were left.
    """
    journal.claim([key for unit in chunk for key in _missing(part, journal, unit)])
    spent: list[float] = []
    left: list[Unit] = []
    next_look = 0.0
    for unit in chunk:
        if (now := time.perf_counter()) > next_look:
            journal.refresh()
            looked = time.perf_counter()
            next_look = looked + min(_WORK * (looked - now), _UNSEEN)
        missing = _missing(part, journal, unit)
        if _awaited(part, journal, unit) or (not claimed and any(map(journal.is_claimed, missing))):
            left.append(unit)
        elif missing:
            started = time.perf_counter()
            found = _measured(part, unit)
            journal.write({key: found[key] for key in missing})
            spent.append(time.perf_counter() - started)
    return (sum(spent) / len(spent) if spent else 0.0), left


def _measured(part: Part, unit: Unit) -> dict[str, Record]:
    """The records of the points of a unit, or the reason why they failed."""
    try:
        with progress.listening(None):  # no progress for the stages within a point
            found = part(unit)
    except UsageError:
        raise  # e.g. a full disk, which is not the failure of a point
    except Exception as error:  # the user's model and metric may raise anything
        found = [failure(error)] * len(unit)
    return {_key(part, k): record for k, record in zip(unit, found, strict=True)}
