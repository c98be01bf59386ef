"""What an Objective is made of, as hashes: whether a computation that is resumed is still the same one, and what changed."""

import hashlib
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from landscape.network.batches import Batch
from landscape.network.forward import ForwardPass
from landscape.network.identity.definition import definition, layers
from landscape.network.identity.hashes import content, named_tensors, sha256, whole_tensors


def fingerprints(engine: ForwardPass, theta: Tensor, metric: Callable[..., Any] | None) -> dict[str, str]:
    """SHA-256 of each part of a loss as a function of weights: its network, weights, buffers, data, loss, metric.

    The same in every process, on every device and for every size of micro-batch: samples are hashed in their order, one stream
    for each input. Tensors count with their dtype, shape and bytes.

    Args:
        engine: network, loss and data.
        theta: (P,) weights.
        metric: what is measured beside the loss.

    Returns:
        "network": names, shapes and order of the weights that vary; type, settings and own code of every layer;
        "weights": theta, and the weights that are held;
        "buffers": such as BatchNorm's statistics;
        "data": inputs and targets;
        "loss": of (output, target), its code, settings and class weights, and what is done to the outputs before;
        "metric".

    Accuracy: functions and classes count with their code as far as it can be looked into, see
        `landscape.network.identity.definition`; those of libraries by name and version, compiled ones by name. Bytecode differs
        between versions of Python.

    Cost: one reading of weights and data, about a second a gigabyte.
    """
    parameters = dict(engine.model.named_parameters())
    held = {name: p for name, p in parameters.items() if name not in engine.layout.names}
    layout = [(e.name, tuple(e.shape)) for e in engine.layout]
    return {
        "network": sha256([repr(layout), *layers(engine.model)]),
        "weights": sha256([*whole_tensors([theta]), *named_tensors(held)]),
        "buffers": sha256(named_tensors(dict(engine.model.named_buffers()))),
        "data": _data(engine.batches),
        "loss": sha256([definition(engine.loss.loss), definition(engine.transform)]),
        "metric": definition(metric),
    }


def _data(batches: list[Batch]) -> str:
    """All samples in order, however they are cut: a running hash for each input; its header again only where it changes."""
    digests: dict[str, Any] = {}
    headers: dict[str, str] = {}
    seen = 0
    for batch in batches:
        for path, leaf in pytree.tree_leaves_with_path((batch.args, batch.kwargs, batch.target)):
            key = pytree.keystr(path)
            digest = digests.setdefault(key, hashlib.sha256())
            header = f"{leaf.dtype} {tuple(leaf.shape[1:])}" if isinstance(leaf, Tensor) else definition(leaf)
            if headers.get(key) != header:
                headers[key] = header
                digest.update(f"|from sample {seen}: {header}|".encode())
            if isinstance(leaf, Tensor):
                digest.update(content(leaf))
        seen += len(batch)
    return sha256([str(seen), *(f"{key} {d.hexdigest()}" for key, d in sorted(digests.items()))])
