"""Seconds and value of one climb of Keskar's measure, beside scipy's L-BFGS-B on the same box with the same gradients."""

import time
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize

import landscape as ls
from benchmarks.cases import Case
from benchmarks.parts import Options
from benchmarks.record import OURS, Row, row
from benchmarks.reference import surface_loop
from benchmarks.timing import alternate

EPS = 1e-3
PAPER = 10  # iterations
STALL = 20  # iterations without a gain of 1e-4 of the growth: it has stalled


class Scipy:
    """L-BFGS-B as Keskar et al. used it: from the centre, inside the box, on the negative loss."""

    def __init__(self, objective: ls.Objective) -> None:
        self.objective, self.theta = objective, objective.theta
        self.radius = (EPS * (self.theta.abs() + 1)).double().numpy()
        self.centre = objective.value().value

    def run(self, iterations: int, goal: float = np.inf, limit: float = np.inf) -> dict[str, float | str]:
        """Until so many iterations are done, the value is above `goal`, or nothing moves any more."""
        best, calls, history, started, why = [0.0, self.theta], 0, [], time.perf_counter(), "its own stop"

        def negative(y: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal calls
            calls += 1
            point = self.theta + torch.from_numpy(y).to(self.theta)
            value, gradient = self.objective.value_and_gradient(point)
            if value - self.centre > best[0]:
                best[0], best[1] = value - self.centre, point
            return -value, -gradient.double().numpy()

        def watch(intermediate_result: OptimizeResult) -> None:
            nonlocal why
            history.append(best[0])
            stalled = len(history) > STALL and history[-1] - history[-STALL - 1] < 1e-4 * history[-1]
            late = time.perf_counter() - started > limit
            if self.per_cent(best[0]) >= goal or stalled or late:
                why = "value reached" if self.per_cent(best[0]) >= goal else "stalled" if stalled else "time"
                raise StopIteration

        bounds = list(zip(-self.radius, self.radius, strict=True))
        options = {"maxiter": iterations, "maxfun": 10 * iterations, "maxcor": 10, "ftol": 0.0, "gtol": 0.0}
        done = minimize(
            negative, np.zeros(len(self.radius)), jac=True, method="L-BFGS-B", bounds=bounds, callback=watch, options=options
        )
        if why == "its own stop" and done.nit >= iterations:
            why = f"{iterations} iterations"
        return {"value": self.per_cent(best[0]), "gradients": calls, "stop": why, "point": best[1]}

    def per_cent(self, growth: float) -> float:
        """phi = 100 growth / (1 + L)."""
        return 100 * growth / (1 + self.centre)


def run(case: Case, options: Options) -> Iterator[Row]:
    """Rows in seconds; `facts` has the values: each is a lower bound of the same maximum, so the higher is the better."""
    case = case.first(options.size("keskar", case.name))
    objective = ls.Objective(case.model, case.loss, case.batches())
    objective.preflight()
    peer = Scipy(objective)
    seeds = iter(range(1000))

    def ours() -> ls.Objective:
        # One climb: about as many gradients as scipy's ten iterations. The default goes on from more starts.
        return ls.keskar(objective, eps=EPS, method="climb", generator=torch.Generator().manual_seed(next(seeds)))

    first = alternate({OURS: ours}, repeats=1, budget=0.0, warm=False)[OURS]
    limit = options.allowed(first.median)
    jobs = {
        OURS: ours,
        f"scipy, {PAPER} iterations": lambda: peer.run(PAPER),
        "scipy, on to our value": lambda: peer.run(100_000, first.result.value, limit),
    }
    times = alternate(jobs, repeats=options.repeats, budget=options.budget, warm=False)
    for name, timed in times.items():
        facts: dict[str, object] = {}
        if timed.failure is None and name == OURS:
            facts = {"value": timed.result.value, "gradients": timed.result.n, "method": "climb"}
        elif timed.failure is None:
            found = timed.result
            truth = surface_loop(case, (found["point"] - peer.theta, torch.zeros_like(peer.theta)),
                                 np.array([[0.0, 0.0], [1.0, 0.0]]), torch.float64)  # fmt: skip
            exact = 100 * (truth[1] - truth[0]) / (1 + truth[0])
            facts = {k: found[k] for k in ("value", "gradients", "stop")} | {"deviation": abs(found["value"] / exact - 1)}
            timed.cut = found["stop"] == "time"
        yield row("keskar", case.name, f"ε = {EPS:g}", name, timed, samples=case.samples, **facts)
