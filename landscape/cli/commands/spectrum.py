"""`landscape spectrum`: eigenvalues with residuals, the spectral density with its confidence band, traces by layer."""

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from landscape.cli.options import CLEAN, SHARD_BASIS, Common, Varying, require
from landscape.cli.terminal import Terminal
from landscape.errors import UsageError
from landscape.machine.files import bare_name

if TYPE_CHECKING:
    from landscape.cli.output_directory import OutputDirectory
    from landscape.objective import Objective
    from landscape.results import Breakdown, Eigenpairs, MinibatchSpectra

NAME = "spectrum"
_SIZE, _BATCHES = 16, 64  # of mini-batches


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    common: Common,
    naming: Varying,
    k: Annotated[
        int, typer.Option("-k", "--eigenvalues", min=1, help="Number of eigenvalues at each end of the spectrum.")
    ] = 5,
    probes: Annotated[
        int, typer.Option("--probes", min=2, help="Random probes of the density; more probes narrow its band.")
    ] = 10,
    steps: Annotated[
        int, typer.Option("--steps", min=2, help="Lanczos steps per probe; more steps resolve the density more finely.")
    ] = 80,
    scale: Annotated[str, typer.Option("--scale", help="Eigenvalue axis of the figure: log (symmetric) or linear.")] = "log",
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Also trace, largest eigenvalue and part in the top eigenvector of each layer.")
    ] = False,
    per_filter: Annotated[
        bool, typer.Option("--per-filter", help="Also those of each filter and neuron; about ten products each.")
    ] = False,
    per_head: Annotated[
        bool, typer.Option("--per-head", help="Also those of each attention head; about ten products each.")
    ] = False,
    per_batch: Annotated[
        bool, typer.Option("--per-batch", help="Also the extreme eigenvalues of mini-batches: how they are distributed.")
    ] = False,
    minibatch_size: Annotated[
        int | None, typer.Option("--minibatch-size", min=1, help=f"Samples in one, for --per-batch. Default: {_SIZE}.")
    ] = None,
    minibatches: Annotated[
        int | None, typer.Option("--minibatches", min=2, help=f"How many, for --per-batch. Default: {_BATCHES}.")
    ] = None,
    shard_basis: SHARD_BASIS = False,
    check: Annotated[
        str | None, typer.Option("--check", help="pyhessian: also compute the eigenvalues with PyHessian, and compare.")
    ] = None,
    clean: CLEAN = False,
) -> None:
    """The Hessian's spectrum: extreme eigenvalues with residuals, the density with a confidence band, a table by layer.

    Example: landscape spectrum runs/model.safetensors -k 10 --per-layer --out spectrum
    """
    from landscape.cli.output_directory import OutputDirectory
    from landscape.cli.setup import centre_line, objective_of, open_task, seeded, task_file, work_lines
    from landscape.measures import provenance, stationarity
    from landscape.report import figure_breakdown, figure_density, figure_heads, figure_minibatch_spectra, save
    from landscape.spectra import minibatch_spectra, spectrum, uses

    if scale != "log" and scale != "linear":
        raise UsageError(f"expected --scale log or linear, found {scale!r}")
    if check not in (None, "pyhessian"):
        raise UsageError(f"expected --check pyhessian, found {check!r}")
    require({"--minibatch-size": minibatch_size, "--minibatches": minibatches}, "--per-batch", per_batch)
    size, batches = minibatch_size or _SIZE, minibatches or _BATCHES
    task = open_task(checkpoint, naming, terminal)
    objective = objective_of(task, common, naming.split, shard_basis)
    inputs = provenance(objective, common.seed) | task_file(naming) | {
        "command": NAME, "sha256": task.sha256, "split": naming.split, "samples": objective.samples,
        "k": k, "probes": probes, "steps": steps, "scale": scale, "per_layer": per_layer,
        "per_filter": per_filter, **({"per_head": True} if per_head else {}),
        **({"minibatch_size": size, "minibatches": batches} if per_batch else {}),
    }  # fmt: skip
    folder = OutputDirectory(common.out or Path(f"{bare_name(checkpoint)}-spectrum"), inputs)
    centre_line(objective, task, checkpoint.name, naming.split, terminal)

    count = min(k, objective.dim)
    bases, vectors = uses(objective, count, probes, steps)
    work = work_lines(objective, terminal, *bases, vectors=vectors)
    axis: Literal["log", "linear"] = "log" if scale == "log" else "linear"
    pairs, density = spectrum(objective, count, probes=probes, steps=steps, scale=axis, generator=seeded(common.seed))
    cells = pairs.cells()
    terminal.table(cells.head, cells.rows)
    terminal.line(f"{density.matvecs} Hessian-vector products for the density, {pairs.matvecs} more for the eigenvalues")
    minimum = stationarity(
        objective, {"lambda_max": pairs.estimate(0), "lambda_min": pairs.estimate(len(pairs) - 1)}, seed=common.seed
    )
    if line := minimum.line():
        terminal.line(line)
    if not pairs.converged.all():
        terminal.unconverged.append("eigenvalues")
    document: dict[str, Any] = {
        "schema": 1, "checkpoint": str(checkpoint), "sha256": task.sha256, "task": task.name, "samples": objective.samples,
        "eigenvalues": pairs.to_json(), "density": density.to_json(),
        "minimum": minimum.to_json(),
        "provenance": inputs | work,
    }  # fmt: skip
    made_from = inputs | {"checkpoint": checkpoint.name, "task": task.name}
    if per_layer or per_filter or per_head:
        blocks = _blocks(terminal, objective, common.seed, per_filter, per_head, pairs, folder, document)
        if blocks.heads:
            drawn = figure_heads(
                blocks.heads, title=f"Curvature by head, {checkpoint.name}", provenance=made_from, caption=not clean
            )
            folder.written += save(drawn, folder.path / "heads")
        figure = figure_breakdown(
            blocks.layers,
            blocks.filters,
            title=f"Curvature by layer, {checkpoint.name}",
            provenance=made_from,
            caption=not clean,
        )
        folder.written += save(figure, folder.path / "blocks")
    if per_batch:
        so_far: deque[MinibatchSpectra] = deque(maxlen=1)
        try:
            found = minibatch_spectra(
                objective, size, batches=batches, generator=seeded(common.seed), whole=pairs, seen=so_far.append
            )
        except KeyboardInterrupt:
            for part in so_far:
                _tell_minibatches(terminal, part, folder, document)
            terminal.note(f"interrupted after {len(so_far[0]) if so_far else 0} of {batches} mini-batches")
            document["interrupted"] = True
            folder.json("spectrum.json", document)
            terminal.document(document)
            terminal.written(folder.written)
            raise
        _tell_minibatches(terminal, found, folder, document)
        figure = figure_minibatch_spectra(
            found, title=f"Curvature of mini-batches, {checkpoint.name}", provenance=made_from, caption=not clean
        )
        folder.written += save(figure, folder.path / "minibatches")
    if check is not None:
        document["check"] = _pyhessian(terminal, objective, pairs, count)
    figure = figure_density(
        density, eigenpairs=pairs, title=f"Spectral density of the Hessian, {checkpoint.name}", provenance=made_from,
        caption=not clean,
    )  # fmt: skip
    folder.written += save(figure, folder.path / "spectrum")
    folder.json("spectrum.json", document)
    terminal.document(document)
    terminal.written(folder.written)


_BATCH_HEAD = ("", "mean over mini-batches", "95 %", "quartiles", "range", "residual at most", "all samples")
_BLOCK_HEAD = ("weights", "trace", "", "lambda_max", "", "of top eigenvector")
_SHOWN = 15


def _tell_minibatches(
    terminal: Terminal, found: "MinibatchSpectra", folder: "OutputDirectory", document: dict[str, Any]
) -> None:
    """Eigenvalues of mini-batches: table, CSV, JSON."""
    from landscape.machine.files import write
    from landscape.report.exports.spreadsheet import minibatches_csv

    terminal.table(_BATCH_HEAD, found.rows())
    terminal.line(found.share_words())
    terminal.unconverged += [] if found.converged.all() else ["eigenvalues of mini-batches"]
    document["minibatches"] = found.to_json()
    write(folder.file("minibatches.csv"), minibatches_csv(found).encode())


def _blocks(
    terminal: Terminal,
    objective: "Objective",
    seed: int,
    filters: bool,
    heads: bool,
    pairs: "Eigenpairs",
    folder: "OutputDirectory",
    document: dict[str, Any],
) -> "Breakdown":
    """Curvature of each layer's, filter's or head's diagonal block of H: table, CSV, JSON."""
    from landscape.cli.setup import seeded
    from landscape.machine.files import write
    from landscape.report.exports.spreadsheet import blocks_csv
    from landscape.spectra.block_curvature import breakdown

    found, unread = objective.attention_heads() if heads else ([], [])
    blocks = breakdown(objective, filters=filters, heads=found, top=pairs, generator=seeded(seed))
    small = blocks.filters
    terminal.table(("layer", *_BLOCK_HEAD), [b.row() for b in blocks.layers])
    document["layers"] = [b.to_json() for b in blocks.layers]
    if heads:
        _heads(terminal, unread, blocks)
        document["heads"] = [b.to_json() for b in blocks.heads]
    if small:
        top = sorted(small, key=lambda b: -b.lambda_max.value)[:_SHOWN]
        terminal.table((f"sharpest filters of {len(small)}", *_BLOCK_HEAD), [b.row() for b in top])
        document["filters"] = [b.to_json() for b in small]
    terminal.unconverged += [f"lambda_max of {b.name}" for b in blocks if not b.lambda_max.converged]
    write(folder.file("blocks.csv"), blocks_csv(blocks).encode())
    return blocks


def _heads(terminal: Terminal, unread: list[str], blocks: "Breakdown") -> None:
    """The table of the heads, how shared weights are counted, and the layers whose heads cannot be read."""
    if blocks.heads:
        terminal.table(("head", *_BLOCK_HEAD), [b.row() for b in blocks.heads])
        most = max(b.shared for b in blocks.heads)
        if most:
            terminal.line(
                f"up to {most} weights of a head are those of other heads, too (shared keys and values): each has them"
            )
    elif not unread:
        terminal.warn(
            "no attention layer found: attention is found as scaled_dot_product_attention, MultiheadAttention or a softmax"
        )
    for line in unread:
        terminal.warn(f"heads not read: {line}")


def _pyhessian(terminal: Terminal, objective: "Objective", pairs: "Eigenpairs", k: int) -> dict[str, Any]:
    """Compare the k eigenvalues of largest magnitude with PyHessian's, which does not separate positive from negative ones."""
    from landscape.cli.peers import pyhessian_eigenvalues

    ours = sorted((float(v) for v in pairs.values), key=abs, reverse=True)[:k]
    theirs = pyhessian_eigenvalues(objective, k)
    rows = [(f"{a:.6g}", f"{b:.6g}", f"{abs(a - b) / (abs(b) + 1e-30):.1e}") for a, b in zip(ours, theirs, strict=True)]
    terminal.table(("landscape", "PyHessian", "relative difference"), rows)
    worst = max(abs(a - b) / (abs(b) + 1e-30) for a, b in zip(ours, theirs, strict=True))
    if worst > 0.01:
        terminal.warn(f"PyHessian differs by up to {worst:.1%}: check which of the two has the larger residual")
    return {"tool": "pyhessian", "landscape": ours, "pyhessian": theirs}
