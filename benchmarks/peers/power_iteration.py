"""PyHessian: deflated power iteration, Hutchinson's trace, quadrature density."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyhessian
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers.plan import Plan
from benchmarks.peers.session import Density, Pairs, Session, Trace
from benchmarks.reference import flat, pieces
from benchmarks.timing import Meter, OutOfTime

MODULE: Any = sys.modules["pyhessian.hessian"]  # the package's own name of it is the class


class PyHessian(Session):
    """Given all samples as one batch: only then does it keep the graph of the gradient, which is its faster way."""

    keeps = True

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self._kept: Any = None

    def fresh(self) -> Any:
        """Its object, which differentiates once when it is made. Gradients of an earlier one must be gone: it adds to them."""
        for p in self.case.model.parameters():
            p.grad = None
        return pyhessian.hessian(self.case.model, self.case.loss, data=(self.case.x, self.case.y), cuda=False)

    def alone(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        self._kept = None
        self._kept = self.fresh()
        return self.more(v)

    def more(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        self._kept = self._kept or self.fresh()
        return flat(MODULE.hessian_vector_product(self._kept.gradsH, self._kept.params, pieces(v, self.case.model)))

    def eigen(self, k: int, tol: float, spread: float, meter: Meter) -> Pairs:
        """Stops where the eigenvalue moves little, which goes as the square of the residual: so is its tolerance here."""
        torch.manual_seed(0)
        note = f"tol {tol**2:.0e}, as the residual's square"
        with counted(meter):
            try:
                values, vectors = self.fresh().eigenvalues(maxIter=1000, tol=tol**2, top_n=k)
            except OutOfTime as late:
                frames = [frame.f_locals for frame, _ in traceback.walk_tb(late.__traceback__)]
                held = next(f for f in frames if "eigenvectors" in f)  # where it keeps the pairs that it has found
                if held["eigenvectors"]:
                    late.so_far = _pairs(held["eigenvalues"], held["eigenvectors"], meter, note)
                raise
        return _pairs(values, vectors, meter, note)

    def trace(self, accuracy: float, plan: Plan, meter: Meter) -> Trace:
        """With the probes that its estimator needs; its own stop, a mean that moves little, would bound nothing."""
        torch.manual_seed(0)
        with counted(meter):
            found = self.fresh().trace(maxIter=plan.hutchinson, tol=0.0)
        return Trace(float(np.mean(found)), None, meter.products, f"{plan.hutchinson} probes, as planned")

    def density(self, probes: int, steps: int, meter: Meter) -> Density:
        """Probes one after another."""
        torch.manual_seed(0)
        with counted(meter):
            nodes, weights = self.fresh().density(iter=steps, n_v=probes)
        return Density(float(np.sum(weights) / probes), float(np.max(nodes)), meter.products)


@contextmanager
def counted(meter: Meter) -> Iterator[None]:
    """Its products counted, and stopped when the time is up."""
    own = MODULE.hessian_vector_product

    def product(*args: Any) -> Any:
        meter.count()
        return own(*args)

    MODULE.hessian_vector_product = product
    try:
        yield
    finally:
        MODULE.hessian_vector_product = own


def _pairs(values: list[float], vectors: list[list[Tensor]], meter: Meter, note: str) -> Pairs:
    return Pairs(np.array(values), torch.stack([flat(v) for v in vectors]), meter.products, note)
