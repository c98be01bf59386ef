"""Read any checkpoint that a training script writes, as plain tensors and plain data."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from landscape.checkpoints import shards
from landscape.checkpoints.reading import safetensors_file
from landscape.checkpoints.reading.contents import Contents
from landscape.checkpoints.reading.formats import Kind, open_checkpoint, sniff
from landscape.checkpoints.reading.isolate import parse_apart
from landscape.checkpoints.weights import TOP, Weights, choose
from landscape.errors import MalformedError, UsageError, printable
from landscape.machine import progress
from landscape.network.identity.hashes import content, sha256

EXTRA = "landscape."  # prefix of the extras in a safetensors file that `save` wrote
SEAL = "sha256 of tensors"  # key in the written recipe for the digest of all tensors
_ADAPTER_CONFIG = "adapter_config"
_MOST_CONFIG = 1 << 20  # bytes; PEFT writes some 1,500
_FORMATS: dict[Kind, str] = {
    "safetensors": "safetensors",
    "zip": "torch zip",
    "legacy pickle": "torch legacy pickle",
    "tar": "torch legacy tar",
}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a checkpoint file; no code in it has been run, imported or looked up.

    Attributes:
        path: the file.
        sha256: of the file's bytes; for a sharded checkpoint, of the index and its shards in the order of their names.
        format: "safetensors", "sharded safetensors", "torch zip" or "torch legacy pickle".
        size: bytes on disk.
        candidates: every set of weights in the file, by its key; "(top level)" if the file itself is one.
        unusable: why a tensor of a candidate cannot be a weight; the tensor is then on the `meta` device, with its shape.
        meta: everything else (epoch, hyper_parameters, args...), as JSON values.
        extras: tensors that `save` wrote besides the weights.
        recipe: the description that `save` wrote; None for any other file.
        notices: what was copied or left out while reading.
    """

    path: Path
    sha256: str
    format: str
    size: int
    candidates: dict[str, dict[str, Tensor]]
    unusable: dict[str, dict[str, str]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)
    recipe: dict[str, Any] | None = None
    notices: tuple[str, ...] = ()

    def weights(self, name: str | None = None) -> Weights:
        """One set of weights of the file, ready for a model.

        Prefixes that wrappers put before every name (`module.`, `_orig_mod.`, Lightning's `model.` or `net.`) are removed if
        all names have them. float16 and bfloat16 become float32 with a notice; integers are unchanged.

        Args:
            name: of the candidate; may be omitted if there is only one.

        Returns:
            The weights, the prefix that was removed, and notices of what was changed.

        Raises:
            UsageError: there are several candidates and no name, or the name is not one of them.
            MalformedError: a tensor is int8, float8, sparse, complex or without data.
            MismatchError: two names become equal when their prefixes are removed.
            NumericalError: weights are NaN or infinite.
        """
        chosen = choose(self.candidates, self.unusable, name, self.path.name)
        config = self.meta.get(_ADAPTER_CONFIG)
        adapter = config if isinstance(config, dict) else None
        return Weights(chosen.state, chosen.name, (*self.notices, *chosen.notices), chosen.prefix, adapter)


def read(path: str | os.PathLike[str], *, budget: int | None = None) -> Checkpoint:
    """Read a checkpoint safely: data only, without running any code that it refers to.

    The format is determined by the first bytes. A safetensors file is read in this process, after every entry of its header is
    checked. Any other file is checked for structure and then parsed by `torch.load(weights_only=True)` in a child process with
    limits on memory and time; only plain tensors and JSON are returned from it.

    Args:
        path: a file of torch.save or safetensors, `model.safetensors.index.json`, or a directory that contains one.
        budget: most bytes that the tensors may take; default: half of this machine's memory.

    Returns:
        The checkpoint.

    Raises:
        UsageError: the file does not exist, is not regular, is empty, cannot be read, or is larger than the budget.
        UnsafeError: reading would need code: a pickle that refers to more than data, a whole network, TorchScript, `.pt2`.
        MalformedError: the structure is broken, declares more data than the file contains, or contains no weights; or a
            checksum in the file (zip, and safetensors written by `save`) does not match.

    Cost:
        One pass over the file for its hash and one to read it; about 2 s to start the child, which safetensors does not need.
    """
    path = Path(path)
    budget = min(default_budget() if budget is None else budget, 1 << 48)
    if os.path.isdir(path):  # unlike Path.is_dir, False without permission
        path = shards.resolve(path)
    if path.name.endswith(shards.SUFFIX):
        sharded = shards.read_shards(path, budget=budget)
        contents = _flat(sharded.tensors, {})
        return _checkpoint(path, sharded.sha256, "sharded safetensors", sharded.size, contents)
    file, size = open_checkpoint(path)
    with file:
        kind = sniff(file, size, printable(path.name, limit=120))
        if kind == "safetensors":
            header = safetensors_file.read_header(file, size, budget=budget)
            contents = _flat(safetensors_file.read_tensors(file, header), header.metadata)
        elif size > budget:
            raise UsageError(f"expected at most {budget} bytes (the memory budget), found {size} bytes", fix="raise the budget")
        else:
            contents = parse_apart(file, kind, size, budget)
        contents.meta |= _adapter_config(path)
        return _checkpoint(path, _file_hash(file, size, path.name), _FORMATS[kind], size, contents)


def _adapter_config(path: Path) -> dict[str, Any]:
    """PEFT's configuration beside an adapter, which holds the scale."""
    beside = path.with_name(f"{_ADAPTER_CONFIG}.json")
    if not path.name.startswith("adapter_model.") or not beside.is_file():
        return {}
    file, size = open_checkpoint(beside)
    with file:
        if size > _MOST_CONFIG:
            raise MalformedError(
                f"expected at most {_MOST_CONFIG} bytes in {beside}, found {size}", fix="save the adapter again"
            )
        return {_ADAPTER_CONFIG: safetensors_file.parse_json(file.read(), beside.name)}


def _flat(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Contents:
    """The contents of a safetensors file: one flat mapping, with recipe and extras if `save` wrote it."""
    recipe = None
    meta: dict[str, Any] = dict(metadata)
    if "landscape" in metadata:
        recipe = safetensors_file.parse_json(metadata["landscape"].encode("utf-8", "surrogatepass"), "the recipe")
        del meta["landscape"]
        if isinstance(recipe, dict) and recipe.pop(SEAL, None) not in (None, seal(tensors)):
            raise MalformedError(
                "expected the tensors that the file was written with, found others: their SHA-256 differs",
                fix="the file is damaged: copy or train it again",
            )
    extras = {} if recipe is None else {key[len(EXTRA) :]: item for key, item in tensors.items() if key.startswith(EXTRA)}
    state = {key: item for key, item in tensors.items() if recipe is None or not key.startswith(EXTRA)}
    if not state:
        held = f"{len(extras)} extra tensors" if extras else "no tensors"
        raise MalformedError(f"expected weights, found no weights; the file holds {held}", fix="save model.state_dict()")
    unusable = {key: f"of {item.dtype}" for key, item in state.items() if item.dtype.is_complex}
    name = "state_dict" if recipe is not None else TOP
    return Contents({name: state}, {name: unusable} if unusable else {}, meta, extras, recipe)


def seal(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of tensors by name: dtypes, shapes and bytes. The safetensors format has no checksum of its own."""
    headers = {name: f"{name}|{t.dtype}|{tuple(t.shape)}|" for name, t in sorted(tensors.items())}
    return sha256((piece for name, header in headers.items() for piece in (header, content(tensors[name]))), delimited=False)


def _checkpoint(path: Path, sha256: str, form: str, size: int, contents: Contents) -> Checkpoint:
    """A Checkpoint from its contents."""
    return Checkpoint(
        path,
        sha256,
        form,
        size,
        contents.candidates,
        contents.unusable,
        contents.meta,
        contents.extras,
        contents.recipe,
        tuple(contents.notices),
    )


def _file_hash(file: BinaryIO, size: int, name: str) -> str:
    """SHA-256 of an open file."""
    digest = hashlib.sha256()
    file.seek(0)
    with progress.stage(f"hashing {printable(name, limit=40)}", total=-(-size // (1 << 24))) as advance:
        while block := file.read(1 << 24):
            digest.update(block)
            advance(1)
    return digest.hexdigest()


def default_budget() -> int:
    """Half of the machine's memory, or 4 GiB if it is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ValueError, OSError, AttributeError):
        return 4 << 30
