"""The description of a checkpoint that `landscape inspect` prints."""

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from landscape.checkpoints.architecture import guess
from landscape.checkpoints.checkpoint import Checkpoint
from landscape.checkpoints.reading.safetensors_file import parse_json
from landscape.checkpoints.weights import strip
from landscape.errors import LandscapeError
from landscape.machine.files import open_regular

_LARGEST_CONFIG = 1 << 20  # bytes
_CONFIG = ("architectures", "model_type", "dtype", "torch_dtype", "tie_word_embeddings", "num_hidden_layers", "vocab_size")


@dataclass(frozen=True)
class TensorRow:
    """One tensor: its name in the file, its shape and dtype, and the reason if it cannot be a weight."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    unusable: str | None = None


@dataclass(frozen=True)
class CandidateSummary:
    """One set of weights.

    Attributes:
        name: the value for `--weights`.
        tensors: number of tensors.
        weights: number of elements of all floating-point tensors; tied ones count once.
        prefix: what is removed from every name before loading into a model.
        architecture: a guess from names and shapes, as text; None without a guess.
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
    """Everything known about a checkpoint without its model.

    Attributes:
        path: the file.
        sha256: of its bytes.
        size: in bytes.
        format: the container.
        candidates: the sets of weights.
        extras: tensors besides the weights, in a file that `save` wrote.
        recipe: how the weights were made, in a file that `save` wrote.
        meta: everything else, as JSON values; of a folder of transformers also what its config.json says, and its tokenizer.
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
        """A plain dictionary of all fields."""
        return {"schema": 1, **asdict(self)}


def describe(checkpoint: Checkpoint) -> Description:
    """Describe a checkpoint.

    Args:
        checkpoint: the result of `read`.

    Returns:
        The description. If a candidate cannot be used, its `problem` says why; no error is raised.
    """
    return Description(
        path=str(checkpoint.path),
        sha256=checkpoint.sha256,
        size=checkpoint.size,
        format=checkpoint.format,
        candidates=tuple(_candidate(checkpoint, name) for name in checkpoint.candidates),
        extras=tuple(_row(key, item, {}) for key, item in checkpoint.extras.items()),
        recipe=checkpoint.recipe,
        meta=checkpoint.meta | _beside(checkpoint.path),
        notices=checkpoint.notices,
    )


def _beside(path: Path) -> dict[str, Any]:
    """What the folder that transformers saved says of its model: entries of config.json, and the file of the tokenizer."""
    file = path.with_name("config.json")
    if not path.name.startswith("model") or not file.is_file() or file.stat().st_size > _LARGEST_CONFIG:
        return {}
    with contextlib.suppress(LandscapeError, OSError), open_regular(file) as opened:
        config = parse_json(opened.read(), file.name)
        found = {f"config.{name}": config[name] for name in _CONFIG if name in config}
        tokenizer = path.with_name("tokenizer.json")
        return found | ({"tokenizer": tokenizer.name} if found and tokenizer.is_file() else {})
    return {}


def _candidate(checkpoint: Checkpoint, name: str) -> CandidateSummary:
    """One set of weights, with the notices or the problem of using it."""
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
    """One row of the table."""
    return TensorRow(key, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), unusable.get(key))
