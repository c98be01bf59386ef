"""`landscape reparam`: other weights, the same function, and what each measure makes of it."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.cli.options import Common, Naming
from landscape.cli.terminal import Terminal
from landscape.errors import NumericalError, UsageError

if TYPE_CHECKING:
    from landscape.objective import Objective
    from landscape.reparam import Symmetries
    from landscape.tasks import Task

NAME = "reparam"


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    common: Common,
    naming: Naming,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", help="A layer's outputs times alpha, the weights that read them over alpha; default 5."),
    ] = None,
    node: Annotated[
        bool, typer.Option("--node", help="A factor for every neuron, log-uniform between 1/alpha and alpha.")
    ] = False,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", help="The layer to rescale, instead of the first; several are allowed.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="MEASURE=VALUE", help="Choose alpha so that a measure has this value, e.g. trace=1e6."
        ),
    ] = None,
    measures: Annotated[
        str | None, typer.Option("--measures", help="all, or names separated by commas; default the usual ones.")
    ] = None,
) -> None:
    """Rescale the weights without changing the function, and certify what every measure says before and after.

    Example: landscape reparam runs/model.safetensors --target trace=1e6 --out rescaled
    """
    from landscape import checkpoints
    from landscape.cli.files import OutputDirectory
    from landscape.cli.network import centre_line, objective_of, open_task, seeded
    from landscape.cli.sharpness import listed
    from landscape.measures import chosen, provenance
    from landscape.reparam import certificate, find_symmetries, rescale
    from landscape.report import figure_certificate, save

    names = listed(measures)
    chosen(names)
    if target is not None and alpha is not None:
        raise UsageError("expected --alpha or --target, found both", fix="a target is what alpha is solved for")
    factor = 5.0 if alpha is None else alpha
    if not (math.isfinite(factor) and factor > 0):
        raise UsageError(f"expected a positive --alpha, found {factor:g}", fix="for example --alpha 5")
    if target is not None and node:
        raise UsageError("expected --target or --node, found both", fix="a target is solved for with one factor for a layer")
    task = open_task(checkpoint, naming, terminal)
    if common.dtype == "float64":
        task.model.double()
    objective = objective_of(task, common, naming.split)
    symmetries = find_symmetries(task.model, objective.example).require()
    inputs = provenance(objective, common.seed) | {
        "command": NAME, "sha256": task.sha256, "split": naming.split, "samples": objective.samples, "alpha": factor,
        "node": node, "layer": layer, "target": target, "measures": names,
    }  # fmt: skip
    folder = OutputDirectory(common.out or Path(f"{checkpoint.stem}-reparam"), inputs)
    centre_line(objective, task, checkpoint.name, naming.split, terminal)
    for line in str(symmetries).splitlines():
        terminal.line(line)
    if target is not None:
        factor = _solved(terminal, task, objective, symmetries, target, layer, common.seed)
    other = rescale(
        task.model, factor, node=node, layers=layer or None, example=objective.example, generator=seeded(common.seed)
    )
    result = certificate(objective, other, measures=names, seed=common.seed)
    terminal.line(f"alpha = {factor:.6g}, {result.symmetry}-wise; {result.function_line()}")
    terminal.table(("measure", "before", "after", "ratio", "verdict"), result.table())
    path = folder.file("rescaled.safetensors")
    recipe = dict(task.recipe or {}) | {
        "rescaled": {"from": task.sha256, "alpha": factor, "symmetry": result.symmetry, "layers": layer}
    }
    checkpoints.save(path, other.state_dict(), recipe=recipe, extras=dict(task.extras))
    document = {
        "schema": 1,
        "checkpoint": str(checkpoint),
        "sha256": task.sha256,
        "alpha": factor,
        "rescaled": str(path),
        **result.to_json(),
    }
    folder.json("certificate.json", document)
    folder.written += save(figure_certificate([(factor, result)]), folder.path / "certificate")
    terminal.document(document)
    terminal.written(folder.written)
    terminal.unconverged += [r.name for r in result.rows if not (r.before.converged and r.after.converged)]
    broken = [r.name for r in result.rows if r.verdict == "CLAIM BROKEN"]
    if broken or not result.same_function:
        what = f"{', '.join(broken)} moved" if broken else result.function_line()
        raise NumericalError(f"expected an unchanged function and unmoved invariants, found {what}", fix="try --dtype float64")


def _solved(
    terminal: Terminal,
    task: "Task",
    objective: "Objective",
    symmetries: "Symmetries",
    target: str,
    layers: list[str] | None,
    seed: int,
) -> float:
    """The alpha that gives a measure its target value: in closed form for the trace, by search for any other."""
    from landscape.cli.network import seeded
    from landscape.measures import chosen, measure_all
    from landscape.reparam import rescale, smallest_scales, solve_alpha, trace_along

    name, equals, text = target.partition("=")
    try:
        value = float(text)
    except ValueError:
        equals = ""
    if not equals:
        raise UsageError(f"expected --target MEASURE=VALUE, found {target!r}", fix="for example --target trace=1e6")
    (measure,) = chosen([name])
    if len(layers or ()) > 1:
        raise UsageError("expected one --layer with --target, found several", fix="name the one whose factor is solved for")
    if "layer" in measure.invariant_to:
        raise UsageError(
            f"expected a measure that rescaling moves, found {name}, which it does not", fix="try --target trace=1e6"
        )
    unit = symmetries[layers[0]] if layers else symmetries.default
    # A BatchNorm that takes the factor up bounds it from below; a little room is left for rounding.
    low = 1.01 * float(smallest_scales(task.model, symmetries)[unit.neurons].max())
    if name == "trace":
        along = trace_along(objective, symmetries, unit, low=low, generator=seeded(seed))
        turn, least = along.flattest()
        terminal.line(f"{unit.name}: flattening bound {least.value:.5g} {least.doubt()} at alpha = {turn:.4g}")
        return along.solve(value)

    def measure_at(alpha: float) -> float:
        other = rescale(task.model, alpha, layers=[unit.name], example=objective.example)
        return measure_all(objective.with_model(other), [name], seed=seed)[name].estimate.value

    return solve_alpha(measure_at, value, low=min(max(1e-4, low), 1.0)).alpha
