"""`landscape init`: write a commented task.py for a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import Common
from landscape.cli.terminal import Terminal
from landscape.errors import MalformedError, UsageError, printable

NAME = "init"

_TEMPLATE = '''"""The model, the loss and the data of a checkpoint, for `landscape`.

    landscape sharpness {checkpoint} --task {file}

The checkpoint has {tensors} tensors with {weights} weights. Architecture, by its names and shapes: {architecture}.
Its first entries are
{entries}
"""

import torch

from landscape import Task


def task():
    # 1. Your network. Its parameters must have the names and shapes above; the checkpoint's values replace theirs.
    from mymodels import MyNet

    model = MyNet()

    # 2. Your data, in a fixed order, without shuffling or augmentation, preprocessed exactly as in training:
    #    tensors (x, y), a DataLoader with shuffle=False, or a list of batches. test=None if there is no test set.
    from mydata import test_images, test_labels, train_images, train_labels

    # 3. The loss that training minimised, averaged over the samples.
    loss = torch.nn.CrossEntropyLoss()

    return Task(model=model, loss=loss, train=(train_images, train_labels), test=(test_images, test_labels))
'''


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="The checkpoint to write a task file for.")],
    common: Common,
) -> None:
    """Write a commented task.py for a checkpoint, to be completed with your model and data.

    Example: landscape init model.pt --out task.py
    """
    from landscape.checkpoints import describe, read
    from landscape.machine.files import write

    target = common.out or Path("task.py")
    if target.exists():
        raise UsageError(f"expected a new file, found an existing one at {target}", fix="choose another --out, or move it away")
    description = describe(read(checkpoint))
    if not description.candidates:
        raise MalformedError(f"expected weights in {checkpoint}, found none", fix="see landscape inspect")
    chosen = description.candidates[0]
    text = _TEMPLATE.format(
        checkpoint=_quoted(str(checkpoint)),
        file=_quoted(str(target)),
        tensors=chosen.tensors,
        weights=chosen.weights,
        architecture=_quoted(chosen.architecture or "not recognized"),
        entries="\n".join(f"    {_quoted(row.key)}  {row.shape}" for row in chosen.rows[:12]),
    )
    write(target, text.encode())
    terminal.document({"schema": 1, "task_file": str(target), "candidate": chosen.name})
    terminal.line(f"add your model and data to {target}, then run: landscape sharpness {checkpoint} --task {target}")
    terminal.written([target])


def _quoted(text: str) -> str:
    """A name from a file, escaped for use inside a docstring."""
    return printable(text, limit=200).replace("\\", "\\\\").replace('"', "'")
