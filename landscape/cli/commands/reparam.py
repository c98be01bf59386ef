"""`landscape reparam`: change the weights without changing the function, and compare every measure before and after."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli.moves.asked_families import asked, named
from landscape.cli.options import CLEAN, Common, Naming
from landscape.cli.terminal import Terminal
from landscape.errors import NumericalError, UsageError
from landscape.machine.files import bare_name

if TYPE_CHECKING:
    from landscape.cli.moves.certified_moves import Line
    from landscape.cli.output_directory import OutputDirectory
    from landscape.tasks import Task

NAME = "reparam"


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    common: Common,
    naming: Naming,
    symmetry: Annotated[
        list[str] | None,
        typer.Option(
            "--symmetry",
            metavar="FAMILY",
            help="Move along layer, node, pair, rotation, norm-out, norm-in, shift or bias, several separated by commas, or "
            "all that the network has. Default: layer, node and pair.",
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha",
            help="Multiply a layer's weights by alpha and divide those of the layers that read it by alpha. Default: 5.",
        ),
    ] = None,
    condition: Annotated[
        float | None,
        typer.Option("--condition", help="Condition number of the matrices of pair. Default: 10."),
    ] = None,
    node: Annotated[
        bool,
        typer.Option("--node", help="Only rescale neuron by neuron, each by a log-uniform factor between 1/alpha and alpha."),
    ] = False,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help="Only rescale this layer; may be repeated. Default: the first layer that can be rescaled, and all neurons.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="MEASURE=VALUE",
            help="Choose alpha, or with --symmetry pair the condition number, so that the measure reaches this value, "
            "e.g. trace=1e6.",
        ),
    ] = None,
    attack: Annotated[
        str | None,
        typer.Option(
            "--attack",
            metavar="MEASURE",
            help="Instead, climb this measure along all families together: every factor within 1/alpha and alpha, every "
            "matrix within the condition number.",
        ),
    ] = None,
    sweep: Annotated[
        int, typer.Option("--sweep", min=0, help="Also N other values of alpha, log-spaced between 1/alpha and alpha.")
    ] = 0,
    measures: Annotated[
        str | None, typer.Option("--measures", help="all, or names separated by commas. Default: the usual measures.")
    ] = None,
    clean: CLEAN = False,
) -> None:
    """Change the weights without changing the function, and report every measure before and after, with a certificate.

    Moves by layer, by neuron and by matrices between two linear maps, unless --symmetry, --node, --layer or --target selects.

    Example: landscape reparam runs/model.safetensors --alpha 5 --sweep 3 --out rescaled
    """
    from landscape.cli.commands.sharpness import listed
    from landscape.cli.moves.certified_moves import certify, close_enough, lines_of, sweep_of
    from landscape.cli.moves.climbing import climb
    from landscape.cli.moves.move_targets import solved
    from landscape.cli.output_directory import OutputDirectory
    from landscape.cli.setup import centre_line, objective_of, open_task, task_file
    from landscape.measures import chosen, provenance
    from landscape.measures.traced_network import whole_symmetries
    from landscape.network.losses.model_loss import ModelLoss
    from landscape.reparam import find_symmetries
    from landscape.reparam.moving.move import check

    names = listed(measures)
    chosen(names)
    wanted = asked(
        symmetry, node=node, layer=layer, alpha=alpha, condition=condition, target=target, sweep=sweep, attack=attack
    )
    chosen([name for name in (attack, None if target is None else named(target)[0]) if name is not None])
    task = open_task(checkpoint, naming, terminal)
    if common.dtype == "float64":
        task.model.double()
    if task.params is not None:
        terminal.note(f"the task's params ({task.params}) are left aside: a symmetry moves all weights that it needs")
        task = replace(task, params=None)
    objective = objective_of(task, common, naming.split)
    if isinstance(objective.loss, ModelLoss):
        raise UsageError(
            "expected a loss of (output, target), found one of (model, batch): the function is compared by its outputs",
            fix="give the task the same loss of the outputs and targets",
        )
    symmetries = whole_symmetries(objective)
    if symmetries is None:  # tracing it again says why it cannot be read
        symmetries = find_symmetries(task.model, objective.example)
    families = wanted.among(symmetries.families)
    check(task.model, symmetries, families, alpha=wanted.factor, condition=wanted.ratio)
    inputs = provenance(objective, common.seed) | task_file(naming) | {
        "command": NAME, "sha256": task.sha256, "split": naming.split, "samples": objective.samples, "alpha": wanted.factor,
        "node": node, "layer": layer, "target": target, "sweep": sweep, "measures": names, "symmetry": list(families),
        "condition": wanted.ratio, "attack": attack,
    }  # fmt: skip
    folder = OutputDirectory(common.out or Path(f"{bare_name(checkpoint)}-reparam"), inputs)
    centre_line(objective, task, checkpoint.name, naming.split, terminal)
    for text in str(symmetries).splitlines():
        terminal.line(text)
    if attack is not None:
        lines = [climb(terminal, task, objective, symmetries, wanted, common.seed)]
    else:
        factor, ratio = wanted.factor, wanted.ratio
        if target is not None:
            found = solved(terminal, task, objective, symmetries, families[0], target, layer, common.seed)
            factor, ratio = (factor, found) if families == ("pair",) else (found, ratio)
        there = close_enough(terminal, task, objective, symmetries, wanted, common.seed)
        lines = lines_of(wanted, there, factor, ratio)
        for line in lines:
            sweep_of(terminal, task, symmetries, line, sweep, layer)
    certify(terminal, task, objective, symmetries, lines, layer, names, common.seed)
    document = _written(folder, task, checkpoint, lines, layer)
    terminal.document(document)
    _draw(folder, lines, inputs | {"checkpoint": checkpoint.name, "task": task.name}, caption=not clean)
    terminal.written(folder.written)
    certificates = [certificate for line in lines for certificate in line.certificates]
    lost = [r.name for c in certificates for r in c.rows if not (r.before.converged and r.after.converged)]
    terminal.unconverged += list(dict.fromkeys(lost))
    broken = list(dict.fromkeys(name for c in certificates for name in c.broken))
    other = next((c for c in certificates if not c.same_function), None)
    if broken or other is not None:
        what = other.function_line() if other is not None else f"that {', '.join(broken)} changed"
        raise NumericalError(
            f"expected an unchanged function and unchanged invariants, found {what}", fix="try --dtype float64"
        )


def _written(
    folder: "OutputDirectory", task: "Task", checkpoint: Path, lines: "Sequence[Line]", layer: list[str] | None
) -> dict[str, Any]:
    """Write a checkpoint for every line, and certificate.json; returns what it holds."""
    from landscape import checkpoints
    from landscape.cli.moves.certified_moves import table_of

    files = {}
    for line in lines:
        suffix = "" if line is lines[0] else f"-{line.name}"
        files[line.name] = path = folder.file(f"rescaled{suffix}.safetensors")
        recipe = dict(task.recipe or {}) | {
            "rescaled": {
                "from": task.sha256, "alpha": line.alphas[0], "symmetry": line.certificates[0].symmetry,
                "layers": layer if line.name == "layer" else None,
            } | ({"condition": line.condition} if "pair" in line.families else {})
        }  # fmt: skip
        assert line.other is not None  # made together with its certificate
        checkpoints.save(path, line.other.state_dict(), recipe=recipe, extras=dict(task.extras))
    sections = {line.name: {"rescaled": str(files[line.name]), **line.json(0)} for line in lines}
    first = lines[0].name
    document = {
        "schema": 1,
        "checkpoint": str(checkpoint),
        "sha256": task.sha256,
        **sections[first],
        "survivors": list(table_of(lines).survivors),
        "node": None if first == "node" else sections.get("node"),
        "families": {name: section for name, section in sections.items() if name not in (first, "node")},
        "sweep": [line.json(i) for line in lines for i in range(1, len(line.alphas))],
    }
    folder.json("certificate.json", document)
    return document


def _draw(folder: "OutputDirectory", lines: "Sequence[Line]", made_from: dict[str, Any], *, caption: bool) -> None:
    """Write the figures: layers and neurons against alpha, and the map of all families if there are others."""
    from landscape.cli.moves.certified_moves import table_of
    from landscape.report import figure_certificate, figure_certificate_map, save

    scaled = [line for line in lines if line.name in ("layer", "node")]
    pairs = [list(zip(line.alphas, line.certificates, strict=True)) for line in scaled]
    if len({line.certificates[0].symmetry for line in scaled}) == len(scaled) and scaled:
        pairs = [[pair for own in pairs for pair in own]]
    for own, name in zip(pairs, ("certificate", "certificate-node"), strict=False):
        folder.written += save(figure_certificate(own, provenance=made_from, caption=caption), folder.path / name)
    if len(scaled) < len(lines):
        attack = lines[0].attack
        title = {} if attack is None else {"title": f"After an attack on {attack.measure}, a lower bound"}
        figure = figure_certificate_map(table_of(lines), provenance=made_from, caption=caption, **title)
        folder.written += save(figure, folder.path / "symmetries")
