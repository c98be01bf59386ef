"""A series of checkpoints of one network, such as a training trajectory, read one at a time."""

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.checkpoints import shards
from landscape.checkpoints.checkpoint import read
from landscape.checkpoints.fitting.fit import aliases_of, match, tensors_of
from landscape.checkpoints.fitting.own_loader import OwnLoader
from landscape.errors import LandscapeError, MismatchError, UsageError, printable
from landscape.machine import progress
from landscape.network.parameters import Layout

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".th")


class CheckpointFiles(Sequence[Tensor]):
    """The flat weights of checkpoint files: `files[i]` reads the i-th.

    Files are read by `checkpoints.read`, with all its care, and their names are matched to the network's as by
    `checkpoints.fit`; the network itself is neither rebuilt nor touched. Buffers are left aside.

    Args:
        source: a folder, whose checkpoints are taken in natural order of their names (epoch-2 before epoch-10): files ending in
            .safetensors, .pt, .pth, .ckpt or .th, and subfolders that hold a `model.safetensors` or an index of shards; hidden
            ones are left out. Or paths, taken in the order given.
        model: the network that the weights belong to; its names and shapes are noted once.
        layout: which of its parameters, and where in the flat vector; all trainable ones if left out.
        weights: which set of weights, where a file holds several.
        least: how many checkpoints there must be.
        budget: as `checkpoints.read`.
        keep: bytes of weights that stay in memory once they were read, of the first files that fit; 0 keeps none.

    Raises:
        UsageError: no such folder, or fewer checkpoints than `least`.
        LandscapeError: on reading one, as `checkpoints.read`, `Checkpoint.weights` and `checkpoints.fit`; the message begins
            with the file's name.

    Cost: one `checkpoints.read` an item that is not in memory: for safetensors two passes over the file; else some 2 s to
        start a process. A trajectory's principal directions read every file several times: keep long ones as safetensors.

    Example:
        >>> import tempfile
        >>> from landscape.checkpoints.save import save
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
        self.paths = _found(Path(source)) if isinstance(source, str | os.PathLike) else tuple(Path(p) for p in source)
        if len(self.paths) < least:
            where = f" in {source}" if folder else ""
            raise UsageError(
                f"expected at least {least} checkpoint{'s' if least > 1 else ''}{where}, found {len(self.paths)}",
                fix="keep them while training, e.g. landscape train TASK --keep-every 1",
            )
        own = tensors_of(model.state_dict(keep_vars=True))
        self._aliases = aliases_of(own)
        # Shapes and dtypes only: the series must not keep the network's memory alive.
        self._own = {key: _without_memory(item) for key, item in own.items()}
        self._loader = OwnLoader(model)
        self._layout = Layout.of(model) if layout is None else layout
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
        """A name for each checkpoint: the file's without its ending, the folder's."""
        return tuple(p.stem if p.suffix in SUFFIXES else p.name for p in self.paths)

    def _read(self, path: Path) -> Float[Tensor, " P"]:
        """The flat weights of one file."""
        if path in self._kept:
            return self._kept[path].clone()
        try:
            with progress.listening(None):  # whoever reads a series tells how far it is
                kept, _ = match(self._own, self._aliases, read(path, budget=self._budget).weights(self._weights), self._loader)
            flat = self._layout.flatten(kept)
        except LandscapeError as error:
            _renamed(error, path)
        if flat.nbytes <= self._room:
            self._room -= flat.nbytes
            self._kept[path] = flat.clone()
        return flat


def _without_memory(item: Tensor) -> Tensor:
    """Shape, dtype and kind of a tensor."""
    empty = torch.empty_like(item, device="meta", requires_grad=False)
    return nn.Parameter(empty, requires_grad=False) if isinstance(item, nn.Parameter) else empty


def natural(name: str) -> tuple[list[str | int], str]:
    """A key that sorts numbers inside names by their value.

    Example:
        >>> sorted(["epoch-10.pt", "epoch-9.pt", "epoch-2.pt"], key=natural)
        ['epoch-2.pt', 'epoch-9.pt', 'epoch-10.pt']
    """
    parts: list[str | int] = list(re.split("([0-9]+)", name))
    parts[1::2] = [int(number) for number in parts[1::2]]
    return parts, name


def _found(folder: Path) -> tuple[Path, ...]:
    """The checkpoints of a folder, in natural order."""
    try:
        entries = [folder / name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise UsageError(f"expected a folder of checkpoints, found {reason}: {folder}", fix="name another folder") from None
    chosen = [p for p in entries if _sharded(p) or (p.suffix in SUFFIXES and not os.path.isdir(p))]
    return tuple(sorted(chosen, key=lambda p: natural(p.name)))


def _sharded(path: Path) -> bool:
    """Whether a subfolder holds weights as the Hugging Face libraries save them."""
    try:
        names = os.listdir(path) if os.path.isdir(path) else []
    except OSError:
        return False
    return any(name == "model.safetensors" or name.endswith(shards.SUFFIX) for name in names)


def _renamed(error: LandscapeError, path: Path) -> NoReturn:
    """Raise the error again with the file's name in front."""
    told = type(error)(f"{printable(path.name, limit=120)}: {error.problem}", fix=error.fix)
    if isinstance(error, MismatchError) and isinstance(told, MismatchError):
        told.table = error.table
    raise told from error
