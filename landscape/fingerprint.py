"""What an Objective is made of, as hashes: whether a computation that is resumed is still the same one, and what changed."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from landscape.batches import Batch
from landscape.curvature import Engine

_PLAIN = (bool, int, float, str, bytes, type(None))


def fingerprints(engine: Engine, theta: Tensor, metric: Callable[..., Any] | None) -> dict[str, str]:
    """SHA-256 of each part of a loss as a function of weights: its network, weights, buffers, data, loss, metric.

    The same in every process, on every device and for every size of micro-batch: samples are hashed in their order, one stream
    for each input. Tensors count with their dtype, shape and bytes.

    Args:
        engine: network, loss and data.
        theta: (P,) weights.
        metric: what is measured beside the loss.

    Returns:
        "network": names, shapes and order of the weights that vary, type and settings of every layer;
        "weights": theta, and the weights that are held;
        "buffers": such as BatchNorm's statistics;
        "data": inputs and targets;
        "loss": of (output, target), with its settings and class weights, and what is done to the outputs before;
        "metric".

    Accuracy: a function and a layer's own code count by their name: a change inside them is not seen.

    Cost: one reading of weights and data, about a second a gigabyte.
    """
    parameters = dict(engine.model.named_parameters())
    held = {name: p for name, p in parameters.items() if name not in engine.layout.names}
    layout = [(e.name, tuple(e.shape)) for e in engine.layout]
    return {
        "network": _sha256([repr(layout), *_settings(engine.model)]),
        "weights": _sha256([*_stream([theta]), *_named(held)]),
        "buffers": _sha256(_named(dict(engine.model.named_buffers()))),
        "data": _data(engine.batches),
        "loss": _sha256([*_described(engine.loss.loss), *_described(engine.transform)]),
        "metric": _sha256(_described(metric)),
    }


def combined(parts: dict[str, str]) -> str:
    """One SHA-256 for all parts together."""
    return _sha256([repr(sorted(parts.items()))])


def _sha256(pieces: Iterable[str | memoryview]) -> str:
    """Of texts and bytes, each with its length before it, so that no two lots of pieces run together."""
    digest = hashlib.sha256()
    for piece in pieces:
        raw = piece.encode() if isinstance(piece, str) else piece
        digest.update(f"{type(piece).__name__} {len(raw)} ".encode())
        digest.update(raw)
    return digest.hexdigest()


def _bytes(t: Tensor) -> memoryview:
    """A tensor's elements in order."""
    flat = t.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _stream(tensors: Iterable[Tensor]) -> Iterable[str | memoryview]:
    """Tensors whole, one after another."""
    for t in tensors:
        yield f"{t.dtype} {tuple(t.shape)}"
        yield _bytes(t)


def _named(tensors: Mapping[str, Tensor]) -> Iterable[str | memoryview]:
    """Tensors with their names."""
    for name, t in tensors.items():
        yield name
        yield from _stream([t])


def _data(batches: list[Batch]) -> str:
    """All samples in order, however they are cut: a running hash for each input; its header again only where it changes."""
    digests: dict[str, Any] = {}
    headers: dict[str, str] = {}
    seen = 0
    for batch in batches:
        for path, leaf in pytree.tree_leaves_with_path((batch.args, batch.kwargs, batch.target)):
            key = pytree.keystr(path)
            digest = digests.setdefault(key, hashlib.sha256())
            header = f"{leaf.dtype} {tuple(leaf.shape[1:])}" if isinstance(leaf, Tensor) else _sha256(_described(leaf))
            if headers.get(key) != header:
                headers[key] = header
                digest.update(f"|from sample {seen}: {header}|".encode())
            if isinstance(leaf, Tensor):
                digest.update(_bytes(leaf))
        seen += len(batch)
    return _sha256([str(seen), *(f"{key} {d.hexdigest()}" for key, d in sorted(digests.items()))])


def _settings(module: nn.Module) -> Iterable[str]:
    """Every layer with its type and its plain attributes; `repr` would leave out many, such as label smoothing."""
    for name, layer in module.named_modules():
        plain = {k: v for k, v in vars(layer).items() if not k.startswith("_") and k != "training" and _is_plain(v)}
        yield f"{name}: {type(layer).__qualname__} {sorted(plain.items())!r}"


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, (tuple, list)) and all(map(_is_plain, value)))


def _described(thing: object) -> Iterable[str | memoryview]:
    """A loss, a metric, a function or a plain value, in words that are the same in every process."""
    if isinstance(thing, nn.Module):
        yield from _settings(thing)
        yield from _named(thing.state_dict())
    elif isinstance(thing, functools.partial):
        yield "partial"
        for part in (thing.func, *thing.args, *(x for pair in sorted(thing.keywords.items()) for x in pair)):
            yield from _described(part)
    elif isinstance(thing, Tensor):
        yield from _stream([thing])
    elif _is_plain(thing):
        yield repr(thing)
    else:
        yield str(getattr(thing, "__qualname__", type(thing).__qualname__))
