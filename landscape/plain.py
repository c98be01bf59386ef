"""What JSON can hold."""

import math
from typing import Any


def finite_or_none(x: float | None) -> float | None:
    """`x` as a float, or None where JSON has no word for it."""
    return None if x is None or not math.isfinite(x) else float(x)


def plain(x: Any) -> Any:
    """`x` as JSON can hold it: tuples as lists, numbers that are not finite as None."""
    if isinstance(x, dict):
        return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    return finite_or_none(x) if isinstance(x, float) else x
