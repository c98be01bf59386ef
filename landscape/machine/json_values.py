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
        'grid (25 there, 51 asked), test (nothing there, True asked)'
    """
    keys = [k for k in sorted({*there, *asked}) if there.get(k) != asked.get(k)]
    shown = [f"{k} ({_short(there.get(k))} there, {_short(asked.get(k))} asked)" for k in keys[:6]]
    return ", ".join(shown) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")


def _short(value: Any) -> str:
    """A value for a message."""
    text = "nothing" if value is None else str(value)
    return f"{text[:8]}…" if len(text) == 64 and set(text) <= set("0123456789abcdef") else text[:80]
