"""A series of checkpoints of one network, such as a training trajectory, read one at a time."""

import copy
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.checkpoints import shards
from landscape.checkpoints.checkpoint import read
from landscape.checkpoints.fitting.fit import aliases_of, match, tensors_of
from landscape.checkpoints.fitting.own_loader import OwnLoader
from landscape.checkpoints.parallel.distributed_folder import METADATA
from landscape.errors import LandscapeError, MismatchError, UsageError, printable
from landscape.machine import progress
from landscape.network.parameters import Layout

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".th")


class CheckpointFiles(Sequence[Tensor]):
    """The flat weights of a series of checkpoint files: `files[i]` reads the i-th.

    Files are read by `checkpoints.read` with all its checks, and their names are matched to the network's as in
    `checkpoints.fit`; the network itself is neither rebuilt nor changed. Buffers, and weights that are
    not in the layout, are ignored, except by `points`.

    Args:
        source: a folder, whose checkpoints are sorted by name in natural order (epoch-2 before epoch-10): files ending in
            .safetensors, .pt, .pth, .ckpt or .th, and subfolders that contain a `model.safetensors`, an index of shards or the
            `.metadata` of a distributed checkpoint;
            hidden ones are ignored. Or paths, in the order given.
        model: the network that the weights belong to; its names and shapes are recorded once.
        layout: which parameters to read, and their order in the flat vector; default: all trainable ones.
        weights: which set of weights, if a file contains several.
        least: smallest number of checkpoints.
        budget: as in `checkpoints.read`.
        keep: bytes of weights to keep in memory after reading, for the first files that fit; 0 keeps none.

    Raises:
        UsageError: the folder does not exist, or has fewer checkpoints than `least`.
        LandscapeError: on reading one, as `checkpoints.read`, `Checkpoint.weights` and `checkpoints.fit`; the message begins
            with the file's name.

    Cost: one `checkpoints.read` for each item that is not in memory: two passes over a safetensors file, otherwise some 2 s to
        start a process. A trajectory's principal directions read every file several times: store long ones as safetensors.

    Example:
        >>> import tempfile
        >>> from landscape.checkpoints.saving import save
        >>> net = nn.Linear(2, 1, bias=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for epoch in (10, 2):
        ...         save(f"{folder}/epoch-{epoch}.safetensors", {"weight": torch.full((1, 2), float(epoch))}, recipe={})
        ...     files = CheckpointFiles(folder, net)
        ...     files.names, [theta.tolist() for theta in files]
        (('epoch-2', 'epoch-10'), [[2.0, 2.0], [10.0, 10.0]])
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        model: nn.Module,
        layout: Layout | None = None,
        *,
        weights: str | None = None,
        least: int = 1,
        budget: int | None = None,
        keep: int = 1 << 28,
    ) -> None:
        folder = isinstance(source, str | os.PathLike)
        self.paths = checkpoint_paths(Path(source)) if isinstance(source, str | os.PathLike) else tuple(Path(p) for p in source)
        if len(self.paths) < least:
            where = f" in {source}" if folder else ""
            raise UsageError(
                f"expected at least {least} checkpoint{'s' if least > 1 else ''}{where}, found {len(self.paths)}",
                fix="keep them while training, e.g. landscape train TASK --keep-every 1",
            )
        model_state = tensors_of(model.state_dict(keep_vars=True))
        self._aliases = aliases_of(model_state)
        # Only shapes and dtypes, so that the series does not keep the network's memory alive.
        self._own = {key: _without_memory(item) for key, item in model_state.items()}
        self._loader = OwnLoader(model)
        self._layout = Layout.of(model) if layout is None else layout
        self._held = {name for name, _ in model.named_parameters()} - set(self._layout.names)
        self._weights, self._budget = weights, budget
        self._room, self._kept = keep, dict[Path, Tensor]()

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Float[Tensor, " P"]: ...
    @overload
    def __getitem__(self, index: slice) -> "CheckpointFiles": ...
    def __getitem__(self, index: int | slice) -> "Tensor | CheckpointFiles":
        if isinstance(index, slice):
            part = copy.copy(self)
            part.paths = self.paths[index]
            return part
        return self._read(self.paths[index])

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each checkpoint: of the file without its suffix, or of the folder."""
        return tuple(p.stem if p.suffix in SUFFIXES else p.name for p in self.paths)

    def points(self) -> Iterator[tuple[Float[Tensor, " P"], dict[str, Tensor]]]:
        """Flat weights of one file after another, and by name what the layout leaves out.

        That is: floating-point buffers, such as BatchNorm's running statistics, and weights that do not vary.
        """
        for path in self.paths:
            flat, tensors = self._tensors(path)
            yield flat, {k: t for k, t in tensors.items() if k in self._held or self._is_buffer(k, t)}

    def _is_buffer(self, name: str, tensor: Tensor) -> bool:
        """Whether this is a floating-point buffer of the network."""
        return not isinstance(self._own[name], nn.Parameter) and tensor.is_floating_point()

    def _tensors(self, path: Path) -> tuple[Float[Tensor, " P"], dict[str, Tensor]]:
        """The flat weights of one file, and all its tensors under the network's names."""
        try:
            with progress.listening(None):  # the reader of the series reports its own progress
                kept, _ = match(self._own, self._aliases, read(path, budget=self._budget).weights(self._weights), self._loader)
            return self._layout.flatten(kept), kept
        except LandscapeError as error:
            _renamed(error, path)

    def _read(self, path: Path) -> Float[Tensor, " P"]:
        """The flat weights of one file."""
        if path in self._kept:
            return self._kept[path].clone()
        flat, _ = self._tensors(path)
        if flat.nbytes <= self._room:
            self._room -= flat.nbytes
            self._kept[path] = flat.clone()
        return flat


def _without_memory(item: Tensor) -> Tensor:
    """Shape, dtype and kind of a tensor, without its data."""
    empty = torch.empty_like(item, device="meta", requires_grad=False)
    return nn.Parameter(empty, requires_grad=False) if isinstance(item, nn.Parameter) else empty


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key that orders numbers inside names by value.

    Example:
        >>> sorted(["epoch-10.pt", "epoch-9.pt", "epoch-2.pt"], key=natural)
        ['epoch-2.pt', 'epoch-9.pt', 'epoch-10.pt']
    """
    parts: list[str | int] = list(re.split("([0-9]+)", name))
    parts[1::2] = [int(number) for number in parts[1::2]]
    return parts, name


def checkpoint_paths(folder: Path) -> tuple[Path, ...]:
    """The checkpoints of a folder, in natural order.

    Raises:
        UsageError: the folder cannot be read.
    """
    try:
        entries = [folder / name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise UsageError(f"expected a folder of checkpoints, found {reason}: {folder}", fix="name another folder") from None
    chosen = [p for p in entries if _sharded(p) or (p.suffix in SUFFIXES and not os.path.isdir(p))]
    return tuple(sorted(chosen, key=lambda p: natural(p.name)))


def _sharded(path: Path) -> bool:
    """Whether a subfolder contains weights saved by a Hugging Face library, or by torch.distributed.checkpoint."""
    try:
        names = os.listdir(path) if os.path.isdir(path) else []
    except OSError:
        return False
    return any(name in ("model.safetensors", METADATA) or name.endswith(shards.SUFFIX) for name in names)


def _renamed(error: LandscapeError, path: Path) -> NoReturn:
    """Raise the error again with the file's name in front of its message."""
    renamed = type(error)(f"{printable(path.name, limit=120)}: {error.problem}", fix=error.fix)
    if isinstance(error, MismatchError) and isinstance(renamed, MismatchError):
        renamed.table = error.table
    raise renamed from error
