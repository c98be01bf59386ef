"""SHA-256 of strings and tensors."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

Pieces = Iterator[str | memoryview]


def sha256(pieces: Iterable[str | memoryview], *, delimited: bool = True) -> str:
    """SHA-256 of a sequence of strings and bytes.

    Args:
        pieces: strings are encoded in UTF-8.
        delimited: precede each piece by its type and length, so that the boundaries between pieces count. False for strings
            that delimit themselves, as in the hashes of existing files.
    """
    digest = hashlib.sha256()
    for piece in pieces:
        raw = piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece
        if delimited:
            digest.update(f"{type(piece).__name__} {len(raw)} ".encode())
        digest.update(raw)
    return digest.hexdigest()


def content(t: Tensor) -> memoryview:
    """Bytes of a tensor's elements, in order; without dtype and shape."""
    flat = t.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def whole_tensors(tensors: Iterable[Tensor]) -> Pieces:
    """Dtype, shape and bytes of tensors, one after another."""
    for t in tensors:
        yield f"{t.dtype} {tuple(t.shape)}"
        yield content(t)


def named_tensors(tensors: Mapping[str, Tensor]) -> Pieces:
    """Tensors as in `whole_tensors`, each preceded by its name."""
    for name, t in tensors.items():
        yield name
        yield from whole_tensors([t])
