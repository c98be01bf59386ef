"""matfree: XTrace and Hutchinson's estimator in JAX, on the same network written in JAX (`jax_networks`).

JAX runs in this process, on as many threads as PyTorch has when it starts. A product is the gradient's derivative along v;
`jax.linearize` keeps what does not depend on v, which its further products and its traces use. The products of an estimator
come together by `vmap` where the network convolves: XLA computes a convolution inside a loop many times more slowly. Elsewhere
they come one after another, which is faster there. JAX's QR goes through scipy's BLAS, whose threads wait for one another on
tall matrices: it gets one. Compilation is charged to nobody (`ready`).
"""

import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# Read when the first array is made, from then on fixed; the machine's own choice are all its cores.
os.environ.setdefault("PJRT_NPROC", str(torch.get_num_threads()))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from jax import Array
from jax.custom_batching import sequential_vmap
from matfree import stochtrace
from threadpoolctl import ThreadpoolController

from benchmarks.cases import Case
from benchmarks.peers.jax_networks import Network, Point, carried
from benchmarks.peers.plan import Plan
from benchmarks.peers.session import Session, Trace
from benchmarks.timing import Meter

BLOCK = 16  # of Hutchinson's probes that are drawn together, between two looks at the clock


@partial(jax.jit, static_argnums=0)
def product(network: Network, point: Point, v: Array) -> Array:
    """H v, forward over reverse."""
    return jax.jvp(lambda w: jax.grad(network.loss)(w, point), (point.weights,), (v,))[1]


@partial(jax.jit, static_argnums=0)
def linearized(network: Network, point: Point) -> Callable[[Array], Array]:
    """The Hessian as a linear function, with what every product needs."""
    return jax.linearize(lambda w: jax.grad(network.loss)(w, point), point.weights)[1]


@jax.jit
def applied(hessian: Callable[[Array], Array], v: Array) -> Array:
    """H v of what was linearized."""
    return hessian(v)


@cache
def estimator(name: str, samples: int, together: bool) -> Any:
    """(Hessian, weights, key) -> (mean, standard error) of so many samples, compiled at its first call."""

    def applied(v: Array, hessian: Callable[[Array], Array]) -> Array:
        return hessian(v)

    integrand = applied if together else sequential_vmap(applied)

    def estimate(hessian: Callable[[Array], Array], weights: Array, key: Array) -> tuple[Array, Array]:
        if name == "xtrace":
            found = stochtrace.estimator_leave_one_out_mean_and_sem(
                stochtrace.leave_one_out_xtrace(), stochtrace.sampler_sphere(weights, num=samples)
            )
        else:
            found = stochtrace.estimator_monte_carlo_mean_and_sem(
                stochtrace.monte_carlo_trace(), stochtrace.sampler_signs(weights, num=samples)
            )
        return found(integrand, key, hessian)

    return jax.jit(estimate)


class Matfree(Session):
    """What is linearized holds the tensors of all samples at once, as one batch."""

    keeps = True

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.network, self.point = Network.of(case)
        self._kept: Any = None
        self._libraries = ThreadpoolController()

    def ready(self, plan: Plan | None = None) -> None:
        """Compile the products, or the estimator of a plan with what it needs."""
        if plan is None:
            v = torch.zeros(self.case.weights)
            self.alone(v)
            self.more(v)
            return
        name, products = cheapest(plan)
        hessian = self._linearized()
        for samples in set(blocks(name, products)):
            jax.block_until_ready(self._estimator(name, samples)(hessian, self.point.weights, jax.random.key(1)))

    def alone(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        return _back(product(self.network, self.point, carried(v)))

    def more(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        self._kept = self._kept or self._linearized()
        return _back(applied(self._kept, carried(v)))

    def trace(self, accuracy: float, plan: Plan, meter: Meter) -> Trace:
        """The cheaper of XTrace and Hutchinson's, with the products that it needs and the standard error that it gives."""
        name, products = cheapest(plan)
        hessian, sizes = self._linearized(), blocks(name, products)
        means, errors = [], []
        for size, key in zip(sizes, jax.random.split(jax.random.key(0), len(sizes)), strict=True):
            meter.count(2 * size if name == "xtrace" else size)
            with self._libraries.limit(limits=1, user_api="blas"):
                mean, error = self._estimator(name, size)(hessian, self.point.weights, key)
                means.append(float(mean))
                errors.append(float(error))
        shares = np.array(sizes) / sum(sizes)
        half = 1.96 * float(np.linalg.norm(shares * errors))
        return Trace(float(shares @ means), half, meter.products, f"{name}, {products} products, as planned")

    def _estimator(self, name: str, samples: int) -> Any:
        return estimator(name, samples, self.network.convolves)

    def _linearized(self) -> Any:
        return jax.block_until_ready(linearized(self.network, self.point))


def cheapest(plan: Plan) -> tuple[str, int]:
    """The estimator that takes fewest products, and how many."""
    if plan.xtrace is not None and plan.xtrace < plan.hutchinson:
        return "xtrace", plan.xtrace
    return "hutchinson", plan.hutchinson


def blocks(name: str, products: int) -> list[int]:
    """Samples that are drawn together: all of XTrace's, each with two products; Hutchinson's in nearly equal blocks."""
    if name == "xtrace":
        return [products // 2]
    count = -(-products // BLOCK)
    return [products // count + (i < products % count) for i in range(count)]


def _back(a: Array) -> Tensor:
    return torch.from_numpy(np.array(a))
