"""Time in tests: nothing that is asserted hangs on the machine's speed, or on what else it does."""

import time
from collections.abc import Callable


class FakeClock:
    """Stands in for the module `time` where the code under test reads it; it stands still but for sleep."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        """Time passes here and nowhere else."""
        self.now += seconds

    def read(self) -> float:
        """Seconds since the clock's beginning."""
        return self.now

    perf_counter = monotonic = process_time = time = read


def growth(work: Callable[[int], object], small: int, large: int) -> float:
    """How many times the processor time of the small size the large one takes, in proportion: n log n is little more than 1.

    The small one is run once before, then twice, and its slower run counts: growth like n^2 is many times over any bound of a
    few, and a cache that others use is not.
    """

    def seconds(n: int) -> float:
        started = time.process_time()
        work(n)
        return time.process_time() - started

    work(small)
    return seconds(large) / max(seconds(small), seconds(small)) / (large / small)
