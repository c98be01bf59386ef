"""SHA-256 of texts and tensors."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

Pieces = Iterator[str | memoryview]


def sha256(pieces: Iterable[str | memoryview], *, delimited: bool = True) -> str:
    """SHA-256 of texts and bytes, one after another.

    Args:
        pieces: texts count in UTF-8.
        delimited: write each piece's type and length before it, so that no two sequences of pieces run together. False where
            the texts delimit themselves: files that are already written carry such hashes.
    """
    digest = hashlib.sha256()
    for piece in pieces:
        raw = piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece
        if delimited:
            digest.update(f"{type(piece).__name__} {len(raw)} ".encode())
        digest.update(raw)
    return digest.hexdigest()


def content(t: Tensor) -> memoryview:
    """A tensor's bytes, its elements in order; without dtype and shape."""
    flat = t.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def whole_tensors(tensors: Iterable[Tensor]) -> Pieces:
    """Tensors with dtype, shape and bytes, one after another."""
    for t in tensors:
        yield f"{t.dtype} {tuple(t.shape)}"
        yield content(t)


def named_tensors(tensors: Mapping[str, Tensor]) -> Pieces:
    """Tensors as `whole_tensors` has them, each after its name."""
    for name, t in tensors.items():
        yield name
        yield from whole_tensors([t])
