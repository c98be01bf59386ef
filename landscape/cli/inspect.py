"""`landscape inspect`: what is in a file; safe on anything."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import Common
from landscape.cli.terminal import Terminal

NAME = "inspect"


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint, or a directory of sharded safetensors.")],
    common: Common,
) -> None:
    """Show what is in a checkpoint: weights, shapes, digest, likely architecture. Nothing in the file is run.

    Example: landscape inspect model.pt
    """
    from landscape.checkpoints import describe, read

    for name in ("samples", "batch_size"):
        if getattr(common, name) is not None:
            terminal.note(f"--{name.replace('_', '-')} has no meaning for inspect: it reads no data")
    description = describe(read(checkpoint))
    for line in str(description).splitlines():
        terminal.line(line)
    document = {"schema": 1, **description.to_json()}
    terminal.document(document)
    if common.out is not None:
        from landscape.cli.files import OutputDirectory

        folder = OutputDirectory(common.out, {"command": NAME, "sha256": document["sha256"]})
        folder.json("inspect.json", document)
        terminal.written(folder.written)
