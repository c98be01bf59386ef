"""`landscape surface`: the loss on a line, a plane or a path, kept point by point, with the check that the picture is right."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli.options import Common, Naming
from landscape.cli.terminal import Terminal
from landscape.errors import MalformedError, UsageError

if TYPE_CHECKING:
    from landscape.cli.budget import Opened
    from landscape.cli.files import OutputDirectory
    from landscape.objective import Objective
    from landscape.results import Slice
    from landscape.surfaces import Curve

NAME = "surface"
_MANY = 1_000_000
_AXES, _PATH, _COST = "Axes", "Paths between minima", "Cost"


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    common: Common,
    naming: Naming,
    dim: Annotated[int, typer.Option("--dim", min=1, max=2, help="1 for a line, 2 for a plane.")] = 2,
    grid: Annotated[
        int | None,
        typer.Option(
            "--grid",
            help="Points on each axis; an odd number has the checkpoint in the middle. Default 51 on a line, 25 on a plane.",
        ),
    ] = None,
    span: Annotated[
        tuple[float, float] | None,
        typer.Option("--span", help="First and last coordinate of each axis. Default -1 1; 0 1 for --path."),
    ] = None,
    directions: Annotated[
        str,
        typer.Option(
            "--directions", help="random, hessian, pca:DIR or to:CKPT; one, or two with a comma.", rich_help_panel=_AXES
        ),
    ] = "random",
    norm: Annotated[
        str, typer.Option("--norm", help="Of random directions: filter, layer or none.", rich_help_panel=_AXES)
    ] = "filter",
    fixed: Annotated[
        str,
        typer.Option(
            "--fixed",
            help="What random directions leave alone: bias,norm (as Li et al.), bias, norm or none.",
            rich_help_panel=_AXES,
        ),
    ] = "bias,norm",
    orthogonal: Annotated[
        bool, typer.Option("--orthogonal", help="Make the second axis orthogonal to the first.", rich_help_panel=_AXES)
    ] = False,
    trajectory: Annotated[
        Path | None,
        typer.Option("--trajectory", help="A folder of checkpoints to project onto the axes.", rich_help_panel=_AXES),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            "--path",
            help="line:CKPT, bezier:CKPT or polygon:CKPT: a path to another minimum instead of axes.",
            rich_help_panel=_PATH,
        ),
    ] = None,
    bends: Annotated[int, typer.Option("--bends", min=1, help="Trained points of a curve.", rich_help_panel=_PATH)] = 1,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps that a curve is trained for.", rich_help_panel=_PATH)
    ] = None,
    batchnorm: Annotated[
        str | None,
        typer.Option(
            "--batchnorm",
            help="Statistics at each point: eval (the checkpoint's), recalibrate, or interpolate between checkpoints. "
            "Default eval; recalibrate where axes or a path lead to other checkpoints.",
        ),
    ] = None,
    curvature: Annotated[
        bool, typer.Option("--curvature", help="Measure both ends of the Hessian's spectrum at every point, and their ratio.")
    ] = False,
    persistence: Annotated[
        float | None,
        typer.Option(
            "--persistence",
            min=0.0,
            help="Count minima above this persistence. Default: above what the samples leave in doubt.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", help="Time, such as 90s, 10m or 2h: chooses grid and samples that fit.", rich_help_panel=_COST
        ),
    ] = None,
    with_test: Annotated[bool, typer.Option("--test/--no-test", help="Evaluate the test split at every point too.")] = True,
) -> None:
    """The loss around a minimum, or on the way to another, with the check that axes, norms and centre are right.

    Every point is kept in --out as soon as it is done: the same command goes on where a killed one stopped, and may run several
    times at once to share the work.

    Example: landscape surface runs/model.safetensors --dim 2 --grid 51 --span -1 1 --out surface
    """
    from landscape.cli.axes import Axes, named_path, parsed, sha256
    from landscape.cli.budget import Opened, seconds_of, settled
    from landscape.cli.files import OutputDirectory
    from landscape.cli.network import centre_line, objective_of, open_task, test_objective
    from landscape.cli.slices import finish
    from landscape.measures import provenance
    from landscape.surfaces.chart import coordinates

    dim = 1 if path is not None else dim
    kinds = parsed(directions, dim)
    bounds = span or ((0.0, 1.0) if path is not None else (-1.0, 1.0))
    coordinates(bounds, 2 if grid is None else grid)  # a bad span or grid is told before the checkpoint is even read
    if grid is not None and grid**dim > _MANY:
        raise UsageError(f"expected at most {_MANY:,} points, found {grid**dim:,}", fix="pass a smaller --grid")
    if norm not in ("filter", "layer", "none"):
        raise UsageError(f"expected --norm filter, layer or none, found {norm!r}")
    held = [] if fixed == "none" else [f.strip() for f in fixed.split(",")]
    if not set(held) <= {"bias", "norm"}:
        raise UsageError(f"expected --fixed bias,norm, bias, norm or none, found {fixed!r}")
    other = named_path(path, directions, trajectory, curvature)
    leads = other is not None or any(k.name == "to" for k in kinds)
    batchnorm = batchnorm or ("recalibrate" if leads and naming.split == "train" else "eval")
    if batchnorm == "recalibrate" and naming.split != "train":
        raise UsageError("expected --split train with --batchnorm recalibrate: statistics come from training data, found test")
    seconds = None if budget is None else seconds_of(budget)

    task = open_task(checkpoint, naming, terminal)
    opened = Opened(
        task,
        objective_of(task, common, naming.split),
        test_objective(task, common) if with_test and naming.split != "test" else None,
    )
    axes = Axes(kinds, trajectory, task, common, naming, terminal)
    files = axes.files() if other is None else {str(other[1]): sha256(other[1])}
    inputs = provenance(opened.objective, common.seed) | {
        "command": NAME, "sha256": task.sha256, "split": naming.split, "samples": opened.objective.samples, "dim": dim,
        "grid": grid, "span": list(bounds), "directions": directions, "norm": norm, "fixed": held, "orthogonal": orthogonal,
        "path": path, "bends": bends, "steps": steps, "batchnorm": batchnorm, "curvature": curvature, "budget": budget,
        "test_samples": None if opened.test is None else opened.test.samples, "files": files,
    }  # fmt: skip
    folder = OutputDirectory(common.out or Path(f"{checkpoint.stem}-surface"), inputs)
    centre_line(opened.objective, task, checkpoint.name, naming.split, terminal)
    opened, points = settled(opened, folder.path / "points", seconds, dim, grid, common, batchnorm, curvature, terminal)
    try:
        if other is not None:
            found = _path(opened, other, folder, points, bounds, batchnorm, bends, steps, common, naming, terminal)
        else:
            found = _axes(opened, axes, folder, points, bounds, batchnorm, curvature, norm, held, orthogonal, common, terminal)
    except KeyboardInterrupt:
        terminal.note(f"what was done is kept in {folder.path}: the same command goes on")
        raise
    found = replace(found, title=f"{found.title}, {checkpoint.stem}")
    finish(found, folder, checkpoint, task, persistence, terminal)


def _axes(
    opened: "Opened", axes: Any, folder: "OutputDirectory", grid: int, span: tuple[float, float], batchnorm: str,
    curvature: bool, norm: str, fixed: Sequence[str], orthogonal: bool, common: Common, terminal: Terminal,
) -> "Slice":  # fmt: skip
    """A line or a plane."""
    from landscape.cli.slices import preview
    from landscape.surfaces import forecast_surface, line, plane, store_directions, stored_directions

    objective, test, kept = opened.objective, opened.test, folder.path / "points"
    directions = stored_directions(kept, objective.theta)
    if directions is None:
        directions = tuple(axes.directions(objective, norm, fixed, orthogonal))
        store_directions(kept, directions)
    for direction in directions:
        terminal.line(f"axis: {direction.name}")
    dim = len(directions)
    expected = forecast_surface(objective, grid**dim, test=test, batchnorm=batchnorm, curvature=curvature)  # type: ignore[arg-type]  # plane checks it
    terminal.note(f"forecast: {expected.line()}")
    options: dict[str, Any] = {
        "span": span, "grid": grid, "seed": common.seed, "test": test, "batchnorm": batchnorm, "curvature": curvature,
        "run": kept, "seen": lambda piece: preview(piece, folder),
    }  # fmt: skip
    if dim == 1:
        found = line(objective, directions[0], **options)
    else:
        found = plane(objective, (directions[0], directions[1]), **options)
    return replace(found, tracks=axes.tracks(objective, directions))


def _path(
    opened: "Opened", other: tuple[str, Path], folder: "OutputDirectory", grid: int, span: tuple[float, float], batchnorm: str,
    bends: int, steps: int | None, common: Common, naming: Naming, terminal: Terminal,
) -> "Slice":  # fmt: skip
    """The line or a trained curve to another checkpoint."""
    from landscape.cli.network import objective_of, open_task
    from landscape.cli.slices import preview
    from landscape.surfaces import interpolation

    kind, path = other
    end = objective_of(open_task(path, naming, terminal), common, naming.split)
    curve = None if kind == "line" else _curve(opened.objective, end, kind, folder, bends, steps, common, terminal)
    found = interpolation(
        opened.objective, end, span=span, grid=grid, test=opened.test, batchnorm=batchnorm, curve=curve,  # type: ignore[arg-type]  # checked there
        run=folder.path / "points", seen=lambda piece: preview(piece, folder),
    )  # fmt: skip
    for quantity, barrier in found.barriers.items():
        accuracy = quantity.endswith("accuracy")
        unit = " points" if accuracy else ""
        terminal.line(
            f"barrier of {quantity.replace('_', ' ')}: {barrier.text(100.0 if accuracy else 1.0)}{unit}, at {barrier.at:.3g}"
        )
    return replace(found, title=f"{found.title}, to {path.stem}")


def _curve(
    start: "Objective", end: "Objective", kind: str, folder: "OutputDirectory", bends: int, steps: int | None, common: Common,
    terminal: Terminal,
) -> "Curve":  # fmt: skip
    """A trained curve, kept beside the pictures, so that a run that goes on need not train it again."""
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    from landscape.files import write
    from landscape.surfaces import Curve, train_curve

    path = folder.file("curve.safetensors")
    if path.exists():
        try:
            return Curve.from_tensors({k: t.to(start.theta) for k, t in load(path.read_bytes()).items()})
        except SafetensorError:
            raise MalformedError(f"expected a trained curve in {path}, found a damaged file", fix="delete it") from None
    options = {} if steps is None else {"steps": steps}
    curve = train_curve(start, end, kind=kind, bends=bends, seed=common.seed, **options)  # type: ignore[arg-type]  # checked before
    write(path, save(curve.to_tensors()))
    straight = float((end.theta.to(start.theta) - start.theta).norm())
    terminal.line(f"curve: {kind} of length {curve.length:.4g}, the ends are {straight:.4g} apart")
    return curve
