"""`landscape train --watch`: the watch that follows a built-in run, and the files that it leaves."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.cli.options import listed_names
from landscape.cli.terminal import Terminal

if TYPE_CHECKING:
    from landscape.results import WatchHistory
    from landscape.tasks.training.trainer import Trainer
    from landscape.watching import Watch

MEASURES = "lambda_max,trace,critical_sharpness"
# Samples of the training set that are measured: the first ones.
_PROBE = 1024


class WatchedTraining:
    """Called by the trainer after every step; builds the watch at the first.

    Args:
        every: steps between two checks.
        measures: names separated by commas; None for `MEASURES`.
        seed: of the random vectors.

    Raises:
        UsageError: an unknown measure.
    """

    def __init__(self, every: int, measures: str | None, seed: int) -> None:
        from landscape.watching.moment import measures_of

        self._every, self._seed = every, seed
        self._names = listed_names("--watch-measures", measures or MEASURES)
        measures_of(self._names)
        self._watch: Watch | None = None

    def __call__(self, trainer: "Trainer", done: int) -> None:
        """Check if one is due after so many steps."""
        if self._watch is None:
            from torch import nn

            from landscape.watching import Watch

            loss = nn.CrossEntropyLoss(label_smoothing=trainer.recipe.label_smoothing)
            probe = trainer.x[:_PROBE], trainer.y[:_PROBE]
            self._watch = Watch(
                trainer.model,
                loss,
                probe,
                every=self._every,
                measures=self._names,
                optimizer=trainer.optimizer,
                seed=self._seed,
            )
        self._watch(done)

    def told(self, terminal: Terminal, out: Path, written: list[Path]) -> dict[str, Any] | None:
        """Print and write the history; None for a run that was already finished, in which there was nothing to watch."""
        if self._watch is None:
            terminal.note("the run was finished before: nothing was watched; see landscape watch for a folder of checkpoints")
            return None
        history = self._watch.history
        written += write_history(history, out.with_name(f"{out.stem}-watch"), f"{out.name}")
        terminal.table(*printed(history))
        for line in history.notes():
            terminal.note(line)
        return history.to_json()


def printed(history: "WatchHistory") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of a history's table."""
    head, *rows = history.rows()
    return head, rows


def write_history(history: "WatchHistory", stem: Path, name: str, caption: bool = True) -> list[Path]:
    """Write STEM.csv, STEM.json, STEM.png and STEM.pdf; one picture for each measure with an edge, else of the first."""
    import json

    import numpy as np

    from landscape.machine.files import write
    from landscape.machine.json_values import plain
    from landscape.report import save
    from landscape.report.over_training.watched import default_measure, figure_watched

    files = [
        write(stem.with_name(f"{stem.name}.csv"), history.to_csv().encode()),
        write(stem.with_name(f"{stem.name}.json"), (json.dumps(plain(history.to_json()), indent=2) + "\n").encode()),
    ]
    first = default_measure(history)
    others = [n for n in history.names if n != first and np.isfinite(history.edges(n)).any()]
    for i, measure in enumerate([first, *others]):
        figure = figure_watched(
            history, measure=measure, caption=caption, provenance=dict(history.provenance) | {"checkpoint": name}
        )
        files += save(figure, stem.with_name(f"{stem.name}-{measure}") if i else stem)
    return files
