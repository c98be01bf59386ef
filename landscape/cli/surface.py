"""`landscape surface`: the loss on a line or a plane through the trained weights, with the check that the picture is right."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.cli.options import Common, Naming
from landscape.cli.terminal import Terminal
from landscape.errors import UsageError

if TYPE_CHECKING:
    from landscape.objective import Objective
    from landscape.surfaces import Direction

NAME = "surface"
_MANY = 1_000_000


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    common: Common,
    naming: Naming,
    dim: Annotated[int, typer.Option("--dim", min=1, max=2, help="1 for a line, 2 for a plane.")] = 2,
    grid: Annotated[
        int, typer.Option("--grid", help="Points on each axis; an odd number has the checkpoint in the middle.")
    ] = 25,
    span: Annotated[tuple[float, float], typer.Option("--span", help="First and last coordinate of each axis.")] = (-1.0, 1.0),
    directions: Annotated[
        str, typer.Option("--directions", help="random, hessian, pca:DIR or to:CKPT; one, or two with a comma.")
    ] = "random",
    norm: Annotated[str, typer.Option("--norm", help="Of random directions: filter, layer or none.")] = "filter",
    orthogonal: Annotated[bool, typer.Option("--orthogonal", help="Make the second axis orthogonal to the first.")] = False,
    with_test: Annotated[bool, typer.Option("--test/--no-test", help="Evaluate the test split at every point too.")] = True,
) -> None:
    """The loss around a minimum on filter-normalized axes, with the check that axes, norms and centre are right.

    Example: landscape surface runs/model.safetensors --dim 2 --grid 51 --span -1 1 --out surface
    """
    import numpy as np

    from landscape.cli.files import OutputDirectory
    from landscape.cli.network import centre_line, objective_of, open_task, test_objective
    from landscape.measures import provenance
    from landscape.report import figure_slice, save
    from landscape.surfaces import line, orthogonal_to, plane
    from landscape.surfaces.grid import coordinates

    coordinates(span, grid)  # a bad span or grid is told before the checkpoint is even read
    if grid**dim > _MANY:
        raise UsageError(f"expected at most {_MANY:,} points, found {grid**dim:,}", fix="pass a smaller --grid")
    if norm not in ("filter", "layer", "none"):
        raise UsageError(f"expected --norm filter, layer or none, found {norm!r}")
    task = open_task(checkpoint, naming, terminal)
    objective = objective_of(task, common, naming.split)
    test = test_objective(task, common) if with_test and naming.split != "test" else None
    inputs = provenance(objective, common.seed) | {
        "command": NAME, "sha256": task.sha256, "split": naming.split, "samples": objective.samples, "dim": dim, "grid": grid,
        "span": list(span), "directions": directions, "norm": norm, "orthogonal": orthogonal,
        "test_samples": None if test is None else test.samples,
    }  # fmt: skip
    folder = OutputDirectory(common.out or Path(f"{checkpoint.stem}-surface"), inputs)
    centre_line(objective, task, checkpoint.name, naming.split, terminal)

    axes = _directions(objective, directions, dim, norm, common, naming, terminal)
    if orthogonal and dim == 2:
        axes[1] = orthogonal_to(axes[0], axes[1])
    if dim == 1:
        result = line(objective, axes[0], span=span, grid=grid, seed=common.seed, test=test)
    else:
        result = plane(objective, (axes[0], axes[1]), span=span, grid=grid, seed=common.seed, test=test)
    result = replace(result, title=f"{result.title}, {checkpoint.stem}")
    for name in result.axes:
        terminal.line(f"axis: {name}")
    for text in result.check.lines() if result.check else ():
        terminal.line(f"check: {text}")
    if result.check is not None and not result.check.passed:
        terminal.unconverged.append("the check of the surface")
        terminal.warn("the surface fails its check: do not trust the picture")
    lost = sum(int((~np.isfinite(v)).sum()) for v in result.values.values())
    if lost:
        terminal.unconverged.append(f"{lost} values of the surface (not finite)")
        terminal.warn(f"{lost} values are not finite; they are hatched in the picture and null in the JSON")
    views = ("contour", "3d") if dim == 2 else ("line",)
    for view in views:
        figure = figure_slice(result, view=view)
        folder.written += save(figure, folder.path / f"surface-{view}")
    document = {
        "schema": 1,
        "checkpoint": str(checkpoint),
        "sha256": task.sha256,
        "task": task.name,
        "not_finite": lost,
        **result.to_json(),
    }
    folder.json("surface.json", document)
    terminal.document(document)
    terminal.written(folder.written)


def _directions(
    objective: "Objective", text: str, dim: int, norm: str, common: Common, naming: Naming, terminal: Terminal
) -> "list[Direction]":
    """As many axes as `dim`, from a comma-separated list of kinds; one kind is used for every axis."""
    from landscape.cli.network import objective_of, open_task, seeded
    from landscape.spectrum import eigenpairs
    from landscape.surfaces import Direction, random_direction, toward, trajectory_directions

    kinds = [k.strip() for k in text.split(",")]
    if len(kinds) == 1:
        kinds *= dim
    if len(kinds) != dim:
        raise UsageError(f"expected one kind of direction or {dim}, found {len(kinds)}", fix="pass --directions random")
    out: list[Direction] = []
    for i, kind in enumerate(kinds):
        rank = kinds[:i].count(kind)
        name, _, path = kind.partition(":")
        if kind == "random":
            out.append(random_direction(objective, seed=common.seed + i, norm=norm))  # type: ignore[arg-type]  # checked by the caller
        elif kind == "hessian":
            pairs = eigenpairs(objective, rank + 1, generator=seeded(common.seed))
            if not pairs.converged[rank]:
                terminal.unconverged.append(f"Hessian eigenvector {rank + 1}")
            out.append(Direction(f"Hessian eigenvector {rank + 1}, eigenvalue {pairs.values[rank]:.4g}", pairs.vectors[rank]))
        elif name == "to" and path:
            other = objective_of(open_task(Path(path), naming, terminal), common, naming.split)
            out.append(toward(objective, other.theta, f"to {Path(path).name}"))
        elif name == "pca" and path:
            files = sorted(p for p in Path(path).glob("*") if p.suffix in (".safetensors", ".pt", ".pth", ".ckpt", ".th"))
            points = [objective_of(open_task(p, naming, terminal), common, naming.split).theta for p in files]
            out.append(trajectory_directions(objective, points, rank + 1)[rank])
        else:
            raise UsageError(
                f"expected random, hessian, pca:DIR or to:CKPT, found {kind!r}", fix="pass --directions random,hessian"
            )
    return out
