"""What curvature products of a network hold in memory, measured on a few samples, and the plan that follows for all of them."""

import weakref
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from landscape.curvature.engine import Engine
from landscape.curvature.method import PLAIN, TOGETHER
from landscape.errors import UsageError
from landscape.machine.arithmetic import grad_mode
from landscape.machine.distributed import ALONE
from landscape.machine.malloc import return_freed
from landscape.machine.memory import Affine, Plan, allowed, plan
from landscape.network.batches import Batch, counted, regrouped, split

# What arithmetic itself takes on a CPU once it runs: symbolic libraries that PyTorch loads at the first double backward,
# compiled kernels, the allocator's own. Measured: 65 to 85 MiB for networks of a few weights.
_RUNTIME = 80 << 20
# Copies of the weights that are there: the caller's network, our own, the one whose BatchNorms are folded, theta, its gradient.
_COPIES = 5
# What products take over what their tensors do: kernels need room while they run, allocators round up and leave holes. On a
# CPU freed blocks stay in the heap (`landscape.machine.malloc`), and where tensors differ in size 1.6 to 2.2 times was
# measured. Where that is too much the C library is told to return what is freed: 1.1 to 1.4 times then, and products take up to
# a third longer.
_LOOSE, _RETURNED, _GPU = 1.8, 1.3, 1.1
# Bytes of graph up to which batches are put together, so that Python's steps are few beside the work.
_JOINED = 4 << 20
# A product on fewer bytes than this is measured on more samples on a GPU, whose allocator rounds up.
_SMALL = 16 << 20


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make inside the block, as they come and go.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch would import its compiler, for a second or more, only to tell it to leave this mode alone."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
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
def planned(engine: Engine, theta: Tensor, budget: int | None) -> tuple[Plan, Engine]:
    """The plan for products of this network on its data, and the engine whose batches and graphs keep to it.

    Args:
        engine: network, loss and data.
        theta: (P,) weights.
        budget: bytes in each process; None for a share of what is free, the same for all of them.

    Raises:
        UsageError: the budget does not hold one sample.

    Cost: products on at most 16 samples, counted operation by operation.

    Accuracy: tensors are counted, not what a kernel takes for itself while it runs.
    """
    if budget is None:
        budget = min(engine.group.everyone(allowed(theta.device)))
    # Where a basis lies is each process's own affair.
    host = allowed(torch.device("cpu")) if theta.device.type == "cuda" else 0
    row = theta.nbytes
    norms = any(isinstance(m, _BatchNorm) for m in engine.model.modules())
    try:
        peak, held = _measured(engine, theta)
    except Exception:  # a network that cannot be differentiated so: the check that follows says why
        peak = held = Affine(0.0, 0.0)
    apart = engine.divisible
    if apart and not norms and held.each:  # for BatchNorm in training mode a batch is what the caller says it is
        engine = replace(engine, batches=_joined(engine, theta, held))
    sizes = _shared([len(b) for b in engine.batches], engine.group.size)

    def cut(margin: float) -> tuple[Plan, Engine]:
        most, alone = peak.times(margin), held.times(margin)
        found = plan(
            budget,
            _fixed(engine, theta),
            most,
            alone,
            sizes,
            len(theta),
            row,
            check=8 / theta.element_size(),
            cut=apart,
            host=host,
        )
        batches = engine.batches if found.batch >= max(sizes) else split(engine.batches, found.batch)
        return found, replace(engine, batches=batches, room=_room(found, most, alone), held=alone)

    if theta.device.type == "cuda":
        return cut(_GPU)
    with suppress(UsageError):
        found = cut(_LOOSE)
        if found[0].kept and found[0].batch == max(sizes):
            return found
    return_freed()
    return cut(_RETURNED)


def _room(found: Plan, peak: Affine, held: Affine) -> int:
    """Bytes that graphs may take which are kept between products, the rest of a product beside them."""
    return max(found.budget - found.fixed - int(peak.of(found.batch) - held.of(found.batch)), 0) if found.kept else -1


def _joined(engine: Engine, theta: Tensor, held: Affine) -> list[Batch]:
    """The batches, put together where they are small; the same ones whatever the way to compute products."""
    if len(engine.batches) == 1:
        return engine.batches
    if engine.method != PLAIN:
        held = _measured(replace(engine, method=PLAIN), theta)[1]
    most = int(_JOINED / held.each) if held.each else 0
    if most < 2 * max(map(len, engine.batches)):
        return engine.batches
    samples = sum(map(len, engine.batches))
    return regrouped(engine.batches, -(-samples // -(-samples // most)))  # of equal sizes


def _shared(sizes: list[int], processes: int) -> list[int]:
    """Sizes of the batches of the process that has most of them."""
    out, left = [], -(-sum(sizes) // processes)
    for n in sizes:
        if left > 0:
            out.append(min(n, left))
            left -= n
    return out


def _fixed(engine: Engine, theta: Tensor) -> int:
    """Bytes that are there before and between products."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for b in engine.batches for t in b.tensors}
    runtime, copies = (_RUNTIME, 2) if theta.device.type == "cpu" else (0, 1)  # a network is evaluated on batches of its own
    return runtime + copies * sum(storages.values()) + _COPIES * theta.nbytes


def _measured(engine: Engine, theta: Tensor) -> tuple[Affine, Affine]:
    """Bytes at the highest point of a product, and those of its graph alone, by the number of samples."""
    batch = max((b for b, _ in engine.weighted), key=lambda b: b.nbytes)
    if not engine.divisible:
        peak, held = _product(engine, theta, batch)
        return Affine(0.0, peak / len(batch)), Affine(0.0, held / len(batch))
    batch = counted([batch], 16)
    found = {n: _product(engine, theta, batch[:n]) for n in (1, min(2, len(batch)))}
    if theta.device.type == "cuda" and max(found.values())[0] < _SMALL and len(batch) >= 16:
        found = {n: _product(engine, theta, batch[:n]) for n in (8, 16)}
    (small, low), (large, high) = min(found.items()), max(found.items())
    lines = []
    for a, b in zip(low, high, strict=True):
        each = max(b - a, 0) / (large - small) if large > small else a
        lines.append(Affine(max(a - each * small, 0.0), each))
    return lines[0], lines[1]


def _product(engine: Engine, theta: Tensor, batch: Batch) -> tuple[float, float]:
    """Bytes at the highest point of a product on a batch, and those of its graph."""
    method = replace(engine.method, smallest=0)  # so few samples would pass every operation by
    trial = replace(engine, batches=[batch], group=ALONE, method=method, room=-1, held=Affine(0.0, 0.0))
    rows = torch.ones(TOGETHER if method.together else 1, len(theta), dtype=theta.dtype, device=theta.device)
    with _Allocated(theta.device) if theta.device.type == "cuda" else Live() as live, trial.derivatives(theta):
        graphs = list(trial.first_order(theta))
        held = live.now
        del graphs
        trial.hvp(theta, rows)
    return live.peak, held


class _Allocated:
    """The same as `Live` from the counters of the GPU's allocator."""

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
