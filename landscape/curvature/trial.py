"""Choose the fastest method of computing curvature products for this network on this machine, by a trial on a few samples."""

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

# Samples on which the trial times a product, for each on which it checks it in float64.
_TIMED = 2
# A method that is expected to be slower must be faster by this factor to be chosen; smaller differences are noise, and the same
# command should choose the same method twice.
_MARGIN = 1.25
# Bytes of the weights above which methods are compared on few samples: a product in float64 takes some three of the others.
_MANY_WEIGHTS, _COMPARED = 128 << 20, 2
# Seconds of a product above which it is timed once.
_LONG = 0.3
# Bytes of all graphs below which Python overhead dominates. There timings would say little, and the method with the least
# overhead for each vector is chosen without a trial.
_SMALL = 16 << 20
# Growth of the graphs with the samples below which overhead also dominates a product, and several vectors go through at once.
_FEW = 1 << 19
# Relative to the product's length. In float32, for networks that refuse float64, rounding may move a sample across a kink.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-2}


@grad_mode
def chosen(engine: Engine, theta: Tensor) -> Method:
    """The fastest method for Hessian-vector products whose result equals that of the plain method.

    For a small network the choice is made without a trial, so that the same command always uses the same method and gives the
    same bits. Otherwise every candidate builds its graph and computes two products on the first samples (one if it takes long),
    and the fastest is chosen. A candidate that fails, or whose product differs from the plain one, is skipped; the plain method
    is the last resort. Products are compared in float64, to 1e-8: on some 8 samples, of a large network on two. If the network
    refuses float64 they are compared in its own dtype, to 1e-2 in float32.

    Args:
        engine: network, loss and data.
        theta: (P,) weights.

    Returns:
        Method, the same in all processes: the first one's clock decides.

    Cost: some 25 gradients on 16 samples; of a large network two products of each of two methods, and in float64 two on two
        samples.
    """
    alone = replace(engine, group=ALONE)
    timed = replace(alone, batches=[counted(engine.batches, _TIMED * engine.few)], held=None)
    direction = torch.randn(1, len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(theta)
    try:
        truth = _Truth(replace(alone, batches=[counted(engine.batches, engine.few)]), theta, direction)
    except RuntimeError:  # so few samples have no second derivative to compare with
        return PLAIN
    # Used if none of the candidates works, as for a network that reads its images with `view`.
    folded = Method(folded=engine.folded is not None)
    fallback = [replace(folded, written_out=True), folded]
    graphs = replace(alone, held=None).graph_bytes
    if graphs(theta) < _SMALL:
        flat = graphs(theta) - graphs(theta, 1) < _FEW and TOGETHER * theta.nbytes < _SMALL
        order = [*([replace(folded, together=True)] if flat else []), folded]
    else:
        seconds = {m: s for m in candidates(engine) if (s := _seconds(timed, theta, direction, m)) is not None}
        order = sorted(seconds, key=lambda m: _handicapped(seconds, m))
        if order == [PLAIN]:  # nothing else ran
            order = fallback
        elif PLAIN in order[1:]:
            order = [*order[: order.index(PLAIN)], *fallback]
    return engine.group.agreed(next((m for m in order if truth.agrees(m)), PLAIN))


def candidates(engine: Engine) -> list[Method]:
    """Methods worth a trial, in order of expected speed; the last is the plain one."""
    folded, images = engine.folded is not None, takes_images(engine.batches[0])
    best = Method(folded, True, images)
    # If graphs cannot even be kept between products, the intermediate results of several vectors would not fit either.
    fit = engine.room >= 0 and engine.layout.size * 4 <= _MANY_WEIGHTS
    together = [replace(best, together=True)] if fit else []
    return list(dict.fromkeys([best, *together, PLAIN]))


def _handicapped(seconds: dict[Method, float], method: Method) -> float:
    """Seconds, times the margin for every method but the first."""
    return seconds[method] * (1.0 if method == next(iter(seconds)) else _MARGIN)


def _seconds(engine: Engine, theta: Tensor, direction: Tensor, method: Method) -> float | None:
    """Seconds of a product once its graphs are built; None if the network cannot be differentiated by this method."""
    trial, k = replace(engine, method=method), 2 if method.together else 1
    times = list[float]()
    try:
        # The first builds the graph. Of short ones, the faster of two others counts; long ones say the same each time.
        while len(times) < 2 or (len(times) < 3 and times[-1] < _LONG):
            _wait(theta)
            started = time.perf_counter()
            trial.hvp(theta, direction.expand(k, -1))
            _wait(theta)
            times.append((time.perf_counter() - started) / k)
    except Exception:  # the user's layers may raise anything when called differently
        return None
    return min(times[1:])


def _wait(t: Tensor) -> None:
    """Wait until the device has finished its work."""
    if t.is_cuda:
        torch.cuda.synchronize(t.device)


class _Truth:
    """The plain product on a few samples, in float64 if the network allows it."""

    def __init__(self, engine: Engine, theta: Tensor, direction: Tensor) -> None:
        self.engine, self.theta, self.direction = engine, theta, direction
        if theta.nbytes > _MANY_WEIGHTS:
            engine = replace(engine, batches=[counted(engine.batches, min(_COMPARED, engine.few))])
        self.engine, self.theta, self.direction = engine.to(torch.float64), theta.double(), direction.double()
        self.engine.hold(self.theta)
        try:
            self.product = self._of(PLAIN)
        except (RuntimeError, TypeError) as error:
            if not is_about_dtype(error):
                raise
            self.engine, self.theta, self.direction = engine, theta, direction
            self.product = self._of(PLAIN)

    def _of(self, method: Method) -> Tensor:
        method = replace(method, smallest=0)  # with so few samples no operation would reach the threshold
        return replace(self.engine, method=method).hvp(self.theta, self.direction.repeat(2 if method.together else 1, 1))[-1]

    def agrees(self, method: Method) -> bool:
        """Whether another method gives the same product."""
        try:
            error = float(torch.linalg.vector_norm(self._of(method) - self.product))
        except Exception:  # as in the trial
            return False
        return error <= _TOLERANCE[self.product.dtype] * float(torch.linalg.vector_norm(self.product))
