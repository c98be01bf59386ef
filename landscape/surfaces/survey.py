"""The loop over the points of a chart: from coarse to fine, shared with other processes, interrupted at any moment."""

import time
from collections import deque
from collections.abc import Callable

from landscape import progress
from landscape.errors import LandscapeError
from landscape.surfaces.journal import Journal, Record
from landscape.surfaces.measurement import Part

# Seconds of work that a process claims at once: long beside reading what the others wrote, short beside anybody's patience.
_CLAIM = 0.2


def survey(part: Part, journal: Journal, seen: Callable[[], None] | None = None) -> None:
    """Do every point of a part that is not in the journal yet.

    A point whose computation fails is recorded as failed with its reason, and the others are done all the same.

    Args:
        part: what to measure, and in which order.
        journal: what is known; every point is written to it as soon as it is done.
        seen: called after each stretch of work.
    """
    seconds = 0.0
    with progress.stage(f"{part.name}, points", len(part.order)) as advance:
        reported = 0
        while True:
            journal.refresh()
            todo = deque(k for k in part.order if _key(part, k) not in journal.records)
            if not todo:
                advance(len(part.order) - reported)
                return
            for passed_over in (False, True):  # what others claimed comes last, in case they have died
                later: deque[int] = deque()
                while todo:
                    chunk = _chunk(part, journal, todo, later, max(1, int(_CLAIM / seconds)) if seconds else 1, passed_over)
                    if not chunk:
                        break
                    journal.claim([_key(part, k) for k in chunk])
                    started = time.perf_counter()
                    for k in chunk:
                        journal.write(_key(part, k), _measured(part, k))
                    seconds = (time.perf_counter() - started) / len(chunk)
                    done = len(part.order) - len(todo) - len(later)
                    advance(max(0, done - reported))
                    reported = max(done, reported)
                    if seen is not None:
                        seen()
                    journal.refresh()
                todo = later


def _key(part: Part, number: int) -> str:
    """A point's key in the journal."""
    return f"{part.name}:{number}"


def _chunk(part: Part, journal: Journal, todo: deque[int], later: deque[int], size: int, claimed: bool) -> list[int]:
    """The next points to do; those that others are at work on, or that wait for another point, go to `later`."""
    out: list[int] = []
    while todo and len(out) < size:
        k = todo.popleft()
        if _key(part, k) in journal.records:
            continue
        before = part.wants(k)
        waits = before is not None and _key(part, before) not in journal.records and before not in out
        if waits or (not claimed and journal.is_claimed(_key(part, k))):
            later.append(k)
        else:
            out.append(k)
    return out


def _measured(part: Part, number: int) -> Record:
    """A point's record, or why there is none."""
    try:
        with progress.silence():
            return part(number)
    except (LandscapeError, MemoryError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        return {"failed": f"{type(error).__name__}: {first}"[:300]}
