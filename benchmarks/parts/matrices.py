"""Seconds of Gauss-Newton and empirical Fisher products beside one gradient of the unmodified network, in the same run."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import torch

from benchmarks.cases import Case
from benchmarks.parts import Options
from benchmarks.parts.hvp import deviation, gradient
from benchmarks.parts.tools import at_work, opened
from benchmarks.record import Row, absent, row
from benchmarks.reference import weighted_jacobian_product
from benchmarks.timing import alternate

MATRICES = {"ggn": "Gauss-Newton", "fisher": "empirical Fisher"}
MANY = 8


def run(case: Case, options: Options) -> Iterator[Row]:
    """Rows in gradients, of one product after another one and of each of eight; `facts` has the deviation from float64.

    Of sequences the tools' Fisher matrices differ, by tokens or by sequences: of those the Gauss-Newton products alone.
    """
    case = case.first(options.size("matrices", case.name))
    rows: list[Row] = []
    tools = opened("matrices", case, rows)
    yield from rows
    v = torch.randn(MANY, case.weights, generator=torch.Generator().manual_seed(1))
    able = [t for t in tools if hasattr(t.session, "matrix")]
    yield from (absent("matrices", case.name, t.name, "has neither matrix") for t in tools if t not in able)
    unit = "plain PyTorch"
    for kind, name in MATRICES.items():
        if kind == "fisher" and case.y.ndim > 1:
            continue
        work: dict[str, Callable[[], torch.Tensor | None]] = {unit: gradient(case)}
        for tool in able:
            for count in (1, MANY):
                work[f"{tool.name}/{count}"] = lambda t=tool, n=count, kind=kind: t.session.matrix(kind, v[:n])
        with at_work():
            for tool in able:
                with suppress(Exception):  # what is done once is charged to nobody; an error comes again below
                    tool.session.matrix(kind, v[:1])
            times = alternate(work, repeats=options.repeats, budget=options.budget)
            truth = weighted_jacobian_product(case, kind, v[0])
        yield row("matrices", case.name, "gradient", unit, times[unit], samples=case.samples)
        for tool in able:
            for count, words in ((1, "one more"), (MANY, "each of eight")):
                found = times[f"{tool.name}/{count}"]
                off = {} if found.result is None else {"deviation": deviation(found.result[0], truth)}
                # Round by round, so that what slowed a round down counts on both sides.
                same = len(found.seconds) == len(times[unit].seconds)
                per = [s * count for s in times[unit].seconds] if same else times[unit].median * count
                yield row("matrices", case.name, f"{name}, {words}", tool.name, found, per=per, unit="gradients",
                          note=tool.layout, samples=case.samples, **off)  # fmt: skip
