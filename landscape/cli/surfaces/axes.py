"""What `--directions` and `--trajectory` name: the axes of a surface, and the checkpoints that are drawn on it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.cli.options import Common, Naming
from landscape.cli.terminal import Terminal
from landscape.errors import LandscapeError, UsageError
from landscape.machine.files import open_regular

if TYPE_CHECKING:
    from landscape.checkpoints.series import CheckpointFiles
    from landscape.objective import Objective
    from landscape.results import Track
    from landscape.surfaces import Direction
    from landscape.tasks import Task


@dataclass(frozen=True)
class Kind:
    """One axis as it was asked for: random, hessian, pca:DIR or to:CKPT."""

    name: str
    path: Path | None


def parsed(text: str, dim: int) -> list[Kind]:
    """As many kinds as axes; one kind is used for every axis.

    Raises:
        UsageError: unknown kinds, too many, or a path that is missing or not wanted.
    """
    kinds = []
    for part in (p.strip() for p in text.split(",")):
        name, colon, path = part.partition(":")
        wants = name in ("pca", "to")
        if name not in ("random", "hessian", "pca", "to") or wants != bool(path) or (colon and not path):
            raise UsageError(
                f"expected random, hessian, pca:DIR or to:CKPT, found {part!r}", fix="pass --directions random,hessian"
            )
        kinds.append(Kind(name, Path(path) if path else None))
    if len(kinds) == 1:
        if dim == 2 and kinds[0].name == "to":
            raise UsageError(
                "expected a second axis beside to:CKPT, found one",
                fix="pass --directions to:A,to:B, or --dim 1, or to:A,random",
            )
        kinds *= dim
    if len(kinds) != dim:
        raise UsageError(f"expected one kind of direction or {dim}, found {len(kinds)}", fix="pass --directions random")
    return kinds


class Axes:
    """The axes of a surface, and what is drawn on it.

    Args:
        kinds: one an axis.
        trajectory: a folder of checkpoints to project; that of a pca axis if left out.
    """

    def __init__(
        self, kinds: Sequence[Kind], trajectory: Path | None, task: "Task", common: Common, naming: Naming, terminal: Terminal
    ) -> None:
        self.kinds, self.task, self.common, self.naming, self.terminal = kinds, task, common, naming, terminal
        self.trajectory = trajectory or next((k.path for k in kinds if k.name == "pca"), None)
        self._others: dict[Path, Objective] = {}
        self._read: dict[Path, CheckpointFiles] = {}

    def files(self) -> dict[str, str]:
        """SHA-256, by its path, of every checkpoint that is read: what a run that goes on must find again."""
        folders = {k.path for k in self.kinds if k.name == "pca"} | {self.trajectory}
        named = [k.path for k in self.kinds if k.name == "to" and k.path is not None]
        for folder in folders:
            named += self._series(folder).paths if folder is not None else []
        return {str(path): path_sha256(path) for path in dict.fromkeys(named)}

    def directions(self, objective: "Objective", norm: str, fixed: "Sequence[str]", orthogonal: bool) -> "list[Direction]":
        """The axes; eigenvectors are computed once for all of them."""
        from landscape.cli.setup import seeded
        from landscape.spectra import eigenpairs
        from landscape.surfaces import eigenvector_directions, orthogonal_to, random_direction, toward, trajectory_directions

        out: list[Direction] = []
        wanted = sum(k.name == "hessian" for k in self.kinds)
        vectors = []
        if wanted:
            pairs = eigenpairs(objective, wanted, generator=seeded(self.common.seed))
            self.terminal.unconverged += [
                f"Hessian eigenvector {i}" for i, good in enumerate(pairs.converged, 1) if not good
            ]  # fmt: skip
            vectors = eigenvector_directions(pairs)
        components: dict[Path, list[Direction]] = {}
        for i, kind in enumerate(self.kinds):
            if kind.name == "random":
                out.append(random_direction(objective, seed=self.common.seed + i, norm=norm, zero=fixed))  # type: ignore[arg-type]  # checked by the caller
            elif kind.name == "hessian":
                out.append(vectors.pop(0))
            elif kind.name == "to":
                assert kind.path is not None  # parsed
                other = self._other(kind.path)
                out.append(toward(objective, other.theta, f"to {kind.path.name}", other.buffers))
            else:
                assert kind.path is not None  # parsed
                if kind.path not in components:
                    count = sum(k == kind for k in self.kinds)
                    components[kind.path] = trajectory_directions(objective, self._series(kind.path), count)
                out.append(components[kind.path].pop(0))
        if orthogonal and len(out) == 2:
            out[1] = orthogonal_to(out[0], out[1])
        return out

    def tracks(self, objective: "Objective", directions: "Sequence[Direction]", kept: Path) -> "tuple[Track, ...]":
        """The trajectory and the named checkpoints, projected onto the axes; kept in a folder, so that it is done once."""
        from landscape.results import Track
        from landscape.surfaces import agreed, project

        def found() -> dict[str, Any]:
            out = []
            if self.trajectory is not None:
                series = self._series(self.trajectory)
                out.append(project(objective, directions, series, series.names, label="trajectory"))
            named = [k.path for k in self.kinds if k.name == "to" and k.path is not None]
            if named:
                points = [self._other(p).theta for p in named]
                out.append(project(objective, directions, points, [p.stem for p in named], label="checkpoints", path=False))
            return {"tracks": [t.to_json() for t in out]}

        return tuple(Track.from_json(t) for t in agreed(kept, "tracks", found)["tracks"])

    def spans(self, tracks: "Sequence[Track]", grid: int) -> list[tuple[float, float]]:
        """A span for each axis: of pca and to one that holds all that is drawn on it, else -1 to 1."""
        import numpy as np

        from landscape.surfaces.axes.chart import fitted_span

        drawn = np.concatenate([t.coordinates for t in tracks]) if tracks else np.zeros((0, len(self.kinds)))
        return [
            fitted_span(drawn[:, i], grid) if kind.name in ("pca", "to") else (-1.0, 1.0) for i, kind in enumerate(self.kinds)
        ]

    def _other(self, path: Path) -> "Objective":
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

    def _series(self, folder: Path) -> "CheckpointFiles":
        """The checkpoints of a folder."""
        from landscape.checkpoints.series import CheckpointFiles

        if folder not in self._read:
            self._read[folder] = CheckpointFiles(folder, self.task.model, weights=self.naming.weights)
        return self._read[folder]


def path_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, or of a folder's files and their names.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            return hashlib.sha256("".join(f"{p.relative_to(path)} {path_sha256(p)}\n" for p in inside).encode()).hexdigest()
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"expected a file that can be read, found {path}: {error.strerror}") from error
