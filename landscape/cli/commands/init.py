"""`landscape init`: a commented task.py for a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import Common
from landscape.cli.terminal import Terminal
from landscape.errors import MalformedError, UsageError, printable

NAME = "init"

_TEMPLATE = '''"""What `landscape` needs beside the weights: the model, the loss and the data.

    landscape sharpness {checkpoint} --task {file}

The checkpoint holds {tensors} tensors with {weights} weights, and looks like: {architecture}.
Its first entries are
{entries}
"""

import torch

from landscape import Task


def task():
    # 1. Your network: its parameters must have the names and shapes above. Any values will do, the checkpoint's replace them.
    from mymodels import MyNet

    model = MyNet()

    # 2. Your data, in a fixed order, without shuffling or augmentation, preprocessed exactly as in training:
    #    tensors (x, y), a DataLoader with shuffle=False, or a list of batches. test=None where there is none.
    from mydata import test_images, test_labels, train_images, train_labels

    # 3. The loss that was minimised, averaged over the samples.
    loss = torch.nn.CrossEntropyLoss()

    return Task(model=model, loss=loss, train=(train_images, train_labels), test=(test_images, test_labels))
'''


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="The checkpoint to write a task file for.")],
    common: Common,
) -> None:
    """Write a commented task.py for a checkpoint: the place where you name your own model and data.

    Example: landscape init model.pt --out task.py
    """
    from landscape.checkpoints import describe, read
    from landscape.machine.files import write

    target = common.out or Path("task.py")
    if target.exists():
        raise UsageError(f"expected a new file, found {target}", fix="choose another --out, or move the old one away")
    description = describe(read(checkpoint))
    if not description.candidates:
        raise MalformedError(f"expected weights in {checkpoint}, found none", fix="see landscape inspect")
    chosen = description.candidates[0]
    text = _TEMPLATE.format(
        checkpoint=_quoted(str(checkpoint)),
        file=_quoted(str(target)),
        tensors=chosen.tensors,
        weights=chosen.weights,
        architecture=_quoted(chosen.architecture or "nothing that is known here"),
        entries="\n".join(f"    {_quoted(row.key)}  {row.shape}" for row in chosen.rows[:12]),
    )
    write(target, text.encode())
    terminal.document({"schema": 1, "task_file": str(target), "candidate": chosen.name})
    terminal.line(f"name your model and data in {target}, then: landscape sharpness {checkpoint} --task {target}")
    terminal.written([target])


def _quoted(text: str) -> str:
    """A name from a file as it may stand inside a docstring."""
    return printable(text, limit=200).replace("\\", "\\\\").replace('"', "'")
