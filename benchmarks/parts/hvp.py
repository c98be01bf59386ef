"""Seconds of one Hessian-vector product beside one gradient of the unmodified network on the same data in the same run."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.parts import Options
from benchmarks.parts.tools import Opened, at_work, opened, prepare
from benchmarks.record import Row, row
from benchmarks.reference import Product, fast_attention, flat
from benchmarks.timing import SelfTimed, Timed, alternate

MANY = 8
CALLS = 3  # that a round's time is the median of, but for eight vectors: the first call finds the caches full of other tools'
WORK = {"alone": "one product alone", "more": "one more product", "each of eight": "each of eight together"}


def run(case: Case, options: Options) -> Iterator[Row]:
    """Rows in gradients; `facts` has each tool's deviation from the plain product in float64."""
    case = case.first(options.size("hvp", case.name))
    rows: list[Row] = []
    tools = opened("hvp", case, rows)
    prepare(tools)
    v = torch.randn(MANY, case.weights, generator=torch.Generator().manual_seed(1))
    work: dict[str, Callable[[], object]] = {"gradient": _several(gradient(case))}
    for tool in tools:
        s = tool.session
        work[f"{tool.name}/alone"] = _several(lambda s=s: s.alone(v[0]))
        if s.keeps:
            work[f"{tool.name}/more"] = _several(lambda s=s: s.more(v[0]))
        if s.batched:
            work[f"{tool.name}/each of eight"] = lambda s=s: s.many(v)
    with at_work():
        times = alternate(work, repeats=options.repeats, budget=2 * options.budget)
        truth = Product(case, torch.float64)(v[0])
    unit = times["gradient"]
    yield row("hvp", case.name, "gradient", "plain PyTorch", unit, samples=case.samples)
    yield from rows
    for tool in tools:
        for name in WORK:
            found = _of(times, tool, name)
            got = found.result.result if isinstance(found.result, SelfTimed) else found.result
            got = got[0] if got is not None and got.ndim > 1 else got
            facts = {} if got is None else {"deviation": deviation(got, truth)}
            vectors = MANY if name == "each of eight" and tool.session.batched else 1
            # Round by round, so that what slowed a round down counts on both sides; of what took too long there is but one.
            same = len(found.seconds) == len(unit.seconds)
            per = [s * vectors for s in unit.seconds] if same else unit.median * vectors
            yield row("hvp", case.name, WORK[name], tool.name, found, per=per, unit="gradients", note=_note(tool, name),
                      samples=case.samples, **facts)  # fmt: skip


def gradient(case: Case) -> Callable[[], Tensor]:
    """The yardstick: one gradient, channels_last, attention by its fastest kernel, batch after batch."""
    case = case.laid_out(channels_last=True)
    parameters, batches = list(case.model.parameters()), case.batches()

    def once() -> Tensor:
        total = torch.zeros(case.weights)
        with fast_attention():
            for x, y in batches:
                total += len(x) / case.samples * flat(torch.autograd.grad(case.loss(case.model(x), y), parameters))
        return total

    return once


def _several(once: Callable[[], Tensor]) -> Callable[[], SelfTimed]:
    """The median time of a few calls."""

    def calls() -> SelfTimed:
        seconds = []
        for _ in range(CALLS):
            started = time.perf_counter()
            found = once()
            seconds.append(time.perf_counter() - started)
        return SelfTimed(float(np.median(seconds)), found)

    return calls


def _of(times: dict[str, Timed], tool: Opened, name: str) -> Timed:
    """A tool that keeps nothing takes as long for one more; one that has no way for several does one after another."""
    for other in (name, "more", "alone"):
        if f"{tool.name}/{other}" in times:
            return times[f"{tool.name}/{other}"]
    raise KeyError(name)


def _note(tool: Opened, name: str) -> str:
    how = {"more": "" if tool.session.keeps else "keeps nothing", "each of eight": "" if tool.session.batched else "one by one"}
    return "; ".join(n for n in (how.get(name, ""), tool.layout) if n)


def deviation(found: Tensor, truth: Tensor) -> float:
    """||found - truth|| / ||truth||."""
    return float((found.double() - truth).norm() / truth.norm())
