"""hessian-eigenthings: Lanczos, Hutch++ and stochastic Lanczos quadrature on an operator of its own."""

import time

import numpy as np
import torch
from hessian_eigenthings.algorithms import lanczos, spectral_density, trace
from hessian_eigenthings.loss_fns.standard import (
    supervised_forward,
    supervised_loss,
    supervised_loss_of_output,
    supervised_per_sample_loss,
)
from hessian_eigenthings.operators import EmpiricalFisherOperator, GGNOperator, HessianOperator
from hessian_eigenthings.operators.base import LambdaOperator
from jaxtyping import Float
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers.plan import Plan
from benchmarks.peers.session import Density, Pairs, Session, Trace
from benchmarks.timing import Meter, SelfTimed


class Eigenthings(Session):
    """The graph is built again for every product."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.operator = HessianOperator(case.model, case.batches(), supervised_loss(case.loss))

    def alone(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        return self.operator.matvec(v)

    def matrix(self, kind: str, v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """Its operators for the two matrices, one vector after another."""
        case = self.case
        if kind == "ggn":
            operator = GGNOperator(case.model, case.batches(), supervised_forward, supervised_loss_of_output(case.loss))
        else:
            operator = EmpiricalFisherOperator(case.model, case.batches(), supervised_per_sample_loss(case.loss))
        return torch.stack([operator.matvec(row).detach() for row in v])

    def eigen(self, k: int, tol: float, spread: float, meter: Meter) -> SelfTimed:
        """With the fewest steps, in tens, that reach the accuracy by its own residuals: what a user would have to guess.

        The search costs nothing: a longer run repeats the products of a shorter one, which are remembered here; charged are
        the products of the longest run, once, and the algebra of the last call.
        """
        memory: list[Tensor] = []
        charged = 0.0
        for steps in range(2 * k, 10 * k * k + 1, 10):
            seen, spent = 0, 0.0

            def product(v: Tensor) -> Tensor:
                nonlocal seen, spent
                before = time.perf_counter()
                if seen == len(memory):
                    meter.count()
                    memory.append(self.operator.matvec(v))
                    spent += time.perf_counter() - before
                seen += 1
                return memory[seen - 1]

            lazy = LambdaOperator(product, self.operator.size)
            before = time.perf_counter()
            found = lanczos(lazy, k=k, max_iter=steps, which="LA", seed=0, tol=tol, reorthogonalize=True)
            algebra = time.perf_counter() - before - spent
            charged += spent
            if float(found.residuals.max()) <= tol * float(found.eigenvalues.abs().max()):
                break
        pairs = Pairs(
            found.eigenvalues.double().numpy(), found.eigenvectors, meter.products, f"{steps} steps, found out for nothing"
        )
        return SelfTimed(charged + algebra, pairs)

    def trace(self, accuracy: float, plan: Plan, meter: Meter) -> Trace:
        """The cheaper of its two estimators, with the products that it needs."""
        hutchpp = plan.hutchpp is not None and plan.hutchpp < plan.hutchinson
        products = plan.hutchpp if hutchpp else plan.hutchinson
        found = trace(self._metered(meter), num_matvecs=products, method="hutch++" if hutchpp else "hutchinson", seed=0)
        note = f"{'hutch++' if hutchpp else 'hutchinson'}, {products} products, as planned"
        return Trace(found.estimate, 1.96 * found.stderr, meter.products, note)

    def density(self, probes: int, steps: int, meter: Meter) -> Density:
        """Probes one after another, reorthogonalized."""
        found = spectral_density(self._metered(meter), num_runs=probes, lanczos_steps=steps, seed=0)
        area = float(torch.trapezoid(found.density, found.grid))
        return Density(area, float(np.nanmax(found.raw_eigenvalues.numpy())), meter.products)

    def _metered(self, meter: Meter) -> LambdaOperator:
        def product(v: Tensor) -> Tensor:
            meter.count()
            return self.operator.matvec(v)

        return LambdaOperator(product, self.operator.size)
