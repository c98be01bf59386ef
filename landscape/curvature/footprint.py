"""Memory of a network's curvature products, measured on a few samples, and the resulting plan for all samples."""

import sys
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from landscape.curvature.engine import FEW, Engine
from landscape.curvature.method import PLAIN, TOGETHER, Method
from landscape.errors import UsageError
from landscape.machine.arithmetic import grad_mode, values
from landscape.machine.dispatch_mode import DispatchMode
from landscape.machine.distributed import ALONE
from landscape.machine.malloc import return_freed
from landscape.machine.memory import Affine, Plan, allowed, plan
from landscape.network.batches import Batch, counted, regrouped, split

# Memory that arithmetic on a CPU takes by itself: symbolic libraries that PyTorch loads at the first double backward, compiled
# kernels, the allocator's own. Measured: 30 to 85 MiB for networks of a few weights, by machine.
_RUNTIME = 80 << 20
# Copies of the weights: the caller's network, our own, theta, its gradient; and the network with folded BatchNorms.
_COPIES, _FOLDED = 4, 1
# Memory of products relative to that of their tensors: kernels need workspace, allocators round up and fragment. On a CPU,
# freed blocks stay in the heap (`landscape.machine.malloc`); with tensors of different sizes, 1.6 to 2.2 times was measured. If
# that is too much, the C library is set to return freed memory: then 1.1 to 1.4 times, and products take up to a third longer.
_LOOSE, _RETURNED, _GPU = 1.8, 1.3, 1.1
# Of a network whose vectors are larger than this, the tensors of the weights' sizes have mappings of their own, which do not
# fragment; and memory counts as tight where not so many vectors are left.
_MAPPED, _MANY = 64 << 20, 48
# Bytes of graph up to which batches are merged, so that Python overhead is small compared with the arithmetic.
_JOINED = 4 << 20
# On a GPU, whose allocator rounds up, products on fewer bytes than this are measured on more samples.
_SMALL = 16 << 20
# Most bytes of probabilities that are kept to save a seventh of the products with a vocabulary.
_PROBABILITIES = 1 << 30
# Bytes of graphs that the check in float64 on a few samples may take; with larger samples it is made on fewer of them, at
# least one.
_CHECKED = 1 << 27
# Vectors of that check that are alive when a gradient begins: the weights, their sizes, a direction, its product, one gradient,
# and the point of the other. The trial after it holds fewer.
_CHECK_VECTORS = 6


# Peak bytes of a product, bytes of its graph, and bytes more of a graph with the probabilities of a loss over a vocabulary, by
# all that they depend on besides the network: the method, whether samples may be processed separately, the dtype and number of
# the weights that vary, the samples' form, and how many are counted.
Measured = dict[tuple[Method, bool, torch.dtype, int, tuple[torch.Size, ...], int], tuple[Affine, Affine, Affine]]


class Live(DispatchMode):
    """Counts the bytes of tensors that operations create and free inside the block.

    Attributes:
        now: bytes alive.
        peak: largest number of bytes alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self._count(out)
        elif out is not None:
            pytree.tree_map_only(Tensor, self._count, out)
        return out

    def _count(self, t: Tensor) -> None:
        storage = t.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key).atexit = False

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key)


@grad_mode
def planned(engine: Engine, theta: Tensor, budget: int | None, known: Measured | None = None) -> tuple[Plan, Engine]:
    """The plan for products of this network on its data, and the engine with batches and graphs that follow it.

    Args:
        engine: network, loss and data.
        theta: (P,) weights.
        budget: bytes in each process; None for a share of the free memory, the same in all processes.
        known: what was measured before for this network; what is measured now is added.

    Raises:
        UsageError: the budget is too small for one sample.

    Cost: products on at most 16 samples, counted operation by operation.

    Accuracy: tensors are counted, but not the workspace of kernels.
    """
    if budget is None:
        budget = min(engine.group.everyone(allowed(theta.device)))
    # The processes need not agree on where a basis is stored.
    host = allowed(torch.device("cpu")) if theta.device.type == "cuda" else 0
    row = theta.nbytes
    norms = any(isinstance(m, _BatchNorm) for m in engine.model.modules())
    known = {} if known is None else known
    try:
        peak, held, more = _measured(engine, theta, known)
        # With few samples, vectors of weights hide the network's own logits, which are as large as their probabilities.
        peak = replace(peak, each=max(peak.each, held.each + more.each))
    except Exception:  # the check that follows reports why the network cannot be differentiated
        peak = held = more = Affine(0.0, 0.0)
    divisible = engine.divisible
    wide = 8 / theta.element_size()
    few = FEW if not divisible or not peak.each else min(max(int(_CHECKED / (wide * peak.each)), 1), FEW)
    engine = replace(engine, few=few)
    if divisible and not norms and held.each:  # BatchNorm in training mode needs the caller's batches
        engine = replace(engine, batches=_joined(engine, theta, held, known))
    sizes = _shared([len(b) for b in engine.batches], engine.group.size)

    def cut(margin: float) -> tuple[Plan, Engine]:
        apart = min(margin, _GPU) if margin != _LOOSE and row > _MAPPED else margin
        most, alone = (Affine(apart * a.once, margin * a.each) for a in (peak, held))
        fixed = _fixed(engine, theta)
        few = engine.few

        def check(samples: int) -> float:
            return wide * (_CHECK_VECTORS * row + most.of(min(samples, max(sizes))))

        while divisible and few > 1 and fixed + check(few) > budget:
            few //= 2
        chosen = plan(budget, fixed, most, alone, sizes, len(theta), row, check=check(few), cut=divisible, host=host)
        dense = False
        if chosen.kept and 0 < len(sizes) * more.once + more.each * sum(sizes) <= _PROBABILITIES:
            larger = most.plus(more), alone.plus(more)
            with suppress(UsageError):
                other = plan(budget, fixed, *larger, sizes, len(theta), row, check=check(few), cut=False, host=host)
                dense = other.kept
            if dense:
                chosen, (most, alone) = other, larger
        batches = engine.batches if chosen.batch >= max(sizes) else split(engine.batches, chosen.batch)
        room = _room(chosen, most, alone)
        return chosen, replace(engine, batches=batches, room=room, held=alone, few=few, probabilities=dense)

    if theta.device.type == "cuda":
        return cut(_GPU)
    with suppress(UsageError):
        loose = cut(_LOOSE)
        if loose[0].kept and loose[0].batch == max(sizes) and (row <= _MAPPED or loose[0].rest >= _MANY * row):
            return loose
    return_freed()
    return cut(_RETURNED)


def _room(chosen: Plan, peak: Affine, held: Affine) -> int:
    """Bytes available for kept graphs beside the rest of a product; -1 if graphs are not kept."""
    return max(chosen.budget - chosen.fixed - int(peak.of(chosen.batch) - held.of(chosen.batch)), 0) if chosen.kept else -1


def _joined(engine: Engine, theta: Tensor, held: Affine, known: Measured) -> list[Batch]:
    """The batches, merged if they are small; the same for every method of computing products."""
    if len(engine.batches) == 1:
        return engine.batches
    if engine.method != PLAIN:
        held = _measured(replace(engine, method=PLAIN), theta, known)[1]
    most = int(_JOINED / held.each) if held.each else 0
    if most < 2 * max(map(len, engine.batches)):
        return engine.batches
    samples = sum(map(len, engine.batches))
    return regrouped(engine.batches, -(-samples // -(-samples // most)))  # equal sizes


def _shared(sizes: list[int], processes: int) -> list[int]:
    """Sizes of the batches in the process with the most samples."""
    out, left = [], -(-sum(sizes) // processes)
    for n in sizes:
        if left > 0:
            out.append(min(n, left))
            left -= n
    return out


def _fixed(engine: Engine, theta: Tensor) -> int:
    """Bytes in use before and between products."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for b in engine.batches for t in b.tensors}
    runtime, copies = (_RUNTIME, 2) if theta.device.type == "cpu" else (0, 1)  # forward passes copy the batches
    return runtime + copies * sum(storages.values()) + (_COPIES + _FOLDED * (engine.folded is not None)) * theta.nbytes


def _measured(engine: Engine, theta: Tensor, known: Measured) -> tuple[Affine, Affine, Affine]:
    """As in `Measured`, as functions of the number of samples; known ones as they are."""
    batch = _largest(engine)
    one = batch[:1] if engine.divisible else batch
    key = engine.method, engine.divisible, theta.dtype, len(theta), tuple(t.shape for t in one.tensors), min(len(batch), 16)
    if key not in known:
        known[key] = _measure(engine, theta)
    return known[key]


def _largest(engine: Engine) -> Batch:
    """The batch of the most bytes."""
    return max((b for b, _ in engine.weighted), key=lambda b: b.nbytes)


def _measure(engine: Engine, theta: Tensor) -> tuple[Affine, Affine, Affine]:
    """Two products, counted."""
    batch = _largest(engine)
    if not engine.divisible:
        peak, held, more = (Affine(0.0, found / len(batch)) for found in _product(engine, theta, batch))
        return peak, held, more
    batch = counted([batch], 16)
    bytes_by_samples = {n: _product(engine, theta, batch[:n]) for n in (1, min(2, len(batch)))}
    if theta.device.type == "cuda" and max(bytes_by_samples.values())[0] < _SMALL and len(batch) >= 16:
        bytes_by_samples = {n: _product(engine, theta, batch[:n]) for n in (8, 16)}
    (small, low), (large, high) = min(bytes_by_samples.items()), max(bytes_by_samples.items())

    def line(a: float, b: float) -> Affine:
        each = max(b - a, 0) / (large - small) if large > small else a
        return Affine(max(a - each * small, 0.0), each)

    peak, held, more = (line(a, b) for a, b in zip(low, high, strict=True))
    return peak, held, more


def _product(engine: Engine, theta: Tensor, batch: Batch) -> tuple[float, float, float]:
    """Peak bytes of a product on a batch, bytes of its graph, and bytes more of a graph with probabilities."""
    method = replace(engine.method, smallest=0)  # with so few samples no operation would reach the threshold
    alone = replace(engine, batches=[batch], group=ALONE, method=method)
    trial = replace(alone, room=-1, held=Affine(0.0, 0.0), probabilities=False)
    rows = torch.ones(TOGETHER if method.together else 1, len(theta), dtype=theta.dtype, device=theta.device)
    with _counting(theta) as live, trial.derivatives(theta):
        graphs = list(trial.first_order(theta))
        held, more = live.now, 0
        del graphs
        trial.hvp(theta, rows)
        with values():  # without derivatives the loss is not computed in blocks
            trial.loss.mean(trial.forward(trial.tensors(theta), batch), batch.target)
    if trial.in_blocks(batch):
        whole = replace(trial, probabilities=True, room=sys.maxsize)
        with _counting(theta) as found, trial.derivatives(theta):
            graphs = list(trial.first_order(theta))
            before = found.now
            del graphs
            whole.hvp(theta, rows)  # the first product makes them
            more = max(found.now - before, 0)
        whole.release()
    return live.peak, held, more


def _counting(theta: Tensor) -> "Live | _Allocated":
    """A context that counts the bytes on the weights' device."""
    return _Allocated(theta.device) if theta.device.type == "cuda" else Live()


class _Allocated:
    """The counts of `Live`, from the GPU allocator's statistics."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak = device, 0

    def __enter__(self) -> "_Allocated":
        torch.cuda.reset_peak_memory_stats(self.device)
        self.before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = torch.cuda.max_memory_allocated(self.device) - self.before

    @property
    def now(self) -> int:
        return torch.cuda.memory_allocated(self.device) - self.before
