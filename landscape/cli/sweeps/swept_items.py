"""The checkpoints of a sweep, and the record of each in the sweep's folder."""

import glob
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape.checkpoints.shards import SUFFIX
from landscape.errors import UsageError
from landscape.machine.files import open_regular, sealed, unsealed, write
from landscape.machine.json_values import plain

_LARGEST = 64 << 20  # bytes of one record
_ITEMS = "items"
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")  # files whose settings stand in another one beside them


@dataclass(frozen=True)
class Item:
    """A checkpoint of a sweep.

    Attributes:
        path: as given, or as its pattern gave it.
        id: digest of the path and of everything that determines the numbers besides the files: what its record is called.
    """

    path: Path
    id: str

    def version(self) -> str:
        """Digest of name, size, times and number of the checkpoint's file or files: another one once they are written anew."""
        inside = self.path.parent if self.path.name.endswith(SUFFIX) else self.path
        files = sorted(p for p in inside.rglob("*") if p.is_file()) if inside.is_dir() else [self.path]
        if self.path.name in _ADAPTERS:
            files.append(self.path.with_name("adapter_config.json"))
        told: list[list[str | int | None]] = []
        for path in files:
            try:
                found = path.stat()
            except OSError as error:
                told.append([str(path), error.strerror])
            else:
                told.append([str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino])
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def items_of(patterns: Sequence[str], settings: dict[str, Any]) -> list[Item]:
    """The checkpoints that paths and patterns name, each once, in natural order.

    Args:
        patterns: paths of checkpoints, or patterns with `*`, `?`, `[...]`, and `**` for folders at any depth.
        settings: everything that determines the numbers besides the files. JSON-able.

    Raises:
        UsageError: a pattern that matches nothing.
    """
    from landscape.checkpoints.series import natural

    found: dict[str, None] = {}
    for pattern in patterns:
        named = [pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True)
        if not named:
            raise UsageError(
                f"expected checkpoints that match {pattern!r}, found none", fix="check the path, and quote the pattern"
            )
        found |= dict.fromkeys(os.path.normpath(name) for name in named)
    told = json.dumps(plain(settings), sort_keys=True, default=str)
    return [
        Item(Path(name), hashlib.sha256(f"{told}\n{name}".encode()).hexdigest()[:32])
        for name in sorted(found, key=lambda name: [natural(part) for part in Path(name).parts])
    ]


class Records:
    """What is known of each checkpoint of a sweep: its measures, or why it has none. A file each, written whole.

    A record holds for a version of its file, as long as the network's code and the data are the same. That is looked up for one
    checkpoint of each set of code and data, so that a thousand checkpoints that are done need not be opened again.

    Args:
        folder: folder of the sweep.
        begun: when this command began; what failed before is tried again.
    """

    def __init__(self, folder: Path, begun: float | None = None) -> None:
        self._folder = folder / _ITEMS
        self._begun = time.time() if begun is None else begun
        self._done: dict[str, dict[str, Any]] = {}

    def known(self, item: Item) -> dict[str, Any] | None:
        """The record of an item, of any version of its file; None without one, or if it is damaged."""
        try:
            with open_regular(self.path(item)) as file:
                return unsealed(file.read(_LARGEST))
        except OSError:
            return None

    def current(self, item: Item) -> dict[str, Any] | None:
        """The record of an item that needs no more work as far as its file tells; a failure before this command does."""
        if item.id in self._done:
            return self._done[item.id]
        record = self.known(item)
        if record is None or record.get("version") != item.version():
            return None
        if "failed" in record and not record.get("lost") and record["at"] < self._begun:
            return None
        return record

    def done(self, item: Item) -> dict[str, Any] | None:
        """The record of an item that this command has made, or found to hold; else None."""
        return self._done.get(item.id)

    def trust(self, item: Item, record: dict[str, Any]) -> None:
        """Take a record as it is from now on."""
        self._done[item.id] = record

    def keep(self, item: Item, record: dict[str, Any]) -> None:
        """Write the record of an item.

        Raises:
            UsageError: it cannot be written.
        """
        whole = json.loads(json.dumps(plain(record | {"checkpoint": str(item.path), "at": time.time()})))
        self._folder.mkdir(parents=True, exist_ok=True)
        write(self.path(item), sealed(whole))
        self.trust(item, whole)

    def path(self, item: Item) -> Path:
        """The file of an item's record."""
        return self._folder / f"{item.id}.record"
