"""Where a watch writes its numbers: a CSV file, TensorBoard, Weights & Biases, MLflow.

A logger is any function of (step, {name: value}). The CSV file has every value, inf and nan too. The three services get
finite values alone: a number that is not finite is missing there, because MLflow turns an infinity into 1.8e308. Their names
get a prefix, by which a dashboard groups them.
"""

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from landscape.errors import UsageError
from landscape.machine.files import unwritable

Logger = Callable[[int, Mapping[str, float]], None]

PREFIX = "landscape/"


def csv_file(path: str | Path) -> Logger:
    """A row "step,name,value" for every number, written at once; an existing file is continued.

    Raises:
        UsageError: the file cannot be written.
    """
    file = Path(path)

    def log(step: int, row: Mapping[str, float]) -> None:
        new = not file.exists()
        with file.open("a", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerows([["step", "name", "value"]] if new else [])
            writer.writerows([step, name, repr(float(value))] for name, value in row.items())

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        raise unwritable(file, error) from error
    if not file.stat().st_size:
        file.unlink()
    return log


def tensorboard(writer: Any) -> Logger:
    """A `SummaryWriter`, or the folder for a new one. Values are scalars under "landscape/"."""
    if isinstance(writer, (str, Path)):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _missing("tensorboard") from None
        writer = SummaryWriter(str(writer))

    def log(step: int, row: Mapping[str, float]) -> None:
        for name, value in _finite(row).items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log


def wandb_run(run: Any) -> Logger:
    """A run of `wandb.init()`. The values have an axis of their own, "landscape/step", and end the run's present row.

    Where the run's own rows have explicit steps, call the watch after `run.log` of a step: a row for a step that is over is
    dropped by wandb.
    """
    run.define_metric(f"{PREFIX}step")
    run.define_metric(f"{PREFIX}*", step_metric=f"{PREFIX}step")

    def log(step: int, row: Mapping[str, float]) -> None:
        run.log(_finite(row) | {f"{PREFIX}step": step})

    return log


def mlflow_run(run_id: str | None = None) -> Logger:
    """MLflow's run of this id, by default the active one. Values are metrics under "landscape/"."""
    try:
        import mlflow
    except ImportError:
        raise _missing("mlflow") from None

    def log(step: int, row: Mapping[str, float]) -> None:
        mlflow.log_metrics(_finite(row), step=step, run_id=run_id)

    return log


def _finite(row: Mapping[str, float]) -> dict[str, float]:
    """The finite values under the prefix."""
    return {f"{PREFIX}{name}": float(value) for name, value in row.items() if math.isfinite(value)}


def _missing(library: str) -> UsageError:
    return UsageError(f"expected {library}, found none", fix="pip install 'landscape-sharpness[watch]'")
