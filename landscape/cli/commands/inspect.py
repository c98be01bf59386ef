"""`landscape inspect`: list the contents of a checkpoint. It is safe on any file: no code from the file runs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import Common
from landscape.cli.terminal import Terminal
from landscape.errors import printable
from landscape.machine.json_values import plain

NAME = "inspect"
IDLE = frozenset({"seed", "device", "dtype", "samples", "batch_size", "memory", "allow_unconverged"})

MOST = 30  # tensors of a set of weights that are all listed
_ENDS = 10  # of more, so many at either end


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint: a file, or a directory of shards.")],
    common: Common,
    every: Annotated[bool, typer.Option("--all", help=f"List every tensor, also where there are more than {MOST}.")] = False,
) -> None:
    """List the contents of a checkpoint: weights, shapes, digest, likely architecture. No code from the file runs.

    Of many tensors the first and the last are listed; --all lists every one, and --json has them all.

    Example: landscape inspect model.pt
    """
    from landscape.checkpoints import describe, read

    description = describe(read(checkpoint))
    terminal.line(f"{description.path}: {description.format}, {description.size:,} bytes, sha256 {description.sha256}")
    for candidate in description.candidates:
        terminal.line()
        terminal.line(
            f"weights {printable(candidate.name)!r}: {candidate.tensors} tensors, {candidate.weights:,} weights; "
            f"architecture: {candidate.architecture or 'not recognized'}"
        )
        rows = [(r.key, "x".join(map(str, r.shape)) or "scalar", r.dtype) for r in candidate.rows]
        if len(rows) > MOST and not every:
            left = f"... {len(rows) - 2 * _ENDS} more: --all lists them"
            rows = [*rows[:_ENDS], (left, "", ""), *rows[-_ENDS:]]
        terminal.table(("name", "shape", "dtype"), rows)
        if candidate.problem:
            terminal.warn(f"{candidate.name}: {candidate.problem}")
        for notice in candidate.notices:
            terminal.note(f"{candidate.name}: {notice}")
    if not description.candidates:
        terminal.line("no weights")
    for name, held in (("recipe", description.recipe), ("meta", description.meta)):
        for key, value in (held or {}).items():
            terminal.line(f"{name}.{printable(key, limit=60)}: {printable(json.dumps(plain(value)), limit=160)}")
    if description.extras:
        terminal.line(f"extras: {', '.join(printable(r.key, limit=60) for r in description.extras)}")
    for notice in description.notices:
        terminal.note(notice)
    document = {"schema": 1, **description.to_json()}
    terminal.document(document)
    if common.out is not None:
        from landscape.cli.output_directory import OutputDirectory

        folder = OutputDirectory(common.out, {"command": NAME, "sha256": document["sha256"]})
        folder.json("inspect.json", document)
        terminal.written(folder.written)
