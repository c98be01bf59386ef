"""`landscape surface`: the loss on a line, a plane or a path, saved point by point, with a check of the result."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli.options import Common, Varying
from landscape.cli.surfaces.surface_options import SurfaceOptions
from landscape.cli.terminal import Terminal
from landscape.errors import MalformedError
from landscape.machine.files import bare_name

if TYPE_CHECKING:
    from landscape.cli.output_directory import OutputDirectory
    from landscape.objective import Objective
    from landscape.results import Slice
    from landscape.surfaces import Curve
    from landscape.tasks import Task

NAME = "surface"


@dataclass(frozen=True)
class Job:
    """The options of one surface, with the opened checkpoint and data."""

    checkpoint: Path
    common: Common
    naming: Varying
    options: SurfaceOptions
    task: "Task"
    objective: "Objective"
    test: "Objective | None"
    terminal: Terminal


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    common: Common,
    naming: Varying,
    options: SurfaceOptions,
) -> None:
    """The loss around a minimum, or along a path to another, with a check of axes, norms, centre and curvature.

    Every point is saved in --out as soon as it is computed: after an interruption the same command continues, and several
    copies of the command may run at once to divide the points.

    Example: landscape surface runs/model.safetensors --dim 2 --grid 51 --span -1 1 --out surface
    """
    from landscape.cli.output_directory import OutputDirectory
    from landscape.cli.setup import centre_line, objective_of, open_task, task_file, test_objective
    from landscape.cli.surfaces.output import finish
    from landscape.cli.surfaces.requested_axes import Axes, path_sha256
    from landscape.measures import provenance

    options.check(naming.split)
    task = open_task(checkpoint, naming, terminal)
    test = test_objective(task, common) if options.with_test and naming.split != "test" else None
    job = Job(checkpoint, common, naming, options, task, objective_of(task, common, naming.split), test, terminal)
    axes = Axes(options.asked, options.trajectory, task, common, naming, terminal)
    files = axes.files() if options.end is None else {str(options.end[1]): path_sha256(options.end[1])}
    made_with = provenance(job.objective, common.seed) | task_file(naming) | {
        "checkpoint": checkpoint.name, "sha256": task.sha256, "task": task.name, "split": naming.split,
        "samples": job.objective.samples, "test_samples": None if test is None else test.samples, "files": files,
    }  # fmt: skip
    inputs = made_with | options.record() | {"command": NAME}
    inputs.pop("processes", None)  # a run may continue with another number of processes
    folder = OutputDirectory(common.out or Path(f"{bare_name(checkpoint)}-surface"), inputs)
    centre_line(job.objective, task, checkpoint.name, naming.split, terminal)
    job, points = _settled(job, folder)
    _forecast(job, points)
    try:
        found = _on_axes(job, axes, folder, points) if options.end is None else _on_path(job, *options.end, folder, points)
    except KeyboardInterrupt:
        if folder.written:
            terminal.note(f"finished points are saved in {folder.place}: the same command continues from them")
        raise
    title = found.title + (f", {naming.split} split" if naming.split == "test" else "")
    made_with |= {k: v for k, v in options.record().items() if v is not None} | found.provenance
    finish(replace(found, title=title, provenance=made_with), folder, job.checkpoint, task, options, terminal)


def _forecast(job: Job, grid: int) -> None:
    """Print, before any other work, how long the points will take."""
    from landscape.cli.surfaces.axis_kinds import KINDS
    from landscape.machine.progress import duration
    from landscape.surfaces import forecast_surface

    options = job.options
    batchnorm: Any = options.statistics(job.naming.split)
    found = forecast_surface(
        job.objective, grid**options.axes, test=job.test, batchnorm=batchnorm, curvature=options.curvature,
        precision=options.precision,
        random_axes=options.checks_random_axes,
    )  # fmt: skip
    beside = []
    if options.end is not None and options.end[0] != "line":
        # A step is a gradient on a mini-batch: about three forward passes, and as much again for the optimizer and BatchNorm.
        alone = forecast_surface(job.objective, 1).seconds
        taken = options.steps * 6 * alone * min(1.0, 128 / job.objective.samples)
        beside.append(f"training the curve about {duration(taken)}")
    names = {one.name for one in options.asked} | ({"pca"} if options.trajectory else set())
    beside += [kind.before for name, kind in KINDS.items() if name in names and kind.before]
    fewer = ", fewer with --tolerance" if options.tolerance is not None else ""
    job.terminal.note(f"forecast: {found.line()}{fewer}" + (f"; before them {' and '.join(beside)}" if beside else ""))


def _settled(job: Job, folder: "OutputDirectory") -> tuple[Job, int]:
    """Grid and samples: as given, or what the budget allows. The first process of a folder decides for all."""
    from landscape.surfaces import agreed, within

    options, seconds = job.options, job.options.seconds
    if seconds is None:
        return job, options.points

    def choose() -> dict[str, Any]:
        batchnorm: Any = options.statistics(job.naming.split)
        grid, samples = within(
            seconds, options.axes, job.objective, test=job.test, batchnorm=batchnorm, curvature=options.curvature,
            precision=options.precision, grid=options.grid, samples=job.common.samples,
            random_axes=options.checks_random_axes,
        )  # fmt: skip
        return {"grid": grid, "samples": samples}

    plan = agreed(_points(folder), "plan", choose)
    grid, samples = plan.get("grid"), plan.get("samples")
    if not (isinstance(grid, int) and isinstance(samples, int) and grid >= 2 and 1 <= samples <= job.objective.samples):
        raise MalformedError(f"expected grid and samples in {_points(folder) / 'plan.json'}, found {plan}", fix="delete it")
    shape = f"{grid} x {grid}" if options.axes == 2 else f"{grid}"
    which = "all" if samples == job.objective.samples else "the first"
    job.terminal.line(f"budget: {shape} points, {which} {samples} samples")
    test = job.test
    if samples == job.objective.samples:
        return job, grid
    fewer = None if test is None else test.subset(min(samples, test.samples))
    return replace(job, objective=job.objective.subset(samples), test=fewer), grid


def _on_axes(job: Job, axes: Any, folder: "OutputDirectory", grid: int) -> "Slice":
    """A line or a plane."""
    from landscape.checkpoints.weights import dead_filters
    from landscape.cli.surfaces.output import draw_unfinished
    from landscape.report.style import listed
    from landscape.surfaces import line, plane, store_directions, stored_directions

    options, objective = job.options, job.objective
    # A new folder is made after the directions: a wrong network among them leaves none.
    directions = stored_directions(_points(folder), objective.theta) if folder.place.exists() else None
    if directions is None:
        directions = tuple(axes.directions(objective, options.norm, options.held, options.orthogonal))
        store_directions(_points(folder), directions)
        directions = (
            stored_directions(_points(folder), objective.theta) or directions
        )  # another process may have stored them first
    for direction in directions:
        job.terminal.line(f"axis: {direction.name}")
    if options.norm == "filter" and any(one.name == "random" for one in options.asked):
        for notice in dead_filters({e.name: objective.theta[e.start : e.stop].view(e.shape) for e in objective.layout}):
            job.terminal.note(notice)
    tracks = axes.tracks(objective, directions, _points(folder))
    spans = axes.spans(tracks, grid) if options.span is None else [options.span] * len(directions)
    measured: dict[str, Any] = {
        "test": job.test, "batchnorm": options.statistics(job.naming.split), "curvature": options.curvature,
        "precision": options.precision, "tolerance": options.tolerance, "random_check": options.random_check,
    }  # fmt: skip
    kept: dict[str, Any] = {"run": _points(folder), "seen": lambda piece: draw_unfinished(piece, folder, not options.clean)}
    if len(directions) == 1:
        found = line(objective, directions[0], span=spans[0], grid=grid, seed=job.common.seed, **measured, **kept)
    else:
        both, two = (directions[0], directions[1]), (spans[0], spans[1])
        found = plane(objective, both, span=two, grid=grid, seed=job.common.seed, **measured, **kept)
    through = [job.checkpoint.name, *(path.name for path in axes.others())]
    made_with = found.provenance | ({"through": through} if len(through) > 1 else {})
    title = found.title.replace("the trained weights", listed([bare_name(name) for name in through]))
    return replace(found, tracks=tracks, title=title, provenance=made_with)


def _on_path(job: Job, kind: str, path: Path, folder: "OutputDirectory", grid: int) -> "Slice":
    """The line or a trained curve to another checkpoint."""
    from landscape.cli.setup import objective_of, open_task
    from landscape.cli.surfaces.output import draw_unfinished
    from landscape.surfaces import interpolation

    end = objective_of(open_task(path, job.naming, job.terminal), job.common, job.naming.split)
    curve = None if kind == "line" else _curve(job, end, kind, folder)
    measured: dict[str, Any] = {
        "span": job.options.span or (0.0, 1.0), "grid": grid, "test": job.test,
        "batchnorm": job.options.statistics(job.naming.split), "curvature": job.options.curvature,
        "precision": job.options.precision, "tolerance": job.options.tolerance,
    }  # fmt: skip
    found = interpolation(
        job.objective,
        end,
        curve=curve,
        run=_points(folder),
        seen=lambda piece: draw_unfinished(piece, folder, not job.options.clean),
        **measured,
    )
    for quantity, barrier in found.barriers.items():
        job.terminal.line(f"{quantity.replace('_', ' ')}: {barrier.words(quantity)}")
    title = found.title.replace("between two minima", f"from {bare_name(job.checkpoint)} to {bare_name(path)}")
    told: dict[str, Any] = {"ends": [bare_name(job.checkpoint), bare_name(path)]}
    if curve is not None:
        # For comparison with the curve.
        straight = interpolation(job.objective, end, run=_points(folder) / "line", **(measured | {"curvature": False}))
        for quantity, barrier in straight.barriers.items():
            job.terminal.line(f"{quantity.replace('_', ' ')} on the straight line: {barrier.words(quantity)}")
        told["curve"] = curve.settings | {"length": curve.length}
        told["straight_line"] = {quantity: barrier.to_json() for quantity, barrier in straight.barriers.items()}
    return replace(found, title=title, provenance=found.provenance | told)


def _curve(job: Job, end: "Objective", kind: str, folder: "OutputDirectory") -> "Curve":
    """A trained curve. It is saved in the folder, so that a continued run does not train it again."""
    import json

    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save

    from landscape.machine.files import create, open_regular
    from landscape.surfaces import Curve, train_curve

    start, path = job.objective, folder.shared / "curve.safetensors"
    folder.written.append(path)
    if not path.exists():
        options, alone = job.options, start.alone()
        trained = train_curve(alone, end.alone(), kind=kind, bends=options.bends, steps=options.steps, seed=job.common.seed)  # type: ignore[arg-type]  # one of the kinds of --path
        create(path, save(trained.to_tensors(), {"settings": json.dumps(trained.settings)}))  # another process may be first
    try:
        open_regular(path).close()
        with safe_open(path, "pt") as file:
            tensors = {k: file.get_tensor(k).to(start.theta) for k in file.keys()}  # noqa: SIM118  # not a dictionary
            curve = Curve.from_tensors(tensors, json.loads(file.metadata()["settings"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise MalformedError(f"expected a trained curve in {path}, found a damaged file", fix="delete it") from None
    straight = float((end.theta.to(start.theta) - start.theta).norm())
    job.terminal.line(
        f"curve: {kind} of length {curve.length:.4g}, the ends are {straight:.4g} apart; "
        f"trained on these {start.samples} samples"
    )
    return curve


def _points(folder: "OutputDirectory") -> Path:
    """The folder in which the run saves its points."""
    return folder.shared / "points"
