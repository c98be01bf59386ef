"""The loop over the checkpoints of a sweep, shared among processes, safe to interrupt at any time."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from landscape.cli.sweeps.claims import Claims
from landscape.cli.sweeps.swept_items import Item, Records
from landscape.machine import progress

_LOOK = 0.5  # seconds between two looks of a process that waits for others
_TRIES = 3  # processes that may die while they measure one checkpoint, before it counts as failed


def survey(
    items: Sequence[Item],
    records: Records,
    claims: Claims,
    holds: Callable[[Item, dict[str, Any]], bool],
    measure: Callable[[Item, int], dict[str, Any]],
    kept: Callable[[Item], int] = lambda item: 0,
) -> None:
    """Measure every checkpoint that no process has measured, until all are done.

    Args:
        items: the checkpoints.
        records: what is known of them; each new record is written as soon as it is there.
        claims: of this process.
        holds: whether the record of an item still holds, the network's code and the data being what they were.
        measure: returns the record of an item, measures or reason. Called with the number of checkpoints done before.
        kept: how many measures of an item that is not done are kept. A process that died before the last of them is not
            held against the item: those that continue after it get further.

    Raises:
        UsageError: the folder cannot be written.
    """
    with progress.stage("checkpoints", len(items)) as advance:
        reported = 0

        def told(done: int) -> None:
            nonlocal reported
            advance(done - reported)
            reported = done

        waited = False
        while True:
            open_: list[Item] = []
            for item in items:
                record = records.current(item)
                if record is not None and ("failed" in record or holds(item, record)):
                    records.trust(item, record)
                else:
                    open_.append(item)
            told(len(items) - len(open_))
            if not open_:
                return
            worked = False
            # A checkpoint at which a process died may end this one, too: the others first.
            for item in sorted(open_, key=lambda item: claims.lost(item.id, kept(item))):
                if not claims.take(item.id, kept(item)):
                    continue
                try:
                    record = records.current(item)
                    if record is not None and ("failed" in record or holds(item, record)):
                        records.trust(item, record)
                        continue
                    worked = True
                    records.keep(
                        item, _lost(item, claims.lost(item.id, kept(item)), records.path(item)) or measure(item, reported)
                    )
                    claims.forget(item.id)
                finally:
                    claims.release()
                told(reported + 1)
            if not worked:
                if not waited:
                    progress.remark(f"waiting for other processes, which measure {len(open_)} of {len(items)} checkpoints")
                waited = True
                time.sleep(_LOOK)


def _lost(item: Item, lost: int, record: Path) -> dict[str, Any] | None:
    """The record of an item at which too many processes died; None for another."""
    if lost < _TRIES:
        return None
    text = (
        f"expected a process to finish, found that {lost} were ended from outside while they measured it, as for want of "
        f"memory; give it more memory, or a smaller --batch-size, and delete {record} to try again"
    )
    return {"version": item.version(), "failed": {"error": text, "exit_code": 1}, "lost": True}
