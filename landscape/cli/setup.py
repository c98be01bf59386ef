"""Build the Objective that a command's options describe."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from landscape.cli.options import Common, Naming, Varying
from landscape.cli.terminal import Terminal
from landscape.errors import UsageError
from landscape.machine.torchrun import launched, local_gpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from landscape.machine.memory import Basis
    from landscape.objective import Objective
    from landscape.results import Estimate, Evaluation
    from landscape.tasks import Task


def device_of(name: str) -> str:
    """The device that `--device` names.

    Raises:
        UsageError: this machine has no such device.
    """
    import torch

    if name in ("auto", "cuda") and torch.cuda.is_available() and launched()[1] > 1:
        return f"cuda:{local_gpu()}"  # one GPU per process
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = "unknown"
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        there = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise UsageError(f"expected a device of this machine, found {name!r}", fix=f"choose from {there}; see landscape doctor")
    return name


def seeded(seed: int) -> "torch.Generator":
    """A random number generator with this seed."""
    import torch

    return torch.Generator().manual_seed(seed)


def model_arguments(pairs: list[str] | None) -> dict[str, object]:
    """`-M key=value` as keyword arguments. A value is parsed as JSON; if that fails it is text.

    Raises:
        UsageError: not a key=value pair, or a value that is too long, too deeply nested or too large.
    """
    import json

    from landscape.errors import printable

    out: dict[str, object] = {}
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"expected -M KEY=VALUE, found {pair!r}", fix="for example -M num_classes=10")
        try:
            if len(text) > _LONGEST:
                raise ValueError(f"{len(text):,} characters")
            out[key] = _bounded(json.loads(text))
        except json.JSONDecodeError:
            out[key] = {"True": True, "False": False, "None": None}.get(text, text)
        except (ValueError, RecursionError) as error:
            what = "a value that is nested too deeply" if isinstance(error, RecursionError) else error
            raise UsageError(
                f"expected -M {key} as a number of 64 bits, a text or a short list, found {what}: {printable(text, limit=40)}",
                fix="for example -M num_classes=10",
            ) from None
    return out


# Most characters of an option's value; a list of a few hundred layer widths is shorter.
_LONGEST = 4096


def _bounded(value: object) -> object:
    """The value, after checking that its integers fit into 64 bits, as sizes and entries of tensors must."""
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _bounded(part)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a number that is too large")
    return value


def task_file(naming: Naming) -> dict[str, str]:
    """Entries for the record of inputs that identify the file of `--task`; empty without `--task`."""
    from landscape.tasks.userfile import task_record

    return {} if naming.task is None else task_record(naming.task)


def open_task(path: Path, naming: Naming, terminal: Terminal) -> "Task":
    """The checkpoint's Task: its model with the checkpoint's weights, its loss and its data."""
    from landscape.tasks import load

    if naming.model_args and naming.model is None and naming.task is None:
        raise UsageError("expected -M together with --model or --task, found it alone", fix="name the model, or leave -M out")
    if naming.split not in ("train", "test"):
        raise UsageError(f"expected --split train or test, found {naming.split!r}")
    task = load(
        path,
        task=naming.task,
        model=naming.model,
        model_kwargs=model_arguments(naming.model_args),
        data=naming.data,
        weights=naming.weights,
    )
    for notice in task.notices:
        terminal.detail(notice, path.name)
    return replace(task, params=naming.params) if isinstance(naming, Varying) and naming.params else task


def objective_of(task: "Task", common: Common, split: str = "train", shard_basis: bool = False) -> "Objective":
    """The Objective of a task, with the samples, precision and device of the options.

    A network whose pass over the data is small is computed with one thread; see `landscape.objective.work_size`.
    """
    from landscape.machine.memory import parsed

    if common.dtype not in ("float32", "float64"):
        raise UsageError(f"expected --dtype float32 or float64, found {common.dtype!r}")
    objective = task.objective(
        split,
        samples=common.samples,
        batch_size=common.batch_size,
        dtype=common.dtype,
        device=device_of(common.device),
        memory=None if common.memory is None else parsed(common.memory),
        shard_basis=shard_basis,
    )
    _settle_threads(objective)
    return objective


_given_threads: list[int] = []  # the number of threads before the first network
_large: list[bool] = []  # whether some network of this command needs them


def _settle_threads(objective: "Objective") -> None:
    """One thread as long as a second would cost more than it brings on every network so far; else the number that was given."""
    import torch

    from landscape.objective.work_size import is_small

    if not _given_threads:
        _given_threads.append(torch.get_num_threads())
    if not is_small(objective):
        _large.append(True)
    torch.set_num_threads(_given_threads[0] if _large else 1)


def work_lines(objective: "Objective", terminal: Terminal, *bases: "Basis", vectors: int) -> dict[str, object]:
    """Print how much memory the run will take, with these Krylov bases one after another, and how products are sped up.

    Returns:
        The same as entries for the record. They affect time and memory; results change by less than their tolerance.
    """
    from landscape.curvature.method import PLAIN

    terminal.detail(objective.plan.line(*bases, vectors=vectors))
    if objective.method != PLAIN:
        terminal.detail(f"products with the Hessian: {objective.method.name}; the same values in less time")
    return {"memory": objective.plan.to_json(*bases, vectors=vectors), "products": objective.method.name}


def test_objective(task: "Task", common: Common) -> "Objective | None":
    """The Objective on at most `--samples` of the test split; None if the task has no test split."""
    if task.test is None:
        return None
    available = task.size("test")
    samples = None if common.samples is None else min(common.samples, available)
    return objective_of(task, replace(common, samples=samples), "test")


def _lowest(accuracy: "Estimate") -> float:
    """Lower end of an accuracy's interval; two deviations below it where there is none; itself if no error is known."""
    bounds = accuracy.interval()
    return bounds[0] if bounds is not None else accuracy.value - 2 * (accuracy.stderr or 0.0)


# A loss whose exponential says nothing, and would overflow not far above.
_PERPLEXING = 100.0


def _batches(sizes: "Sequence[int]") -> str:
    """How many batches of how many samples.

    Example:
        >>> _batches([64, 64, 8]), _batches([256])
        ('3 of 8 to 64 samples', '1 of 256 samples')
    """
    low, high = min(sizes), max(sizes)
    return f"{len(sizes)} of {high if low == high else f'{low} to {high}'} sample{'s' * (high != 1)}"


def centre_line(objective: "Objective", task: "Task", name: str, split: str, terminal: Terminal) -> "Evaluation":
    """Print loss and accuracy at the checkpoint, and warn if the accuracy is at chance level.

    There is no warning on the test split for a network whose recipe has corrupted training data: chance level is expected.
    """
    from math import exp

    from landscape.network.losses.model_loss import as_model_loss
    from landscape.network.losses.next_token import NextTokenLoss
    from landscape.results.records.varying_weights import weights_words
    from landscape.tasks.data.class_order import sorted_by_class

    centre = objective.evaluate()
    text = f"{name}: {split} loss {centre.loss.value:.5g} {centre.loss.doubt()}".rstrip()
    if isinstance(task.loss, NextTokenLoss) and centre.loss.value < _PERPLEXING:
        text += f", perplexity {exp(centre.loss.value):.4g}"
    if centre.accuracy is not None:
        text += f", accuracy {centre.accuracy.percent()}"
    text += f", {objective.samples} sample{'s' * (objective.samples != 1)}"
    if isinstance(task.loss, NextTokenLoss):
        text += f", {task.loss.counted(task.data(split, objective.samples)):,} predicted tokens"
    terminal.line(f"{text}, {weights_words(objective.varying)}")
    if as_model_loss(task.loss) is not None:
        terminal.detail(
            f"a loss of (model, batch) depends on the batches, here {_batches(objective.batch_sizes)} (--batch-size)"
        )
    order = sorted_by_class(task.data(split), objective.samples)
    if order is not None:
        terminal.warn(
            f"{name}: the first {objective.samples} of {task.size(split)} samples hold {order[0]} of {order[1]} classes, so "
            "the data are sorted by class: shuffle the file once, or leave out --samples"
        )
    classes = objective.classes
    training = (task.recipe or {}).get("training") or {}
    if split == "test" and training.get("corruption", "clean") != "clean":
        return centre
    if centre.accuracy is None or not classes or centre.accuracy.value > 0.5:  # a handful of samples may all be right
        return centre
    if _lowest(centre.accuracy) <= 1 / classes:
        terminal.warn(
            f"{name}: accuracy is at chance level (1 in {classes}): check the preprocessing, the weights and "
            "whether the labels were random in training"
        )
    return centre
