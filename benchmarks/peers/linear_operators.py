"""curvlinops: the Hessian as a linear operator, scipy's `eigsh` on it, its trace and density estimators."""

import numpy as np
import torch
from curvlinops import (
    EFLinearOperator,
    GGNLinearOperator,
    HessianLinearOperator,
    hutchinson_trace,
    hutchpp_trace,
    lanczos_approximate_spectrum,
    xtrace,
)
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers.plan import Plan
from benchmarks.peers.session import Density, Pairs, Session, Trace
from benchmarks.timing import Meter


class Metered(HessianLinearOperator):
    """Its operator, which says how many columns it was multiplied with."""

    meter: Meter | None = None

    def _matmat(self, M: list[Tensor]) -> list[Tensor]:
        if self.meter is not None:
            self.meter.count(M[0].shape[-1])
        return super()._matmat(M)


class Curvlinops(Session):
    """Nothing is kept between products; several go through `vmap` together."""

    batched = True

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.operator = Metered(case.model, case.loss, list(case.model.parameters()), case.batches(), check_deterministic=False)

    def alone(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        return (self.operator @ v).detach()

    def many(self, v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        return (self.operator @ v.T.contiguous()).detach().T

    def matrix(self, kind: str, v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """Its operators for the two matrices, made anew: that computes nothing."""
        made = GGNLinearOperator if kind == "ggn" else EFLinearOperator
        case, parameters = self.case, list(self.case.model.parameters())
        operator = made(case.model, case.loss, parameters, case.batches(), check_deterministic=False)
        return (operator @ v.T.contiguous()).detach().T

    def eigen(self, k: int, tol: float, spread: float, meter: Meter) -> Pairs:
        """ARPACK measures a residual against its own eigenvalue: `spread` = lambda_1 / lambda_k makes that the one asked."""
        operator = self._metered(meter).to_scipy()
        counted = LinearOperator(operator.shape, matvec=operator.matvec, dtype=np.float32)
        start = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(0)).numpy()
        values, vectors = eigsh(counted, k=k, which="LA", tol=tol * spread, v0=start)
        order = np.argsort(values)[::-1]
        rows = torch.from_numpy(np.ascontiguousarray(vectors.T[order]))
        return Pairs(values[order], rows, meter.products, f"eigsh, tol {tol * spread:.1e}")

    def trace(self, accuracy: float, plan: Plan, meter: Meter) -> Trace:
        """The cheapest of its three estimators, with the products that it needs; none gives an interval."""
        torch.manual_seed(0)
        choices = {"hutchinson": plan.hutchinson, "hutch++": plan.hutchpp, "xtrace": plan.xtrace}
        name = min(choices, key=lambda c: choices[c] or np.inf)
        estimator = {"hutchinson": hutchinson_trace, "hutch++": hutchpp_trace, "xtrace": xtrace}[name]
        value = estimator(self._metered(meter), num_matvecs=choices[name])
        return Trace(float(value), None, meter.products, f"{name}, {choices[name]} products, as planned")

    def density(self, probes: int, steps: int, meter: Meter) -> Density:
        """Probes one after another, without reorthogonalization; its interval of the spectrum comes from `eigsh` first."""
        torch.manual_seed(0)
        grid, density = lanczos_approximate_spectrum(self._metered(meter), steps, num_repeats=probes)
        return Density(float(torch.trapezoid(density, grid)), None, meter.products, "with eigsh for the interval")

    def _metered(self, meter: Meter) -> Metered:
        self.operator.meter = meter
        return self.operator
