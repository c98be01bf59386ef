"""Check that all processes were given the same input before they share work, by comparing digests."""

from collections import Counter
from collections.abc import Mapping

from landscape.errors import UsageError, printable
from landscape.machine.distributed import GOES_ON, Group, LostError

_DIGEST = 12  # characters of a SHA-256 that are shown
_SHOWN = 3


def check_alike(members: Group, parts: Mapping[str, str]) -> None:
    """Refuse to share work between processes that were given different things.

    Several processes compute one sum together. If one of them read another checkpoint (a stale copy on one machine), other
    data or other options, the sum belongs to no network at all, yet looks like any other number.

    Args:
        members: the processes; with a single process nothing is compared.
        parts: what must be the same everywhere, by name: a SHA-256, or a short text.

    Raises:
        UsageError: the processes differ. The message names the processes and the parts, and is the same in every process.
            The value that most processes have counts as right; without a majority, that of the first process.
        LostError: a process is gone, or compares other parts.

    Cost: one collective.

    Example:
        >>> check_alike(Group(), {"checkpoint": "0123"})
    """
    if members.size == 1:
        return
    inputs = members.everyone(dict(parts))
    if any(not isinstance(theirs, dict) or theirs.keys() != parts.keys() for theirs in inputs):
        raise LostError(f"expected {members.size} processes at the same step, found them at different ones", fix=GOES_ON)
    usual = {name: Counter(theirs[name] for theirs in inputs).most_common(1)[0][0] for name in parts}
    differing = {rank: [n for n in parts if theirs[n] != usual[n]] for rank, theirs in enumerate(inputs)}
    differing = {rank: names for rank, names in differing.items() if names}
    if not differing:
        return
    deviations = []
    for rank, names in list(differing.items())[:_SHOWN]:
        listed = (f"{name} ({_short(inputs[rank][name])}, elsewhere {_short(usual[name])})" for name in names[:_SHOWN])
        deviations.append(f"process {rank} with another {', '.join(listed)}" + _more(len(names)))
    raise UsageError(
        f"expected the same input in all {members.size} processes, found {'; '.join(deviations)}{_more(len(differing))}",
        fix="give every process the same files and the same options; a copy on one machine may be stale",
    )


def _short(value: str) -> str:
    """The first characters of a digest, or a text."""
    digest = len(value) == 64 and all(c in "0123456789abcdef" for c in value)
    return f"{value[:_DIGEST]}…" if digest else printable(value, limit=40)


def _more(count: int) -> str:
    """The end of a list that is cut after `_SHOWN` entries."""
    return f", and {count - _SHOWN} more" if count > _SHOWN else ""
