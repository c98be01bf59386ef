"""Seconds to the ten largest eigenpairs; every tool's vectors are judged by one independent product."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.cases import Case
from benchmarks.parts import Options
from benchmarks.parts.tools import compete, opened, outcome
from benchmarks.peers.session import Pairs
from benchmarks.record import Row
from benchmarks.reference import Product, largest_difference, rayleigh_ritz
from benchmarks.timing import Meter, SelfTimed

TOL = 1e-3
SMALL = 100_000  # weights up to which the independent products are made in float64


def run(case: Case, options: Options) -> Iterator[Row]:
    """Rows in seconds; `facts` has true residuals, products, and how far the eigenvalues are from the best known."""
    case, k = case.first(options.size("eigen", case.name)), options.k
    rows: list[Row] = []
    tools = opened("eigen", case, rows)
    yield from rows

    def solve(session: Any, meter: Meter, ours: Pairs | None) -> Any:
        spread = 1.0 if ours is None or ours.values[-1] <= 0 else float(ours.values[0] / ours.values[-1])
        return session.eigen(k, TOL, spread, meter)

    times = compete(tools, solve, options)

    found: dict[str, Pairs] = {}
    for name, timed in times.items():
        pairs = timed.result.result if isinstance(timed.result, SelfTimed) else timed.result
        if pairs is not None:
            found[name] = pairs
    product = Product(case, torch.float64 if case.weights <= SMALL else torch.float32)
    images = {name: torch.stack([product(v) for v in pairs.vectors]) for name, pairs in found.items()}
    best = rayleigh_ritz(torch.cat([p.vectors.double() for p in found.values()]), torch.cat(list(images.values())), k)
    for tool in tools:
        facts: dict[str, object] = {}
        if tool.name in found:
            values, vectors = found[tool.name].values, found[tool.name].vectors.double()
            misses = (images[tool.name].double() - torch.from_numpy(np.asarray(values, float))[:, None] * vectors).norm(dim=1)
            relative = (misses / vectors.norm(dim=1) / best[0]).tolist()
            facts = {
                "pairs": len(values),
                "values": [float(v) for v in values],
                "relative_residuals": relative,
                "worst_residual": max(relative),
                "deviation": largest_difference(np.sort(values)[::-1], best[: len(values)]),
            }
        yield outcome("eigen", case, f"{k} pairs", tool, times[tool.name], **facts)
