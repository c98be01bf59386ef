"""What is kept of a point, and how its numbers are written."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

Record = dict[str, Any]


class Decoded(Mapping[str, Record]):
    """Records, kept as the text that they are in a segment: a fifth of the memory."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def __getitem__(self, key: str) -> Record:
        return json.loads(self._texts[key])

    def __contains__(self, key: object) -> bool:
        return key in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def failure(error: Exception) -> Record:
    """The record of a point that could not be computed."""
    return {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]}


def encoded(x: float | None) -> float | str | None:
    """A number as JSON can hold it; what is not finite is spelt out, for `number_or_nan` to read."""
    return x if x is None or math.isfinite(x) else repr(x)
