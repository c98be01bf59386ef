"""What processes must have alike before they share work, held against one another as digests."""

from collections import Counter
from collections.abc import Mapping

from landscape.errors import UsageError, printable
from landscape.machine.distributed import GOES_ON, Group, LostError

_DIGEST = 12  # characters of a SHA-256 that are shown
_SHOWN = 3


def check_alike(members: Group, parts: Mapping[str, str]) -> None:
    """Refuse to share work between processes that were given different things.

    Several processes compute one sum together. Where one of them read another checkpoint (a stale copy on one machine), other
    data or other options, the sum is that of no network at all, and looks like any other number.

    Args:
        members: the processes; returns at once where this one is alone.
        parts: what must be the same everywhere, by name: a SHA-256, or a short text.

    Raises:
        UsageError: they differ; says which process differs in what, the same line in every process. What most of them have
            counts as right, and what the first process has where there is no majority.
        LostError: a process is gone, or compares something else.

    Cost: one step; all wait for all.

    Example:
        >>> check_alike(Group(), {"checkpoint": "0123"})
    """
    if members.size == 1:
        return
    found = members.everyone(dict(parts))
    if any(not isinstance(theirs, dict) or theirs.keys() != parts.keys() for theirs in found):
        raise LostError(f"expected {members.size} processes at the same step, found them at different ones", fix=GOES_ON)
    usual = {name: Counter(theirs[name] for theirs in found).most_common(1)[0][0] for name in parts}
    odd = {rank: [n for n in parts if theirs[n] != usual[n]] for rank, theirs in enumerate(found)}
    odd = {rank: names for rank, names in odd.items() if names}
    if not odd:
        return
    told = []
    for rank, names in list(odd.items())[:_SHOWN]:
        listed = (f"{name} ({_short(found[rank][name])}, elsewhere {_short(usual[name])})" for name in names[:_SHOWN])
        told.append(f"process {rank} with another {', '.join(listed)}" + _more(len(names)))
    raise UsageError(
        f"expected the same input in all {members.size} processes, found {'; '.join(told)}{_more(len(odd))}",
        fix="give every process the same files and the same options; a copy on one machine may be stale",
    )


def _short(value: str) -> str:
    """The first characters of a digest, or a text."""
    digest = len(value) == 64 and all(c in "0123456789abcdef" for c in value)
    return f"{value[:_DIGEST]}…" if digest else printable(value, limit=40)


def _more(count: int) -> str:
    """What is left to say where not all is shown."""
    return f", and {count - _SHOWN} more" if count > _SHOWN else ""
