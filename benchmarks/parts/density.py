"""Seconds to the spectral density from ten probes of as many Lanczos steps for every tool."""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from benchmarks.cases import Case
from benchmarks.parts import Options
from benchmarks.parts.tools import compete, opened, outcome
from benchmarks.record import Row
from benchmarks.reference import Product

PROBES = 10
STEPS = {"mlp": 80, "gpt": 20, "vit": 20, "resnet20": 10}


def run(case: Case, options: Options) -> Iterator[Row]:
    """Rows in seconds; `facts` has the integral of each density and how far its largest eigenvalue is from ARPACK's."""
    case = case.first(options.size("density", case.name))
    steps = options.steps or (5 if options.quick else STEPS[case.name])
    rows: list[Row] = []
    tools = opened("density", case, rows)
    yield from rows
    times = compete(tools, lambda session, meter, _: session.density(PROBES, steps, meter), options)
    top = _largest(case)
    for tool in tools:
        found = times[tool.name].result
        facts = {} if found is None else {"integral": found.integral, "largest": found.largest}
        if found is not None:
            off = [] if found.largest is None else [abs(found.largest / top - 1)]
            facts["deviation"] = max([abs(found.integral - 1), *off])
        yield outcome("density", case, f"{PROBES} probes of {steps} steps", tool, times[tool.name], lambda_max=top, **facts)


def _largest(case: Case) -> float:
    """The largest eigenvalue by ARPACK on the independent product."""
    product = Product(case, torch.float32)

    def matvec(x: np.ndarray) -> np.ndarray:
        return product(torch.from_numpy(np.ascontiguousarray(x.ravel(), dtype=np.float32))).numpy()

    operator = LinearOperator((product.dim, product.dim), matvec=matvec, dtype=np.float32)
    start = torch.randn(product.dim, generator=torch.Generator().manual_seed(3)).numpy()
    return float(eigsh(operator, k=1, which="LA", tol=1e-3, v0=start, return_eigenvectors=False)[0])
