"""A plane of few points on more samples, all included, beside the bare network: what is settled first counts for less there."""

from collections.abc import Callable, Iterator
from typing import Any

import landscape as ls
from benchmarks.cases import Case
from benchmarks.parts import Options
from benchmarks.parts.surface import PLAIN, POINTS, SMALL, random_directions, throughput
from benchmarks.record import OURS, Row, row
from benchmarks.timing import alternate
from landscape.surfaces import Direction


def run(case: Case, options: Options) -> Iterator[Row]:
    """Rows in points a second; every call of ours has a new Objective, so that its checks are counted."""
    case = case.first(options.size("small_plane", case.name))
    axes = tuple(Direction(f"d{i}", d) for i, d in enumerate(random_directions(case), 1))
    work: dict[str, Callable[[], Any]] = {
        PLAIN: throughput(case, SMALL * SMALL),
        OURS: lambda: ls.plane(ls.Objective(case.model, case.loss, case.batches()), axes, span=(-1.0, 1.0), grid=SMALL),
    }
    for name, timed in alternate(work, repeats=options.repeats, budget=3 * options.budget).items():
        facts = {"points": SMALL * SMALL, "samples": case.samples}
        yield row("small_plane", case.name, POINTS, name, timed, per=SMALL * SMALL, unit="points/s", rate=True, **facts)
