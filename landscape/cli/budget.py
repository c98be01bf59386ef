"""Grid and samples of a surface: as they were asked for, or as `--budget` allows."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from landscape.cli.options import Common
from landscape.cli.terminal import Terminal
from landscape.errors import UsageError

if TYPE_CHECKING:
    from landscape.objective import Objective
    from landscape.tasks import Task

GRID = {1: 51, 2: 25}


@dataclass(frozen=True)
class Opened:
    """What the checkpoint was opened as."""

    task: "Task"
    objective: "Objective"
    test: "Objective | None"


def settled(
    opened: Opened, kept: Path, seconds: float | None, dim: int, grid: int | None, common: Common, batchnorm: str,
    curvature: bool, terminal: Terminal,
) -> tuple[Opened, int]:  # fmt: skip
    """Grid and samples: as asked, or as a budget allows; the first process in a folder settles it for all."""
    from landscape.surfaces import agreed, within

    if seconds is None:
        return opened, grid or GRID[dim]
    found = agreed(
        kept,
        "plan",
        lambda: dict(
            zip(
                ("grid", "samples"),
                within(
                    seconds, dim, opened.objective, test=opened.test, batchnorm=batchnorm, curvature=curvature,  # type: ignore[arg-type]  # checked before
                    grid=grid, samples=common.samples,
                ),
                strict=True,
            )
        ),
    )  # fmt: skip
    points, samples = int(found["grid"]), int(found["samples"])
    all_of = "all" if samples == opened.objective.samples else "the first"
    terminal.line(f"budget: {points}{' x ' + str(points) if dim == 2 else ''} points, {all_of} {samples} samples")
    objective, test = opened.objective, opened.test
    if samples < objective.samples:
        objective = objective.subset(samples)
    if test is not None and samples < test.samples:
        test = test.subset(samples)
    return Opened(opened.task, objective, test), points


def seconds_of(text: str) -> float:
    """A time such as 90s, 10m or 2h; a bare number is seconds.

    Raises:
        UsageError: it is not one.

    Example:
        >>> seconds_of("90"), seconds_of("1.5m"), seconds_of("2h")
        (90.0, 90.0, 7200.0)
    """
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    try:
        seconds = float(text[:-1] if unit else text) * (unit or 1.0)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"expected a time such as 90s, 10m or 2h, found --budget {text}")
    return seconds
