"""This toolkit, by its public names."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

import landscape as ls
from benchmarks.cases import Case
from benchmarks.peers.session import Density, Pairs, Session, Trace
from benchmarks.timing import Meter


class Landscape(Session):
    """`landscape.Objective` and what is computed from it."""

    keeps = batched = True

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.objective = ls.Objective(case.model, case.loss, case.batches())
        self.objective.preflight()
        # Graphs of one network at a time are kept between products: a product of this one makes the other's go.
        self._other = ls.Objective(nn.Linear(1, 1, bias=False), nn.MSELoss(), (torch.ones(2, 1), torch.ones(2, 1)))
        self._other.preflight()
        self._rounds = 0

    def forget(self) -> None:
        """Let everything go that the next product could profit from."""
        self._other.hvp(torch.ones(1))

    def alone(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        self.forget()
        return self.objective.hvp(v)

    def more(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        return self.objective.hvp(v)

    def many(self, v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        self.forget()
        return self.objective.hvp(v)

    def matrix(self, kind: str, v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """Products with the Gauss-Newton or the empirical Fisher matrix, one of which keeps its graphs."""
        return self.objective.ggnvp(v) if kind == "ggn" else self.objective.fishervp(v)

    def eigen(self, k: int, tol: float, spread: float, meter: Meter) -> Pairs:
        """Thick-restart Lanczos; stops by its true residuals."""
        self.forget()
        before = self.objective.spent.products
        found = ls.eigenpairs(self.objective, k, tol=tol, generator=self._fresh())
        return Pairs(found.values, found.vectors, self.objective.spent.products - before)

    def trace(self, accuracy: float, plan: object, meter: Meter) -> Trace:
        """The whole call, to the accuracy asked, by itself: the plan is for tools that cannot.

        The error from having only these samples is in it, which no peer gives.
        """
        self.forget()
        before = self.objective.spent.products
        estimate = ls.trace(self.objective, relative_error=accuracy, generator=self._fresh())
        low, high = estimate.interval() or (estimate.value, estimate.value)
        products = round(self.objective.spent.products - before)
        return Trace(estimate.value, (high - low) / 2, products, estimate.reason or "stops by itself")

    def density(self, probes: int, steps: int, meter: Meter) -> Density:
        """Stochastic Lanczos quadrature, all probes in one pass over the data."""
        self.forget()
        before = self.objective.spent.products
        found = ls.spectral_density(self.objective, probes=probes, steps=steps, generator=self._fresh())
        widths = torch.from_numpy(found.grid)
        area = float(torch.trapezoid(torch.from_numpy(found.density), widths))
        return Density(area, float(found.nodes.max()), self.objective.spent.products - before)

    def _fresh(self) -> torch.Generator:
        """Another seed each time: a repeat must not find what the last one remembered."""
        self._rounds += 1
        return torch.Generator().manual_seed(self._rounds)
