"""Which way to compute curvature products is the fastest for this network here: a measured trial on its first samples."""

import time
from dataclasses import replace

import torch
from torch import Tensor

from landscape.curvature.engine import Engine
from landscape.curvature.method import PLAIN, TOGETHER, Method, takes_images
from landscape.errors import is_about_dtype
from landscape.machine.arithmetic import grad_mode
from landscape.machine.distributed import ALONE
from landscape.network.batches import counted

# Samples that the trial times a product on, and those that it checks it on in float64.
_TIMED, _CHECKED = 16, 8
# A way that is expected to be slower must be faster by this factor to be taken: what is within it is noise, and the same
# command should take the same way twice.
_MARGIN = 1.25
# Bytes of all graphs below which Python's steps are what takes time: there the clock would say little, and the way that makes
# the fewest steps a vector is taken unasked.
_SMALL = 16 << 20
# What they grow by with the samples, below which that holds for a product too, and several vectors go through them at once.
_FEW = 1 << 19
# Of the product's length; where a network insists on its dtype, rounding may move a sample across a rectifier's kink.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-2}


@grad_mode
def chosen(engine: Engine, theta: Tensor) -> Method:
    """The fastest way to compute Hessian-vector products that gives what the plain way gives.

    A small network goes without a trial, so that the same command takes the same way, and gives the same bits, on any day.
    Otherwise every candidate builds its graph and computes two products on the first samples. The fastest is taken; one that
    fails, or whose product differs from the plain one's in float64, is passed over, so that what is left at the end is the
    plain way itself.

    Args:
        engine: network, loss and data.
        theta: (P,) weights.

    Returns:
        Method, the same on all processes: the first one's clock decides.

    Cost: some 25 gradients on 16 samples.
    """
    alone = replace(engine, group=ALONE)
    timed = replace(alone, batches=[counted(engine.batches, _TIMED)], held=None)
    direction = torch.randn(1, len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(theta)
    try:
        truth = _Truth(replace(alone, batches=[counted(engine.batches, _CHECKED)]), theta, direction)
    except RuntimeError:  # so few samples have no second derivative, and nothing can be held against it
        return PLAIN
    # Where none of the candidates holds, as for a network that reads its images with `view`, rather these than nothing.
    folded = Method(folded=engine.folded is not None)
    unasked = [replace(folded, written_out=True), folded]
    graphs = replace(alone, held=None).graph_bytes
    if graphs(theta) < _SMALL:
        few = graphs(theta) - graphs(theta, 1) < _FEW and TOGETHER * theta.nbytes < _SMALL
        order = [*([replace(folded, together=True)] if few else []), folded]
    else:
        seconds = {m: found for m in candidates(engine) if (found := _seconds(timed, theta, direction, m)) is not None}
        order = sorted(seconds, key=lambda m: _handicapped(seconds, m))
        if order == [PLAIN]:  # nothing else ran
            order = unasked
        elif PLAIN in order[1:]:
            order = [*order[: order.index(PLAIN)], *unasked]
    return engine.group.agreed(next((m for m in order if truth.agrees(m)), PLAIN))


def candidates(engine: Engine) -> list[Method]:
    """Ways worth a trial, those first that are expected to be fast; the last is the plain one."""
    folded, images = engine.folded is not None, takes_images(engine.batches[0])
    best = Method(folded, True, images)
    # Where graphs do not even stay between products, what several vectors leave in memory on their way would not fit either.
    together = [replace(best, together=True)] if engine.room >= 0 else []
    return list(dict.fromkeys([best, *together, PLAIN]))


def _handicapped(seconds: dict[Method, float], method: Method) -> float:
    """Seconds, with the margin for every one but the first."""
    return seconds[method] * (1.0 if method == next(iter(seconds)) else _MARGIN)


def _seconds(engine: Engine, theta: Tensor, direction: Tensor, method: Method) -> float | None:
    """What a product takes once its graphs are built; None where this network cannot be differentiated so."""
    trial, k = replace(engine, method=method), 2 if method.together else 1
    times = []
    try:
        for _ in range(3):  # the first builds the graph
            _wait(theta)
            started = time.perf_counter()
            trial.hvp(theta, direction.expand(k, -1))
            _wait(theta)
            times.append((time.perf_counter() - started) / k)
    except Exception:  # whatever the user's own layers raise when they are not called as they expect
        return None
    return min(times[1:])


def _wait(t: Tensor) -> None:
    """Until the device has done what it was given."""
    if t.is_cuda:
        torch.cuda.synchronize(t.device)


class _Truth:
    """The plain product on a few samples, in float64 where the network can."""

    def __init__(self, engine: Engine, theta: Tensor, direction: Tensor) -> None:
        self.engine, self.theta, self.direction = engine.to(torch.float64), theta.double(), direction.double()
        try:
            self.product = self._of(PLAIN)
        except (RuntimeError, TypeError) as error:
            if not is_about_dtype(error):
                raise
            self.engine, self.theta, self.direction = engine, theta, direction
            self.product = self._of(PLAIN)

    def _of(self, method: Method) -> Tensor:
        method = replace(method, smallest=0)  # so few samples would pass every operation by
        return replace(self.engine, method=method).hvp(self.theta, self.direction.repeat(2 if method.together else 1, 1))[-1]

    def agrees(self, method: Method) -> bool:
        """Whether another way gives the same."""
        try:
            error = float(torch.linalg.vector_norm(self._of(method) - self.product))
        except Exception:  # as in the trial
            return False
        return error <= _TOLERANCE[self.product.dtype] * float(torch.linalg.vector_norm(self.product))
