"""Hashes of the parts of an Objective, to check that a resumed computation is still the same one, and name what changed."""

import hashlib
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from landscape.network.batches import Batch
from landscape.network.forward import ForwardPass
from landscape.network.identity.definition import definition, layers
from landscape.network.identity.hashes import content, named_tensors, sha256, whole_tensors
from landscape.network.outputs import Following


def fingerprints(network: ForwardPass, theta: Tensor, metric: Callable[..., Any] | None) -> dict[str, str]:
    """SHA-256 of each part of an objective: network, weights, buffers, data, loss and metric.

    The hashes are the same in every process, on every device and for every micro-batch size: samples are hashed in order, one
    stream for each input. Tensors count with their dtype, shape and bytes.

    Args:
        network: the model with its loss and data.
        theta: (P,) weights.
        metric: what is measured besides the loss.

    Returns:
        "network": names, shapes and order of the weights that vary; type, settings and user code of every layer;
        "weights": theta, and the weights that are held fixed;
        "buffers": such as BatchNorm's statistics;
        "data": inputs and targets;
        "loss": the function of (output, target) with its code, settings and class weights, and the transform of the outputs;
        "metric".

    Accuracy: functions and classes count with their code as far as it can be inspected, see
        `landscape.network.identity.definition`; library ones by name and version, compiled ones by name. Bytecode differs
        between versions of Python.

    Cost: one reading of weights and data, about a second for each gigabyte.
    """
    parameters = dict(network.model.named_parameters())
    held = {name: p for name, p in parameters.items() if name not in network.layout.names}
    layout = [(e.name, tuple(e.shape)) for e in network.layout]
    return {
        "network": sha256([repr(layout), *layers(network.model)]),
        "weights": sha256([*whole_tensors([theta]), *named_tensors(held)]),
        "buffers": sha256(named_tensors(dict(network.model.named_buffers()))),
        "data": data_digest(network.batches),
        "loss": sha256([definition(network.loss.loss), definition(network.transform), *_next(network)]),
        "metric": definition(metric),
    }


def _next(network: ForwardPass) -> list[str]:
    """What tells the loss of the next token from cross-entropy of the same logits."""
    return ["next token"] if isinstance(network.output, Following) else []


def data_digest(batches: list[Batch]) -> str:
    """SHA-256 of all samples in order, for any batching: one stream for each input, with a header where its type changes."""
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
