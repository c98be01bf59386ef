"""The kinds of axes of `--directions`. A new kind needs a function that returns directions, and one row of the table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from landscape.errors import UsageError

if TYPE_CHECKING:
    from landscape.cli.surfaces.requested_axes import Axes
    from landscape.objective import Objective
    from landscape.surfaces import Direction


@dataclass(frozen=True)
class Request:
    """The input for the directions of one kind.

    Attributes:
        objective: the network on its data.
        axes: opens other checkpoints, and has the seed and the terminal.
        path: the path after the colon; None for a kind without path.
        places: the axes of this kind: [0], [1] or [0, 1].
        norm, fixed: the options of random directions.
    """

    objective: "Objective"
    axes: "Axes"
    path: Path | None
    places: list[int]
    norm: Any
    fixed: Sequence[Any]

    @property
    def named(self) -> Path:
        """The path of a kind that has one."""
        assert self.path is not None  # checked by `parsed`
        return self.path


@dataclass(frozen=True)
class AxisKind:
    """A kind of axis.

    Attributes:
        directions: returns one direction for each of the places.
        path: what follows the colon after the name: a folder of checkpoints, or one checkpoint; None for nothing. Axes to other
            checkpoints have a span that contains these, and re-estimated BatchNorm statistics.
        before: work before the points, for the forecast; "" if it is fast.
    """

    directions: "Callable[[Request], list[Direction]]"
    path: Literal["DIR", "CKPT"] | None = None
    before: str = ""


def _random(asked: Request) -> "list[Direction]":
    from landscape.surfaces import random_direction

    seed = asked.axes.common.seed
    return [random_direction(asked.objective, seed=seed + i, norm=asked.norm, zero=asked.fixed) for i in asked.places]


def _hessian(asked: Request) -> "list[Direction]":
    from landscape.cli.setup import seeded
    from landscape.spectra import eigenpairs
    from landscape.surfaces import eigenvector_directions

    pairs = eigenpairs(asked.objective, len(asked.places), generator=seeded(asked.axes.common.seed))
    lost = [f"Hessian eigenvector {i}" for i, good in enumerate(pairs.converged, 1) if not good]
    asked.axes.terminal.unconverged += lost
    return eigenvector_directions(pairs)


def _pca(asked: Request) -> "list[Direction]":
    from landscape.surfaces import trajectory_directions

    return trajectory_directions(asked.objective, asked.axes.series(asked.named), len(asked.places))


def _to(asked: Request) -> "list[Direction]":
    from landscape.surfaces import toward
    from landscape.surfaces.axes.same_network import check_same_network

    other = asked.axes.other(asked.named)
    check_same_network(asked.objective, other)
    return [toward(asked.objective, other.theta, f"to {asked.named.name}", other.buffers) for _ in asked.places]


# In the order of the help.
KINDS = {
    "random": AxisKind(_random),
    "hessian": AxisKind(_hessian, before="finding eigenvectors"),
    "pca": AxisKind(_pca, "DIR", before="reading the trajectory"),
    "to": AxisKind(_to, "CKPT"),
}


def words() -> str:
    """The kinds as text: "random, hessian, pca:DIR or to:CKPT"."""
    typed = [name if kind.path is None else f"{name}:{kind.path}" for name, kind in KINDS.items()]
    return f"{', '.join(typed[:-1])} or {typed[-1]}"


@dataclass(frozen=True)
class Asked:
    """One axis as given by the user: the name of its kind, and its path."""

    name: str
    path: Path | None

    @property
    def kind(self) -> AxisKind:
        """The row of the table."""
        return KINDS[self.name]


def parsed(text: str, dim: int) -> list[Asked]:
    """The kinds of `dim` axes; a single kind is used for every axis.

    Raises:
        UsageError: an unknown kind, too many kinds, or a path that is missing or superfluous.
    """
    asked = []
    for part in (p.strip() for p in text.split(",")):
        name, colon, path = part.partition(":")
        if name not in KINDS or (KINDS[name].path is not None) != bool(path) or (colon and not path):
            raise UsageError(f"expected {words()}, found {part!r}", fix="pass --directions random,hessian")
        asked.append(Asked(name, Path(path) if path else None))
    if len(asked) == 1:
        if dim == 2 and asked[0].kind.path == "CKPT":
            raise UsageError(
                f"expected a second axis beside {name}:CKPT, found none",
                fix="pass --directions to:A,to:B, or --dim 1, or to:A,random",
            )
        asked *= dim
    if len(asked) != dim:
        raise UsageError(f"expected one kind of direction or {dim}, found {len(asked)}", fix="pass --directions random")
    return asked
