"""Wall times that can be compared: the candidates take turns, so that a busy minute of the machine falls on all of them."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class OutOfTime(Exception):
    """A candidate has used up its time; `so_far` is what it had found."""

    so_far: Any = None


@dataclass
class Meter:
    """Counts a candidate's products and stops it when its time is up.

    Attributes:
        limit: seconds from the first count; None for no limit.
        products: matrix-vector products so far.
    """

    limit: float | None = None
    products: int = 0
    _started: float = field(default_factory=lambda: time.perf_counter())

    def count(self, products: int = 1) -> None:
        """Before every product."""
        if self.limit is not None and time.perf_counter() - self._started > self.limit:
            raise OutOfTime(f"stopped after {self.limit:.0f} s and {self.products} products")
        self.products += products


@dataclass
class Timed:
    """The times of one candidate.

    Attributes:
        seconds: one a round.
        result: what the last round returned.
        failure: why there is no result.
        cut: it was stopped: it needs at least the time that it took.
    """

    seconds: list[float] = field(default_factory=list)
    result: Any = None
    failure: str | None = None
    cut: bool = False

    @property
    def median(self) -> float:
        """Seconds, the middle one."""
        return float(np.median(self.seconds)) if self.seconds else float("nan")


def alternate(work: Mapping[str, Callable[[], Any]], *, repeats: int, budget: float, warm: bool = True) -> dict[str, Timed]:
    """Time every candidate once a round, in turn, until `repeats` rounds are done or `budget` seconds are spent.

    The first round warms up and is not counted where `warm`. A candidate that raises keeps the error as its result and takes
    no further part; so does one that takes a third of the budget at once, so that the others have more rounds: its time
    counts, warm or not.
    """
    found = {name: Timed() for name in work}
    gc.freeze()  # what is there now is not looked through again at every round
    started, rounds = time.perf_counter(), 0
    resting: set[str] = set()
    while rounds < repeats + warm and (rounds < 1 + warm or time.perf_counter() - started < budget):
        gc.collect()
        for name, call in work.items():
            if found[name].failure is not None or name in resting:
                continue
            before = time.perf_counter()
            try:
                result = call()
            except Exception as error:  # another tool's bug is a finding, not the end of the run
                found[name].failure = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
                if isinstance(error, OutOfTime):
                    found[name].cut, found[name].result = True, error.so_far
                    found[name].seconds.append(time.perf_counter() - before)
                continue
            took = time.perf_counter() - before
            found[name].result = result
            if long := took > budget / 3 > 0 and len(work) > 1:
                resting.add(name)
            if rounds >= warm or long:
                found[name].seconds.append(result.seconds if isinstance(result, SelfTimed) else took)
        rounds += 1
    gc.unfreeze()
    return found


@dataclass
class SelfTimed:
    """A result whose time somebody else took: another process, or a call of which a part is not charged."""

    seconds: float
    result: Any
