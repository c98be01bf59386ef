"""Values that JSON can hold, and the differences between two records."""

import math
from typing import Any


def finite_or_none(x: float | None) -> float | None:
    """`x` as a float; None if it is missing or not finite, which JSON cannot express."""
    return None if x is None or not math.isfinite(x) else float(x)


def number_or_nan(x: float | str | None) -> float:
    """A number from JSON: null becomes nan, and a string such as "inf" is converted."""
    return math.nan if x is None else float(x)


def plain(x: Any) -> Any:
    """`x` in types that JSON can hold: tuples become lists, numbers that are not finite become None."""
    if isinstance(x, dict):
        return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    return finite_or_none(x) if isinstance(x, float) else x


def differences(there: dict[str, Any], asked: dict[str, Any]) -> str:
    """The differences between two records as text; digests are shortened.

    Example:
        >>> differences({"grid": 25, "seed": 0}, {"grid": 51, "seed": 0, "test": True})
        'grid (25 there, 51 asked), test (the default there, yes asked)'
        >>> differences({"files": {"a.pt": "b", "c.pt": "d"}}, {"files": {}})
        'files (a.pt b, c.pt d there, none asked)'
    """
    keys = [k for k in sorted({*there, *asked}) if there.get(k) != asked.get(k)]
    shown = [f"{k} ({_short(k, there.get(k))} there, {_short(k, asked.get(k))} asked)" for k in keys[:6]]
    return ", ".join(shown) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")


# What a record means by an entry that it lacks; of any other option, its default.
_LACKING = {
    "measures": "the usual ones",
    "samples": "all",
    "params": "all weights",
    "test_samples": "none",
    "budget": "none",
    "tolerance": "none",
    "held_weights": "none",
    "processes": "one",
    "loss_per": "sample",
    "sha256": "nothing",
}


def _short(key: str, value: Any) -> str:
    """A value for a message."""
    if value is None:
        return "nothing" if key.startswith("digest") else _LACKING.get(key, "the default")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        named = [f"{name} {_short(name, item)}" for name, item in value.items()]
        return (", ".join(named[:3]) + (f" and {len(named) - 3} more" if named[3:] else "")) or "none"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{text[:8]}…" if len(text) == 64 and set(text) <= set("0123456789abcdef") else text[:80]
