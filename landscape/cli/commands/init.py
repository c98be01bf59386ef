"""`landscape init`: write a commented task.py for a checkpoint."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from landscape.cli.options import Common
from landscape.cli.terminal import Terminal
from landscape.errors import MalformedError, UsageError, printable

NAME = "init"
IDLE = frozenset({"seed", "device", "dtype", "samples", "batch_size", "memory", "allow_unconverged"})

_TEMPLATE = '''"""The model, the loss and the data of a checkpoint, for `landscape`.

    landscape sharpness {checkpoint} --task {file}

The checkpoint has {tensors} tensors with {weights} weights. Architecture, by its names and shapes: {architecture}.
Its first entries are
{entries}
"""

{torch}{imports}


def task():
{model}

{data}

    # 3. The loss that training minimised, averaged over {over}.
    loss = {loss}

    return Task(model=model, loss=loss, train=train, test=test)
'''
_OWN_MODEL = """\
    # 1. Your network. Its parameters must have the names and shapes above; the checkpoint's values replace theirs.
    from mymodels import MyNet

    model = MyNet()"""
_KNOWN_MODEL = """\
    # 1. The network that the checkpoint's {tensors} fit; the checkpoint's values replace its own. Names and shapes do not
    #    tell strides, activations or dropout: change them here if yours differ.
    model = model_by_name({name!r}, {options!r})"""
_OWN_DATA = """\
    # 2. Your data, in a fixed order, without shuffling or augmentation, preprocessed exactly as in training:
    #    tensors (x, y), a DataLoader with shuffle=False, or a list of batches. test=None if there is no test set.
    from mydata import test_images, test_labels, train_images, train_labels

    train, test = (train_images, train_labels), (test_images, test_labels)"""
_KNOWN_DATA = """\
    # 2. The data, in the order in which they are stored; `normalize=` after a comma says how pixels are scaled.
    data = read_data({data!r})
    train, test = data.train(), data.test()"""

_MODEL_OF_TEXT = """\
    # 1. The network that the checkpoint's config.json describes; the checkpoint's values replace its own.
    given = resolve(model={name!r}, data={data!r})
    model = given.model"""
_TEXT = """\
    # 2. The text, by the tokenizer in that folder: batches of dictionaries with tokens and "labels", -100 where nothing counts.
    #    Other tokens, in a fixed order, take their place as [{{"input_ids": ids, "labels": labels}}, ...].
    train, test = given.train, None"""


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="The checkpoint to write a task file for.")],
    common: Common,
    data: Annotated[
        str | None,
        typer.Option("--data", help="digits, cifar10:PATH, imagefolder:PATH, safetensors:PATH or text:PATH, to be written in."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Name of the weights, if the file holds several sets.")
    ] = None,
) -> None:
    """Write a commented task.py for a checkpoint; it runs unchanged if the network is recognized and the data are named.

    Example: landscape init model.pt --data cifar10:data/cifar.safetensors --out task.py
    """
    from landscape.checkpoints import describe, read
    from landscape.machine.files import write
    from landscape.tasks.recognition import NEXT_TOKENS, recognize

    target = common.out or Path("task.py")
    if target.exists():
        raise UsageError(f"expected a new file, found an existing one at {target}", fix="choose another --out, or move it away")
    spec = None if data is None else _absolute(data)
    content = read(checkpoint)
    description = describe(content)
    if not description.candidates:
        raise MalformedError(f"expected weights in {checkpoint}, found none", fix="see landscape inspect")
    chosen = next((c for c in description.candidates if c.name == weights), description.candidates[0])
    if weights is not None and chosen.name != weights:
        content.weights(weights)  # says which there are
    found = None if chosen.problem else recognize(content.weights(chosen.name), content.path.absolute(), content.meta)
    of_text = found is not None and found.data.startswith("text:")
    pixels = spec is not None and not spec.startswith("text:")
    if spec is not None and found is not None and of_text == pixels:
        raise UsageError(f"expected data for {found.model} as {found.data}, found {data}", fix="leave --data out, or change it")
    used = {"resolve": of_text, "read_data": spec and not of_text, "model_by_name": found and not of_text}
    names = [name for name, there in used.items() if there]
    loss = "NextTokenLoss()" if found is not None and found.data == NEXT_TOKENS else "torch.nn.CrossEntropyLoss()"
    text = _TEMPLATE.format(
        checkpoint=_quoted(str(checkpoint)),
        file=_quoted(str(target)),
        tensors=chosen.tensors,
        weights=chosen.weights,
        architecture=_quoted(chosen.architecture or "not recognized"),
        entries="\n".join(f"    {_quoted(row.key)}  {row.shape}" for row in chosen.rows[:12]),
        torch="" if loss == "NextTokenLoss()" else "import torch\n\n",
        loss=loss,
        over="the tokens that count" if loss == "NextTokenLoss()" else "the samples",
        imports="\n".join(
            [
                f"from landscape import {'NextTokenLoss, ' if loss == 'NextTokenLoss()' else ''}Task",
                *(f"from landscape.tasks import {n}" for n in sorted(names)),
            ]
        ),
        model=_OWN_MODEL
        if found is None
        else _MODEL_OF_TEXT.format(name=found.model, data=spec or found.data)
        if of_text
        else _KNOWN_MODEL.format(
            tensors=f"{found.tensors} tensors" if found.tensors else "config.json",
            name=found.model,
            options=dict(found.options),
        ),
        data=_TEXT.format() if of_text else _OWN_DATA if spec is None else _KNOWN_DATA.format(data=spec),
    )
    write(target, text.encode())
    several = ["--weights", chosen.name] if len(description.candidates) > 1 else []
    command = shlex.join(["landscape", "sharpness", str(checkpoint), "--task", str(target), *several])
    missing = [what for what, known in (("model", found), ("data", spec)) if not known]
    document = {"schema": 1, "task_file": str(target), "candidate": chosen.name, "missing": missing}
    terminal.document(document | {"model": None if found is None else found.model})
    terminal.line((f"add your {' and '.join(missing)} to {target}, then run: " if missing else "run: ") + command)
    terminal.written([target])


def _absolute(data: str) -> str:
    """The data's name with an absolute path, so that the task file works from every folder; checked as far as its kind."""
    from landscape.tasks.data.dataset import DataSpec

    spec = DataSpec.parse(data)
    return str(spec if spec.path is None else replace(spec, path=spec.path.absolute()))


def _quoted(text: str) -> str:
    """A name from a file, escaped for use inside a docstring."""
    return printable(text, limit=200).replace("\\", "\\\\").replace('"', "'")
