"""Many points of weight space through a network at once, for networks so small that a point is more steps than work."""

import warnings
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from landscape.machine.arithmetic import exact_math
from landscape.network.forward import ForwardPass
from landscape.network.unchanged import unchanged
from landscape.results import Evaluation
from landscape.values.evaluation import Metric, fetched, scored, summaries
from landscape.values.inference import convolves, network

# Bytes that the widest activation of one batch may take for all points together: what the caches of a few cores hold, or, on a
# GPU, what keeps it busy. Measured on digits networks: at 32 units 32 points take a quarter of the time one by one, at 512
# units, where the work itself is what takes time, 8 points three quarters.
_ROOM = {"cpu": 1 << 22, "cuda": 1 << 28}
_MOST, _FEWEST = 32, 8
# Values of the widest activation over all samples and points: about a quarter of a second of work on one core, which is what
# a process that is killed may lose.
_WORK = 1 << 26


def evaluated_many(
    engine: ForwardPass, theta: Float[Tensor, "k P"], buffers: Mapping[str, Tensor], metric: Metric | None = None
) -> list[Evaluation]:
    """Loss and accuracy at k points, as `landscape.values.evaluation.evaluated` at each, up to rounding.

    Args:
        engine: network, loss and batches.
        theta: a point a row.
        buffers: that replace the network's own, each with a leading dimension of k.
        metric: as there.

    Raises:
        RuntimeError, UserWarning, ...: the network, or the metric, does something that cannot be vectorized.

    Cost: k forward passes, but the steps through Python of one; memory for k networks and their activations.
    """
    found = network(engine)

    def one(point: Tensor, held: dict[str, Tensor]) -> tuple[Tensor, ...]:
        each, score, means = scored(engine, found, engine.tensors(point) | held, metric)
        return tuple(t if t is not None else point.new_zeros(0, dtype=torch.float64) for t in (each, score, means))

    # Fused attention has no rule for vmap; what a pass within one leaves in the network is of no use after it.
    with exact_math(derivatives=True), torch.enable_grad(), unchanged(found.module), warnings.catch_warnings():
        warnings.filterwarnings("error", "There is a performance drop")  # an operation is done point by point after all
        rows = vmap(one)(theta, dict(buffers))
    return summaries(found, *(fetched((row, None, None))[0] if row.shape[-1] else None for row in rows))


def stack_size(engine: ForwardPass, metric: Metric | None) -> int:
    """Points that are best evaluated at once: a power of 2; 1 where nothing is gained, or a network is not made for it.

    It follows from the network and its data alone, never from a clock.
    """
    found = network(engine)
    device = found.batches[0].target.device.type
    # A stack of convolutions is one with groups, which a processor's kernels do slowly; a metric may look at anything.
    if metric is not None or not engine.loss.known or not found.widest or (convolves(found.module) and device == "cpu"):
        return 1
    longest, samples = max(map(len, found.batches)), len(found.weights)
    room = _ROOM.get(device, _ROOM["cpu"]) // (found.widest * longest)
    work = _WORK * found.own.itemsize // (found.widest * samples)
    size = min(room, work, _MOST)
    return 1 << (size.bit_length() - 1) if size >= _FEWEST else 1
