"""How many products each peer needs for eigenvalues to an accuracy: found out for nothing, for none stops by the error."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

Product = Callable[[Float[Tensor, " P"]], Float[Tensor, " P"]]
# Tolerances from loose to tight, and the most products looked at.
TOLERANCES = tuple(m * 10.0**-e for e in range(9) for m in (1.0, 0.3))
_MOST = 1000


@dataclass(frozen=True)
class Count:
    """What a peer needs.

    Attributes:
        way: its method and the setting that suffices.
        products: with it.
        error: max |value - eigenvalue| / lambda_1 that it then has.
        at_least: it was stopped there, short of the accuracy.
    """

    way: str
    products: int
    error: float
    at_least: bool = False


def counts(product: Product, dim: int, truth: Float[np.ndarray, " k"], accuracy: float) -> dict[str, Count]:
    """By peer, the cheapest setting of each that has the k largest eigenvalues to `accuracy` times the first."""
    ways = {"PyHessian": _power, "curvlinops": _arpack, "hessian-eigenthings": _lanczos}
    return {name: way(product, dim, truth, accuracy) for name, way in ways.items()}


def _error(values: Float[np.ndarray, " k"], truth: Float[np.ndarray, " k"]) -> float:
    """Of the worst of the values, beside the largest eigenvalue."""
    return float(np.abs(np.sort(values)[::-1] - truth).max() / abs(truth[0]))


def _arpack(product: Product, dim: int, truth: Float[np.ndarray, " k"], accuracy: float) -> Count:
    """`eigsh` as it comes, with the loosest tolerance that suffices; its basis of at least 20 vectors is filled first."""
    start = torch.randn(dim, generator=torch.Generator().manual_seed(0)).numpy()
    seen = 0

    def one(v: np.ndarray) -> np.ndarray:
        nonlocal seen
        seen += 1
        return product(torch.from_numpy(np.ascontiguousarray(v, dtype=np.float32).reshape(-1))).numpy()

    last = Count("eigsh", 0, np.inf)
    for tol in TOLERANCES:
        seen = 0
        operator = LinearOperator((dim, dim), matvec=one, dtype=np.float32)
        try:
            values = eigsh(operator, k=len(truth), which="LA", tol=tol, v0=start, return_eigenvectors=False)
        except ArpackError:
            break
        last = Count(f"eigsh, tol {tol:.0e}", seen, _error(values, truth))
        if last.error <= accuracy:
            return last
        if seen > _MOST:
            break
    return Count(last.way, last.products, last.error, True)


def _lanczos(product: Product, dim: int, truth: Float[np.ndarray, " k"], accuracy: float) -> Count:
    """Its Lanczos with the fewest steps that suffice; a longer run repeats the products of a shorter one: remembered."""
    algorithms = importlib.import_module("hessian_eigenthings.algorithms")
    operators = importlib.import_module("hessian_eigenthings.operators.base")
    memory: list[Tensor] = []
    steps, error = len(truth), np.inf
    for steps in range(len(truth), min(dim, _MOST // 5)):
        numbers: Iterator[int] = iter(range(steps))

        def one(v: Tensor, numbers: Iterator[int] = numbers) -> Tensor:
            if (number := next(numbers)) == len(memory):
                memory.append(product(v))
            return memory[number]

        lazy = operators.LambdaOperator(one, dim)
        found = algorithms.lanczos(lazy, k=len(truth), max_iter=steps, which="LA", seed=0, reorthogonalize=True)
        error = _error(found.eigenvalues.double().numpy(), truth)
        if error <= accuracy:
            return Count(f"lanczos, {steps} steps", steps, error)
    return Count(f"lanczos, {steps} steps", steps, error, True)


def _power(product: Product, dim: int, truth: Float[np.ndarray, " k"], accuracy: float) -> Count:
    """Power iteration with deflation that ends where a value changes by less than a tolerance: the loosest that suffices.

    As PyHessian's `eigenvalues` iterates and ends; made anew here, because its own keeps graphs of all samples.
    """
    last = Count("power iteration", 0, np.inf)
    for tol in TOLERANCES:
        generator, spent = torch.Generator().manual_seed(0), 0
        vectors: list[Tensor] = []
        values: list[float] = []
        while len(values) < len(truth) and spent < _MOST:
            v, value = torch.randn(dim, generator=generator), np.inf
            while spent < _MOST:
                for u in vectors:
                    v = v - (v @ u) * u
                v = v / v.norm()
                image, before, spent = product(v), value, spent + 1
                value = float(image @ v)
                if abs(value - before) / (abs(before) + 1e-6) < tol:
                    break
                v = image
            vectors.append(v)
            values.append(value)
        short = len(values) < len(truth)
        last = Count(f"power iteration, tol {tol:.0e}", spent, np.inf if short else _error(np.array(values), truth))
        if last.error <= accuracy:
            return last
        if spent >= _MOST:
            break
    return Count(last.way, last.products, last.error, True)
