"""Several points of weight space evaluated at once by vmap, for networks so small that overhead dominates."""

import warnings
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from landscape.machine.arithmetic import exact_math
from landscape.network.forward import ForwardPass
from landscape.network.restored_state import unchanged
from landscape.results import Evaluation
from landscape.values.evaluation import Metric, fetched, scored, summaries
from landscape.values.inference import convolves, inference_network

# Bytes of the widest activation of one batch for all points together: what the caches of a few cores hold, or, on a GPU, what
# keeps it busy. Measured on digits networks: with 32 units, 32 points take a quarter of the time of one by one; with 512 units,
# where the arithmetic itself dominates, 8 points take three quarters.
_ROOM = {"cpu": 1 << 22, "cuda": 1 << 28}
_MOST, _FEWEST = 32, 8
# Values of the widest activation over all samples and points: about a quarter of a second of work on one core, which is the
# most that a killed process loses.
_WORK = 1 << 26


def evaluated_many(
    network: ForwardPass, theta: Float[Tensor, "k P"], buffers: Mapping[str, Tensor], metric: Metric | None = None
) -> list[Evaluation]:
    """Loss and accuracy at k points, equal to `landscape.values.evaluation.evaluated` at each up to rounding.

    Args:
        network: the model with its loss and data.
        theta: (k, P), one point in each row.
        buffers: replacements of the network's own, each with a leading dimension of k.
        metric: as in `evaluated`.

    Raises:
        RuntimeError, UserWarning, ...: an operation in the network or the metric cannot be vectorized.

    Cost: k forward passes, but the Python overhead of one; memory for k networks and their activations.
    """
    prepared = inference_network(network)

    def one(point: Tensor, held: dict[str, Tensor]) -> tuple[Tensor, ...]:
        each, score, means = scored(network, prepared, network.tensors(point) | held, metric)
        return tuple(t if t is not None else point.new_zeros(0, dtype=torch.float64) for t in (each, score, means))

    # Fused attention has no vmap rule. State that the pass leaves in the network belongs to vmap and is removed.
    with exact_math(derivatives=True), torch.enable_grad(), unchanged(prepared.module), warnings.catch_warnings():
        warnings.filterwarnings("error", "There is a performance drop")  # vmap fell back to a loop
        rows = vmap(one)(theta, dict(buffers))
    return summaries(prepared, *(fetched((row, None, None))[0] if row.shape[-1] else None for row in rows))


def stack_size(network: ForwardPass, metric: Metric | None) -> int:
    """Best number of points to evaluate at once: a power of 2; 1 if stacking gains nothing or is not possible.

    It depends on the network and its data alone, never on a clock.
    """
    prepared = inference_network(network)
    device = prepared.batches[0].target.device.type
    # Stacked convolutions become grouped ones, which are slow on a processor; a metric may do anything.
    if metric is not None or not network.loss.known or not prepared.widest or (convolves(prepared.module) and device == "cpu"):
        return 1
    longest, samples = max(map(len, prepared.batches)), len(prepared.weights)
    room = _ROOM.get(device, _ROOM["cpu"]) // (prepared.widest * longest)
    work = _WORK * prepared.own.itemsize // (prepared.widest * samples)
    size = min(room, work, _MOST)
    return 1 << (size.bit_length() - 1) if size >= _FEWEST else 1
