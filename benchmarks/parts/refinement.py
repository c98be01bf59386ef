"""A plane with a tolerance, beside the reference loop that computes every point."""

from collections.abc import Iterator
from typing import Any

import landscape as ls
from benchmarks.cases import Case
from benchmarks.parts import Options
from benchmarks.parts.surface import LOOP, SMALL, places, random_directions
from benchmarks.record import OURS, Row, row
from benchmarks.reference import surface_loop
from benchmarks.timing import alternate
from landscape.surfaces import Direction

GRID, TOLERANCE = 51, 0.25  # as users draw it; in standard errors over samples
LONG = (
    10.0  # the directions of the part `surface`, a tenth of the weights long, times this: filter-normalized planes run so far
)


def run(case: Case, options: Options) -> Iterator[Row]:
    """Rows in points a second, interpolated ones included; the loop's rate is that of 25 points of the same plane."""
    case = case.first(options.size("refinement", case.name))
    grid = GRID if not options.quick else 15
    objective = ls.Objective(case.model, case.loss, case.batches())
    axes = tuple(Direction(f"d{i}", LONG * d) for i, d in enumerate(random_directions(case), 1))
    pair = (axes[0].vector, axes[1].vector)
    work = {
        LOOP: lambda: surface_loop(case, pair, places(SMALL)),
        OURS: lambda: ls.plane(objective, (axes[0], axes[1]), grid=grid, tolerance=TOLERANCE),
    }
    times = alternate(work, repeats=options.repeats, budget=3 * options.budget)
    for name, timed in times.items():
        facts: dict[str, Any] = {"samples": case.samples}
        if name == OURS and timed.failure is None:
            found = timed.result.refinement
            facts |= {"computed": found.points["loss"][0], "points": grid * grid}
            facts |= {"off": found.held_out["loss"].in_errors} if "loss" in found.held_out else {}
        points = grid * grid if name == OURS else SMALL * SMALL
        note = "" if name == OURS else "at the rate of 25 points"
        yield row("refinement", case.name, "points a second", name, timed, per=points, unit="points/s", rate=True, note=note,
                  **facts)  # fmt: skip
