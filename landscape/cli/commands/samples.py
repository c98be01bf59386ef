"""`landscape samples`: training samples ranked by how strongly the network has memorized them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.cli.options import CLEAN, Common, Varying, listed_names
from landscape.cli.terminal import Terminal
from landscape.errors import UsageError
from landscape.machine.files import bare_name

if TYPE_CHECKING:
    import torch

    from landscape.cli.output_directory import OutputDirectory
    from landscape.objective import Objective
    from landscape.results import SampleScores
    from landscape.tasks import Task

NAME = "samples"


def run(
    terminal: Terminal,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint.")],
    common: Common,
    naming: Varying,
    scores: Annotated[
        str | None,
        typer.Option(
            "--scores",
            help="Separated by commas: loss, loss_sensitivity, input_curvature, gauss_newton_trace, top_curvature; with "
            "--trajectory also cumulative_loss, mean_loss_sensitivity, mean_input_curvature, forgetting. Default: all of them.",
        ),
    ] = None,
    trajectory: Annotated[
        Path | None,
        typer.Option("--trajectory", metavar="DIR", help="Checkpoints of the training run, for scores over training."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", help="Score that ranks. Default: cumulative_loss, without --trajectory input_curvature."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Number of samples to print and draw.")] = 24,
    wrong: Annotated[
        Path | None,
        typer.Option(
            "--wrong",
            metavar="FILE",
            help="Samples known to be wrong, for the AUROC: indices from 0, or a 0 or 1 for each; .txt, .csv or .npy.",
        ),
    ] = None,
    probes: Annotated[int, typer.Option("--probes", min=1, help="Random signs of the input curvature.")] = 10,
    step: Annotated[
        float, typer.Option("--step", help="Step of the input curvature, in the unit of the network's inputs.")
    ] = 1e-3,
    clean: CLEAN = False,
) -> None:
    """Which samples has the network memorized? Ranked by loss, input curvature, curvature in the weights, losses over training.

    Where the wrong labels are known (--wrong, or a checkpoint of landscape train) the AUROC of every score.

    Example: landscape samples runs/noisy.safetensors --trajectory runs/noisy-trajectory --top 32 --out samples
    """
    from landscape.checkpoints import CheckpointFiles
    from landscape.cli.output_directory import OutputDirectory
    from landscape.cli.setup import centre_line, objective_of, open_task, seeded, task_file
    from landscape.cli.surfaces.requested_axes import path_sha256
    from landscape.machine.files import write
    from landscape.measures import provenance
    from landscape.memorization import samples
    from landscape.memorization.score_kinds import wanted_scores
    from landscape.report import samples_csv

    asked = wanted_scores(None if scores is None else listed_names("--scores", scores), trajectory is not None)
    task = open_task(checkpoint, naming, terminal)
    objective = objective_of(task, common, naming.split)
    if naming.params and trajectory is not None:
        raise UsageError(
            "expected --params without --trajectory, found both",
            fix="scores over training are of all weights at every checkpoint: leave one of them out",
        )
    mask, source = _known(wrong, task, objective, naming.split)
    files = None if trajectory is None else CheckpointFiles(trajectory, task.model, weights=naming.weights, least=2)
    inputs = provenance(objective, common.seed) | task_file(naming) | {
        "command": NAME, "sha256": task.sha256, "split": naming.split, "samples": objective.samples,
        "scores": asked, "by": by, "top": top, "probes": probes, "step": step,
        "trajectory": None if files is None else {p.name: path_sha256(p) for p in files.paths},
        "wrong": None if mask is None else mask.nonzero().flatten().tolist(),
    }  # fmt: skip
    folder = OutputDirectory(common.out or Path(f"{bare_name(checkpoint)}-samples"), inputs)
    centre_line(objective, task, checkpoint.name, naming.split, terminal)
    if mask is not None:
        terminal.note(f"{int(mask.sum())} of {len(mask)} samples are known to be wrong, from {source}")

    found = samples(
        objective, asked, trajectory=None if files is None else files.points(), wrong=mask, by=by, top=top,
        probes=probes, step=step, names=_class_names(task), generator=seeded(common.seed),
    )  # fmt: skip
    _printed(terminal, found)
    document: dict[str, Any] = {
        "schema": 1, "checkpoint": str(checkpoint), "sha256": task.sha256, "task": task.name, "samples": objective.samples,
        **found.to_json(), "provenance": inputs,
    }  # fmt: skip
    _drawn(folder, found, checkpoint.name, inputs | {"checkpoint": checkpoint.name, "task": task.name}, not clean)
    write(folder.file("samples.csv"), samples_csv(found).encode())
    folder.json("samples.json", document)
    terminal.document(document)
    terminal.written(folder.written)


def _known(file: Path | None, task: "Task", objective: "Objective", split: str) -> "tuple[torch.Tensor | None, str]":
    """Mask of the samples known to be wrong, and where that is known from; None if it is not known, or none is.

    A checkpoint's own mask counts only for the training labels that it was made for.
    """
    import torch

    if file is not None:
        return read_mask(file, objective.samples), file.name
    mask, labels = task.extras.get("wrong_labels"), task.extras.get("train_labels")
    if split != "train" or mask is None or labels is None or mask.dtype != torch.bool or mask.shape != labels.shape:
        return None, ""
    targets = objective.targets.cpu()
    mask, labels = mask[: objective.samples], labels[: objective.samples]
    if not torch.equal(labels, targets) or not bool(mask.any()):
        return None, ""
    return mask, "the checkpoint"


def read_mask(file: Path, count: int) -> "torch.Tensor":
    """The mask in a file: a 0 or 1 for each of `count` samples, or indices of those that are 1.

    Raises:
        UsageError: the file cannot be read, holds something else than whole numbers, or an index is out of range or repeated.
    """
    import numpy as np
    import torch

    from landscape.errors import UsageError
    from landscape.machine.files import open_regular

    try:
        with open_regular(file) as opened:
            if file.suffix == ".npy":
                values = np.load(opened, allow_pickle=False).ravel()
            else:
                values = np.array(opened.read().decode().replace(",", " ").split(), dtype=np.int64)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UsageError(
            f"expected indices or a 0 or 1 for each sample in {file}, found: {reason}",
            fix="for instance one index on each line",
        ) from error
    if values.dtype != bool and not np.issubdtype(values.dtype, np.integer):
        raise UsageError(f"expected whole numbers in {file}, found {values.dtype}", fix="save indices or a mask of booleans")
    if len(values) == count and (values.dtype == bool or np.isin(values, (0, 1)).all()):
        return torch.from_numpy(values.astype(bool))
    if (
        values.dtype == bool
        or not len(values)
        or values.min() < 0
        or values.max() >= count
        or len(set(values.tolist())) < len(values)
    ):
        raise UsageError(
            f"expected a 0 or 1 for each of {count} samples in {file}, or different indices below {count}, "
            f"found {len(values)} numbers that are neither",
            fix="with --samples N only the first N samples count",
        )
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.from_numpy(values.astype(np.int64))] = True
    return mask


def _class_names(task: "Task") -> list[str] | None:
    """Names of the classes, from the record of a checkpoint of `landscape train`."""
    data = (task.recipe or {}).get("data")
    names = data.get("classes") if isinstance(data, dict) else None
    return names if isinstance(names, list) and names and all(isinstance(name, str) for name in names) else None


def _printed(terminal: Terminal, found: "SampleScores") -> None:
    """Print the highest ranked samples, the AUROC of every score, and what is not defined."""
    terminal.table(found.head, found.rows())
    if found.detection:
        terminal.line()
        terminal.table(("score", "AUROC for the wrong labels, 95 % interval over samples"), found.detection_rows())
    for name, why in found.missing.items():
        terminal.note(f"{name}: not defined: {why}")
    for name, error in found.errors.items():
        terminal.note(f"{name}: a mean over random probes, standard error at most {error:.2g}")
    for name, why in found.unconverged.items():
        terminal.warn(f"{name}: not converged: {why}")
    terminal.unconverged += found.unconverged


def _drawn(folder: "OutputDirectory", found: "SampleScores", name: str, made_from: dict[str, Any], caption: bool) -> None:
    """Draw the sorted scores, the shares of the trace where it is there, and the highest ranked samples if they are images."""
    from landscape.report import are_images, figure_ranked_scores, figure_samples, figure_shares, save

    figures = {"scores": figure_ranked_scores(
        found, title=f"Samples of {name} ranked by {found.by}", provenance=made_from, caption=caption
    )}  # fmt: skip
    if are_images(found.inputs):
        figures["samples"] = figure_samples(
            found, title=f"Samples of {name} ranked highest by {found.by}", provenance=made_from, caption=caption
        )
    if found.has_shares("gauss_newton_trace"):
        figures["shares"] = figure_shares(
            found, title=f"Share of the Gauss-Newton trace of {name} that samples carry", provenance=made_from, caption=caption
        )
    for kind, figure in figures.items():
        folder.written += save(figure, folder.path / kind)
