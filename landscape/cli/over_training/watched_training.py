"""`landscape train --watch`: the watch that follows a built-in run, and the files that it leaves."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.cli.options import listed_names
from landscape.cli.terminal import Terminal

if TYPE_CHECKING:
    from landscape.results import WatchHistory
    from landscape.tasks.training.trainer import Trainer
    from landscape.watching import Watch

MEASURES = "lambda_max,trace,layer_traces,critical_sharpness"
# Samples of the training set that are measured: the first ones.
_PROBE = 1024


class WatchedTraining:
    """Called by the trainer after every step; builds the watch at the first.

    Args:
        every: steps between two checks.
        measures: names separated by commas; None for `MEASURES`, and with an adaptive optimizer the measure that has an edge.
        seed: of the random vectors.
        budget, params: as for `Watch`.

    Raises:
        UsageError: an unknown measure, or a budget out of range.
    """

    def __init__(
        self,
        every: int,
        measures: str | None,
        seed: int,
        *,
        budget: float | None = None,
        params: list[str] | None = None,
    ) -> None:
        from landscape.watching.moment import measures_of
        from landscape.watching.pace import Pace

        Pace(every, budget)
        self._every, self._seed, self._budget, self._params = every, seed, budget, params
        self._usual = measures is None
        self._names = listed_names("--watch-measures", measures or MEASURES)
        measures_of(self._names)
        self._watch: Watch | None = None

    def __call__(self, trainer: "Trainer", done: int) -> None:
        """Check if one is due after so many steps."""
        if self._watch is None:
            from torch import nn

            from landscape.watching import MemorizationAlarm, Watch

            if self._usual and trainer.recipe.optimizer == "adam":
                self._names.insert(1, "preconditioned_lambda_max")
            loss = nn.CrossEntropyLoss(label_smoothing=trainer.recipe.label_smoothing)
            probe = trainer.x[:_PROBE], trainer.y[:_PROBE]
            self._watch = Watch(
                trainer.model,
                loss,
                probe,
                every=self._every,
                measures=self._names,
                optimizer=trainer.optimizer,
                alarm=MemorizationAlarm() if "layer_traces" in self._names else None,
                seed=self._seed,
                budget=self._budget,
                steps=trainer.steps,
                params=self._params,
            )
        self._watch(done)

    def told(self, terminal: Terminal, out: Path, written: list[Path]) -> dict[str, Any] | None:
        """Print and write the history; None for a run that was already finished, in which there was nothing to watch."""
        if self._watch is None:
            terminal.note("the run was finished before: nothing was watched; see landscape watch for a folder of checkpoints")
            return None
        history = self._watch.history
        written += write_history(history, out.with_name(f"{out.stem}-watch"), f"{out.name}")
        printed(terminal, history)
        return history.to_json()


def printed(terminal: Terminal, history: "WatchHistory") -> None:
    """Print a history's table, and what stands under it."""
    cells = history.cells()
    terminal.table(cells.head, cells.rows)
    for line in cells.after:
        terminal.note(line)


def write_history(history: "WatchHistory", stem: Path, name: str, caption: bool = True) -> list[Path]:
    """Write STEM.csv, STEM.json, STEM.png and STEM.pdf; a picture of each measure with an edge, or the first.

    And those of the trace and of the traces of layers, if they were measured.
    """
    import json

    from landscape.machine.files import write
    from landscape.machine.json_values import plain
    from landscape.report import save
    from landscape.report.over_training.watched import drawn_measures, figure_watched

    files = [
        write(stem.with_name(f"{stem.name}.csv"), history.to_csv().encode()),
        write(stem.with_name(f"{stem.name}.json"), (json.dumps(plain(history.to_json()), indent=2) + "\n").encode()),
    ]
    for i, measure in enumerate(drawn_measures(history)):
        figure = figure_watched(
            history, measure=measure, caption=caption, provenance=dict(history.provenance) | {"checkpoint": name}
        )
        files += save(figure, stem.with_name(f"{stem.name}-{measure}") if i else stem)
    return files
