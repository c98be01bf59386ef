"""The axes of a surface and the checkpoints drawn on it, as given by `--directions` and `--trajectory`."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.cli.options import Common, Naming
from landscape.cli.surfaces.axis_kinds import Asked, Request
from landscape.cli.terminal import Terminal
from landscape.errors import LandscapeError, UsageError
from landscape.machine.files import bare_name, open_regular

if TYPE_CHECKING:
    from landscape.checkpoints.series import CheckpointFiles
    from landscape.objective import Objective
    from landscape.results import Track
    from landscape.surfaces import Direction
    from landscape.tasks import Task


class Axes:
    """The axes of a surface, and the checkpoints drawn on it.

    Args:
        asked: one for each axis.
        trajectory: a folder of checkpoints to project; default: the folder of an axis that has one.
    """

    def __init__(
        self, asked: Sequence[Asked], trajectory: Path | None, task: "Task", common: Common, naming: Naming, terminal: Terminal
    ) -> None:
        self.asked, self.task, self.common, self.naming, self.terminal = asked, task, common, naming, terminal
        self.trajectory = trajectory or next(iter(self._named("DIR")), None)
        self._others: dict[Path, Objective] = {}
        self._read: dict[Path, CheckpointFiles] = {}

    def files(self) -> dict[str, str]:
        """SHA-256 of every checkpoint that is read, by its path. A continued run must find the same."""
        named = self._named("CKPT")
        for folder in {*self._named("DIR"), *([] if self.trajectory is None else [self.trajectory])}:
            named += self.series(folder).paths
        return {str(path): path_sha256(path) for path in dict.fromkeys(named)}

    def directions(self, objective: "Objective", norm: str, fixed: "Sequence[str]", orthogonal: bool) -> "list[Direction]":
        """The axes; all axes of one kind are computed together."""
        from landscape.surfaces import orthogonal_to

        found: dict[int, Direction] = {}
        for one in dict.fromkeys(self.asked):
            places = [i for i, other in enumerate(self.asked) if other == one]
            made = one.kind.directions(Request(objective, self, one.path, places, norm, fixed))
            found |= dict(zip(places, made, strict=True))
        out = [found[i] for i in range(len(self.asked))]
        if orthogonal and len(out) == 2:
            out[1] = orthogonal_to(out[0], out[1])
        return out

    def tracks(self, objective: "Objective", directions: "Sequence[Direction]", kept: Path) -> "tuple[Track, ...]":
        """The trajectory and the named checkpoints, projected onto the axes. The result is saved in the folder `kept`."""
        from dataclasses import replace

        import numpy as np

        from landscape.results import Track
        from landscape.surfaces import agreed, project

        def found() -> dict[str, Any]:
            out = []
            if self.trajectory is not None:
                series = self.series(self.trajectory)
                out.append(project(objective, directions, series, series.names, label="trajectory"))
            named = self._named("CKPT")
            if named:
                others = [self.other(p) for p in named]
                names = [bare_name(p) for p in named]
                drawn = project(objective, directions, [o.theta for o in others], names, label="checkpoints", path=False)
                losses = np.array([o.value().value for o in others])
                out.append(replace(drawn, losses=losses))
            return {"tracks": [t.to_json() for t in out]}

        return tuple(Track.from_json(t) for t in agreed(kept, "tracks", found)["tracks"])

    def spans(self, tracks: "Sequence[Track]", grid: int) -> list[tuple[float, float]]:
        """A span for each axis: one that contains all projected points if it leads to other checkpoints, else -1 to 1.

        Two networks at 0 and 1 are grid points: what is drawn there is computed, not interpolated.
        """
        import numpy as np

        from landscape.surfaces.axes.chart import Span, fitted_span, joining_span

        drawn = np.concatenate([t.coordinates for t in tracks]) if tracks else np.zeros((0, len(self.asked)))

        def span(i: int, one: Asked) -> Span:
            if one.kind.path is None:
                return -1.0, 1.0
            at_ends = np.isclose(drawn[:, i], 0, atol=1e-6) | np.isclose(drawn[:, i], 1, rtol=0, atol=1e-6)
            return joining_span(grid) if at_ends.all() else fitted_span(drawn[:, i], grid)

        return [span(i, one) for i, one in enumerate(self.asked)]

    def _named(self, what: str) -> list[Path]:
        """The paths of the axes: folders ("DIR") or checkpoints ("CKPT")."""
        return [one.path for one in self.asked if one.kind.path == what and one.path is not None]

    def others(self) -> list[Path]:
        """The checkpoints that the axes lead to, each once."""
        return list(dict.fromkeys(self._named("CKPT")))

    def other(self, path: Path) -> "Objective":
        """Another checkpoint of the same network, on the same data."""
        from landscape.cli.setup import objective_of, open_task

        if path not in self._others:
            try:
                self._others[path] = objective_of(open_task(path, self.naming, self.terminal), self.common, self.naming.split)
            except LandscapeError as error:
                if path.name in error.problem:
                    raise
                raise type(error)(f"{path.name}: {error.problem}", fix=error.fix) from error
        return self._others[path]

    def series(self, folder: Path) -> "CheckpointFiles":
        """The checkpoints of a folder."""
        from landscape.checkpoints.series import CheckpointFiles
        from landscape.network.given.chosen_parameters import as_patterns
        from landscape.network.parameters import Layout

        if folder not in self._read:
            layout = Layout.of(self.task.model, params=as_patterns(self.task.params))
            self._read[folder] = CheckpointFiles(folder, self.task.model, layout, weights=self.naming.weights)
            if self.task.params is not None:
                self.terminal.note(f"{folder.name}: only the movement of the weights that vary; the others stay as they are")
        return self._read[folder]


def path_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of a folder's files.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            return hashlib.sha256("".join(f"{p.relative_to(path)} {path_sha256(p)}\n" for p in inside).encode()).hexdigest()
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"expected a file that can be read, found {path}: {error.strerror}") from error
