"""What `landscape inspect` says about a checkpoint."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from landscape.checkpoints.architecture import guess
from landscape.checkpoints.checkpoint import Checkpoint
from landscape.checkpoints.weights import strip
from landscape.errors import LandscapeError


@dataclass(frozen=True)
class TensorRow:
    """One tensor: its name in the file, its shape and dtype, and why it cannot serve as a weight, if so."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    unusable: str | None = None


@dataclass(frozen=True)
class CandidateSummary:
    """One set of weights.

    Attributes:
        name: what `--weights` takes.
        tensors: how many there are.
        weights: numbers in all floating-point tensors, tied ones counted once.
        prefix: what is stripped from every name before a model sees it.
        architecture: a guess from names and shapes, in words; None where there is none.
        rows: every tensor.
        problem: why the set cannot be used as it is, or None.
        notices: what using it would change.
    """

    name: str
    tensors: int
    weights: int
    prefix: str
    architecture: str | None
    rows: tuple[TensorRow, ...]
    problem: str | None
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """All that can be said about a checkpoint without knowing its model.

    Attributes:
        path: the file.
        sha256: of its bytes.
        size: in bytes.
        format: the container.
        candidates: the sets of weights.
        extras: tensors beside the weights in a file of ours.
        recipe: how the weights were made, in a file of ours.
        meta: everything else, as JSON has it.
        notices: what was copied or left out while reading.
    """

    path: str
    sha256: str
    size: int
    format: str
    candidates: tuple[CandidateSummary, ...]
    extras: tuple[TensorRow, ...]
    recipe: dict[str, Any] | None
    meta: dict[str, Any]
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, every field by its name."""
        return {"schema": 1, **asdict(self)}


def describe(checkpoint: Checkpoint) -> Description:
    """Describe a checkpoint that was read.

    Args:
        checkpoint: what `read` returned.

    Returns:
        The description. A candidate that cannot be used says why in its `problem`; nothing is raised.
    """
    return Description(
        path=str(checkpoint.path),
        sha256=checkpoint.sha256,
        size=checkpoint.size,
        format=checkpoint.format,
        candidates=tuple(_candidate(checkpoint, name) for name in checkpoint.candidates),
        extras=tuple(_row(key, item, {}) for key, item in checkpoint.extras.items()),
        recipe=checkpoint.recipe,
        meta=checkpoint.meta,
        notices=checkpoint.notices,
    )


def _candidate(checkpoint: Checkpoint, name: str) -> CandidateSummary:
    """One set of weights, with what using it would say."""
    state = checkpoint.candidates[name]
    problem: str | None = None
    notices: tuple[str, ...] = ()
    prefix, plain = "", state
    try:
        plain, prefix, _ = strip(state)
        weights = checkpoint.weights(name)
        notices = tuple(notice for notice in weights.notices if notice not in checkpoint.notices)
    except LandscapeError as error:
        problem = str(error)
    shapes = {key: tuple(item.shape) for key, item in plain.items()}
    distinct = {id(item): item.numel() for item in state.values() if item.is_floating_point()}
    unusable = checkpoint.unusable.get(name, {})
    rows = tuple(_row(key, item, unusable) for key, item in state.items())
    return CandidateSummary(name, len(state), sum(distinct.values()), prefix, guess(shapes), rows, problem, notices)


def _row(key: str, tensor: Tensor, unusable: dict[str, str]) -> TensorRow:
    """One line of the table."""
    return TensorRow(key, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), unusable.get(key))
