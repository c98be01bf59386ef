"""Points of a plane a second, beside the network's bare throughput, the reference loop, loss-landscapes and Landscaper."""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

import landscape as ls
from benchmarks.cases import Case
from benchmarks.parts import Options
from benchmarks.peers import SURFACES
from benchmarks.peers.planes import LandscaperProcess, interpolated
from benchmarks.record import OURS, Row, absent, row
from benchmarks.reference import largest_difference, surface_loop
from benchmarks.timing import Timed, alternate
from landscape.surfaces import Direction

SMALL = 5  # points on each axis of the second grid: what it takes less is the price of the further points alone
PLAIN, LOOP, POINTS = "plain model(x)", "reference loop", "points a second"


def run(case: Case, options: Options) -> Iterator[Row]:
    """Rows in points a second; `facts` has how far the values are from the reference loop's, and ours from float64."""
    case = case.first(options.size("surface", case.name))
    grid, few = options.axis(case.name), SMALL if not options.quick else 3
    objective = ls.Objective(case.model, case.loss, case.batches())
    directions = random_directions(case)

    def plane(points: int, **more: Any) -> Callable[[], Any]:
        ours = tuple(Direction(f"d{i}", d) for i, d in enumerate(directions, 1))
        return lambda: ls.plane(objective, ours, span=(-1.0, 1.0), grid=points, **more)

    work: dict[str, Callable[[], Any]] = {
        PLAIN: throughput(case, few * few),
        LOOP: lambda: surface_loop(case, directions, places(few)),
        OURS: plane(grid),
        f"{OURS}, small grid": plane(few),
    }
    half = "precision" in inspect.signature(ls.plane).parameters
    if half:
        work |= {f"{OURS}, bfloat16": plane(grid, precision="bfloat16"),
                 f"{OURS}, bfloat16, small grid": plane(few, precision="bfloat16")}  # fmt: skip
    gone: list[Row] = []
    landscaper = LandscaperProcess(case, few, options.landscaper)
    with ExitStack() as stack:
        if SURFACES[0].version is None:
            gone.append(absent("surface", case.name, SURFACES[0].name, "not installed: pip install loss-landscapes"))
        else:
            work[SURFACES[0].name] = lambda: interpolated(case, directions, few)
        try:
            work["Landscaper"] = stack.enter_context(landscaper)
        except Exception as error:  # not installed, or its process does not start
            gone.append(absent("surface", case.name, "Landscaper", str(error)))
        times = alternate(work, repeats=options.repeats, budget=3 * options.budget)
    yield from _rows(case, times, directions, grid, few, landscaper.version)
    yield from gone
    if not half:
        yield absent("surface", case.name, f"{OURS}, bfloat16", "not available: ls.plane has no argument `precision`")


def _rows(
    case: Case, times: dict[str, Timed], directions: tuple[Tensor, Tensor], grid: int, few: int, landscaper: str | None
) -> Iterator[Row]:
    """Everything as points a second, with the deviations."""
    loop = times[LOOP].result
    corners = np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    exact = surface_loop(case, directions, corners, torch.float64)
    for name, timed in times.items():
        points = grid * grid if name.startswith(OURS) and "small" not in name else few * few
        facts: dict[str, Any] = {"points": points, "samples": case.samples}
        note = ""
        if timed.failure is None and name.startswith(OURS):
            values = timed.result.values["loss"]
            n = len(values)
            at = [values[0, 0], values[-1, -1], values[n // 2, n // 2]]
            facts["deviation_from_float64"] = largest_difference(np.array(at), exact)
            step = (n - 1) // (few - 1)
            if step * (few - 1) == n - 1:
                facts["deviation"] = largest_difference(values[::step, ::step].ravel(), loop)
        elif timed.failure is None and name == "loss-landscapes":
            facts["deviation"] = largest_difference(timed.result.ravel(), loop)
            note = "beside the points that it documents"
        elif timed.failure is None and name == "Landscaper":
            facts |= {"deviation": abs(timed.result.result / exact[2] - 1), "version": landscaper}
            note = "its centre only: it scales directions in its own way"
        elif timed.failure is None and name == LOOP:
            facts["deviation_from_float64"] = largest_difference(loop[[0, -1, len(loop) // 2]], exact)
        yield row("surface", case.name, POINTS, name, timed, per=points, unit="points/s", rate=True, note=note, **facts)
    for name in (OURS, f"{OURS}, bfloat16"):
        large, small = times.get(name), times.get(f"{name}, small grid")
        if large and small and min(len(large.seconds), len(small.seconds)) >= 3:  # a difference of fewer is noise
            further = Timed([a - b for a, b in zip(large.seconds, small.seconds, strict=False)])
            if min(further.seconds) > 0:
                yield row("surface", case.name, "further points", name, further, per=grid * grid - few * few, unit="points/s",
                          rate=True, note="those of the large grid beyond the small one", samples=case.samples)  # fmt: skip


def places(points: int) -> np.ndarray:
    """(points^2, 2): the grid [-1, 1]^2, the second coordinate running faster."""
    axis = np.linspace(-1.0, 1.0, points)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


def random_directions(case: Case) -> tuple[Tensor, Tensor]:
    """Two random directions, a tenth of the length of every tensor of weights; biases and norm layers stay."""
    g = torch.Generator().manual_seed(5)
    found = []
    for _ in range(2):
        parts = []
        for p in case.model.parameters():
            d = torch.randn(p.shape, generator=g)
            parts.append((d * (0.1 * p.detach().norm() / d.norm()) if p.ndim > 1 else torch.zeros(p.shape)).reshape(-1))
        found.append(torch.cat(parts))
    return found[0], found[1]


def throughput(case: Case, passes: int) -> Callable[[], None]:
    """The network over all batches, so many times, with nothing else: inference mode, channels_last."""
    laid = case.laid_out(channels_last=True)
    model, batches = copy.deepcopy(laid.model), laid.batches()

    def forward() -> None:
        with torch.inference_mode():
            for _again in range(passes):
                for x, _ in batches:
                    model(x)

    return forward
