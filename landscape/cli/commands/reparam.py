"""`landscape reparam`: other weights, the same function, and what each measure makes of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from landscape.cli.options import CLEAN, Common, Naming
from landscape.cli.terminal import Terminal
from landscape.errors import NumericalError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from landscape.objective import Objective
    from landscape.reparam import Symmetries
    from landscape.results import Certificate
    from landscape.tasks import Task

NAME = "reparam"


@dataclass
class _Line:
    """One rescaling and its certificates: the one at alpha first, then those of the sweep."""

    rescaling: Literal["layer", "node"]
    alphas: list[float]
    other: "nn.Module | None" = None
    certificates: "list[Certificate]" = field(default_factory=list)

    def json(self, i: int) -> dict[str, Any]:
        return {"rescaling": self.rescaling, "alpha": self.alphas[i], **self.certificates[i].to_json()}


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
        bool, typer.Option("--node", help="Only the neuron-wise one: a factor for each, log-uniform between 1/alpha and alpha.")
    ] = False,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Only this layer, several allowed; else the first that has a reader, and all neurons."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="MEASURE=VALUE", help="Choose alpha so that a measure has this value, e.g. trace=1e6."
        ),
    ] = None,
    sweep: Annotated[
        int, typer.Option("--sweep", min=0, help="N further values of alpha, log-spaced between 1/alpha and alpha.")
    ] = 0,
    measures: Annotated[
        str | None, typer.Option("--measures", help="all, or names separated by commas; default the usual ones.")
    ] = None,
    clean: CLEAN = False,
) -> None:
    """Rescale the weights without changing the function, and certify what every measure says before and after.

    Layer-wise and neuron-wise, unless --node, --layer or --target asks for one of them.

    Example: landscape reparam runs/model.safetensors --alpha 5 --sweep 3 --out rescaled
    """
    from landscape import checkpoints
    from landscape.cli.commands.sharpness import listed
    from landscape.cli.output_directory import OutputDirectory
    from landscape.cli.setup import centre_line, objective_of, open_task, task_file
    from landscape.measures import chosen, provenance
    from landscape.reparam import find_symmetries
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
    inputs = provenance(objective, common.seed) | task_file(naming) | {
        "command": NAME, "sha256": task.sha256, "split": naming.split, "samples": objective.samples, "alpha": factor,
        "node": node, "layer": layer, "target": target, "sweep": sweep, "measures": names,
    }  # fmt: skip
    folder = OutputDirectory(common.out or Path(f"{checkpoint.stem}-reparam"), inputs)
    centre_line(objective, task, checkpoint.name, naming.split, terminal)
    for text in str(symmetries).splitlines():
        terminal.line(text)
    if target is not None:
        factor = _solved(terminal, task, objective, symmetries, target, layer, common.seed)
    lines = [_Line("node", [factor])] if node else [_Line("layer", [factor])]
    if not (node or layer or target is not None):
        lines.append(_Line("node", [factor]))
    for line in lines:
        line.alphas += _further(terminal, task, symmetries, line.rescaling, factor, sweep, layer)
    _certify(terminal, task, objective, symmetries, lines, layer, names, common.seed)

    files = {}
    for line in lines:
        suffix = "" if line is lines[0] else f"-{line.rescaling}"
        files[line.rescaling] = path = folder.file(f"rescaled{suffix}.safetensors")
        recipe = dict(task.recipe or {}) | {
            "rescaled": {
                "from": task.sha256, "alpha": factor, "symmetry": line.certificates[0].symmetry,
                "layers": layer if line.rescaling == "layer" else None,
            }
        }  # fmt: skip
        assert line.other is not None  # made together with its certificate
        checkpoints.save(path, line.other.state_dict(), recipe=recipe, extras=dict(task.extras))
    document = {
        "schema": 1,
        "checkpoint": str(checkpoint),
        "sha256": task.sha256,
        "rescaled": str(files[lines[0].rescaling]),
        **lines[0].json(0),
        "node": {"rescaled": str(files["node"]), **lines[1].json(0)} if len(lines) > 1 else None,
        "sweep": [line.json(i) for line in lines for i in range(1, len(line.alphas))],
    }
    folder.json("certificate.json", document)
    pairs = [list(zip(line.alphas, line.certificates, strict=True)) for line in lines]
    if len({line.certificates[0].symmetry for line in lines}) == len(lines):
        pairs = [[pair for own in pairs for pair in own]]
    made_from = inputs | {"checkpoint": checkpoint.name, "task": task.name}
    for own, name in zip(pairs, ("certificate", "certificate-node"), strict=False):
        folder.written += save(figure_certificate(own, provenance=made_from, caption=not clean), folder.path / name)
    terminal.document(document)
    terminal.written(folder.written)
    certificates = [certificate for line in lines for certificate in line.certificates]
    lost = [r.name for c in certificates for r in c.rows if not (r.before.converged and r.after.converged)]
    terminal.unconverged += list(dict.fromkeys(lost))
    broken = list(dict.fromkeys(name for c in certificates for name in c.broken))
    other = next((c for c in certificates if not c.same_function), None)
    if broken or other is not None:
        what = other.function_line() if other is not None else f"{', '.join(broken)} moved"
        raise NumericalError(f"expected an unchanged function and unmoved invariants, found {what}", fix="try --dtype float64")


def _further(
    terminal: Terminal,
    task: "Task",
    symmetries: "Symmetries",
    rescaling: str,
    factor: float,
    sweep: int,
    layers: list[str] | None,
) -> list[float]:
    """The other factors of a sweep, without those that a BatchNorm could not take up."""
    from landscape.reparam import smallest_scales, spaced

    low = 0.0
    if rescaling == "layer":
        units = [symmetries[name] for name in layers] if layers else [symmetries.default]
        low = max(float(smallest_scales(task.model, symmetries)[unit.neurons].max()) for unit in units)
    found = spaced(factor, sweep)
    kept = [alpha for alpha in found if alpha > low]
    if len(kept) < len(found):
        terminal.note(f"left out of the layer-wise sweep: alpha below {low:.3g}, which a running variance cannot take up")
    return kept


def _certify(
    terminal: Terminal,
    task: "Task",
    objective: "Objective",
    symmetries: "Symmetries",
    lines: Sequence[_Line],
    layers: list[str] | None,
    names: str | list[str] | None,
    seed: int,
) -> None:
    """Measure once before, once at every point, and print each rescaling's table."""
    from landscape.cli.setup import seeded
    from landscape.machine import progress
    from landscape.machine.progress import duration
    from landscape.measures import measure_all
    from landscape.measures.running.time_forecast import forecast
    from landscape.reparam import certificate, rescale
    from landscape.results.certificate import HEAD

    points = sum(len(line.alphas) for line in lines)
    expected = forecast(objective, names)
    terminal.note(
        f"forecast: {len(expected.seconds)} measures of {points + 1} networks, about {duration(expected.total * (points + 1))}"
    )
    with progress.stage("networks", points + 1) as advance:
        before = measure_all(objective, names, seed=seed, plan=expected)
        advance(1)
        for line in lines:
            node = line.rescaling == "node"
            for i, alpha in enumerate(line.alphas):
                # Every point draws the same exponents, so that each neuron's factor is alpha to a power of its own.
                other = rescale(
                    task.model,
                    alpha,
                    node=node,
                    layers=layers or None,
                    example=objective.example,
                    generator=seeded(seed),
                )
                line.other = other if i == 0 else line.other
                line.certificates.append(
                    certificate(objective, other, measures=names, symmetry="node" if node else None, seed=seed, before=before)
                )
                advance(1)
    reasons: dict[str, str] = {}
    where = {"layer": " and ".join(layers or [symmetries.default.name]), "node": "every neuron"}
    for line in lines:
        result = line.certificates[0]
        terminal.line()
        terminal.line(f"{line.rescaling}-wise, {where[line.rescaling]}, alpha = {line.alphas[0]:.6g}")
        terminal.line(result.function_line())
        if line.rescaling == "layer" and result.symmetry == "node":
            terminal.line("some tensors are scaled in part only: the claims about neuron-wise rescaling are what is tested")
        terminal.table(HEAD, result.table())
        for further in line.certificates[1:]:
            reasons |= _reasons(further)
        reasons |= _reasons(result)
    terminal.line()
    for name, reason in reasons.items():
        terminal.line(f"{name}: {reason}")
    for line in lines:
        for alpha, result in sorted(zip(line.alphas, line.certificates, strict=True), key=lambda pair: pair[0]):
            at = f"layer-wise, {where['layer']}" if line.rescaling == "layer" else "node-wise"
            terminal.line(f"{at}, alpha = {alpha:.6g}: {result.verdict_line()}")


def _reasons(certificate: "Certificate") -> dict[str, str]:
    """Why a measure has no value to compare, by its name."""
    out = {}
    for row in certificate.rows:
        if row.verdict in ("not defined", "not comparable"):
            out[row.name] = next((e.reason for e in (row.before, row.after) if e.reason), row.verdict)
    return out


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
    from landscape.cli.setup import seeded
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
