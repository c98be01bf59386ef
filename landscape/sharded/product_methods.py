"""Which way products with the Hessian of a sharded network are made: exact, or by finite differences of gradients."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from landscape.errors import NumericalError
from landscape.sharded.exact_products import ExactProducts
from landscape.sharded.finite_differences import DifferenceProducts, Product

if TYPE_CHECKING:
    from landscape.sharded.sharded_objective import ShardedObjective

Method = Literal["auto", "exact", "differences"]

# What gradient, symmetry and a difference of gradients may deviate by, relative: for float64 and for float32.
_GRADIENT, _SKEW, _APART = (1e-9, 1e-3), (1e-8, 1e-3), (0.02, 0.1)
# Hv may be this many stated errors from a Richardson pair of differences. A single kink between the two gives 1.9 of them.
_ERRORS = 4.0
# A difference with a smaller error, relative, tells at once; else those with an error of at most so many of the smallest tell.
_SHARP, _NEAR = (1e-7, 3e-4), 3.0
# Steps, in eps^(1/3) ||theta||: a short one crosses no kinks, a long one rounds less.
_STEPS = (1.0, 1 / 16, 1 / 256, 16.0)
# Rounding of a gradient and of Hv, in units of eps of their norms.
_ROUNDING = (4.0, 64.0)


class ProductMethod(Protocol):
    """What Lanczos and traces need of a way to make products."""

    name: str
    count: int

    def __call__(self, block: Tensor) -> Tensor:
        """Products with rows."""

    def with_error(self, v: Tensor) -> Product:
        """A product with its error."""


def chosen(objective: "ShardedObjective", method: Method, step: float | None) -> ProductMethod:
    """Products of the method that was asked for; "auto" takes exact ones where they pass the checks.

    The checks of exact products: the gradient is that of `backward`, through the hooks of `fully_shard`; u^T Hv = v^T Hu; Hu or
    Hv is within 4 times the stated error of a difference of gradients, the sharpest of several steps. They find what autograd
    does not see: a detached part, a layer that reads what is not an argument of it, a missing second derivative. One is found
    down to some 1e-6 of Hv in float64 and 1e-3 in float32; across kinks, down to the error of differences there: that of
    the loss, or of one sample for each process if that is smaller.

    Raises:
        NumericalError: method is "exact", and they are not to be had; the text says why.
        LostError: a check failed in some of the processes only. Nothing falls back then: the others wait in a collective, until
            this process ends or the backend's timeout.

    Cost: of the checks two products and five gradients, once; where differences have large errors up to 33 gradients, and as
    many of few samples.
    """
    if method == "differences" or (method == "auto" and step is not None):
        return DifferenceProducts(objective.gradient, objective.theta, objective.weights, step)
    products, why = _exact(objective)
    if products is not None:
        return products
    if method == "exact":
        raise NumericalError(
            f"expected a sharded network that can be differentiated twice, found: {why}", fix='take method="differences"'
        )
    if objective.members.rank == 0:
        warnings.warn(f"products are finite differences of gradients, exact ones are not to be had: {why}", stacklevel=4)
    return DifferenceProducts(objective.gradient, objective.theta, objective.weights)


def _exact(objective: "ShardedObjective") -> tuple[ExactProducts | None, str]:
    """Exact products that passed the checks; None and the reason if there are none, in all processes alike.

    Raises:
        LostError: an error of some of the processes.
    """
    products, why, members = None, None, objective.members
    try:
        products = objective.exact_products()
    except Exception as error:  # of any kind: nothing was collective, so that all agree
        why = _line(error)
    why = next((w for w in members.everyone(why) if w is not None), None)
    if products is None or why is not None:
        return None, str(why)
    try:
        why = _wrong(objective, products)  # the same in all: it is made from sums over them
    except Exception as error:  # likewise, of the network's own code; the others may be inside a collective
        members.fail_together(error, alike=type(error).__name__)  # texts may tell of one device
        why = _line(error)
    return (products, "") if why is None else (None, why)


def _line(error: Exception) -> str:
    """First line of its text."""
    return str(error).partition("\n")[0] or type(error).__name__


def _wrong(objective: "ShardedObjective", products: ExactProducts) -> str | None:
    """What speaks against them; None if nothing does."""
    weights, fine = objective.weights, int(objective.weights.dtype != torch.float64)
    u, v = (weights.random(seed, "gaussian") for seed in (1, 2))
    own, of_u = products.gradient_and_product(u)
    gradient = objective.gradient()
    size = weights.norm(gradient)
    if not weights.norm(gradient - own) <= _GRADIENT[fine] * size + 1e-30:
        return f"their gradient is {weights.norm(gradient - own) / size:.1e} of its norm from that of backward"
    del own, gradient
    _, of_v = products.gradient_and_product(v)
    forth, back, uu, vv, hu, hv = weights.dots((u, of_v), (v, of_u), (u, u), (v, v), (of_u, of_u), (of_v, of_v))
    scale = (uu * hv) ** 0.5 + (vv * hu) ** 0.5
    if not abs(forth - back) <= _SKEW[fine] * scale + 1e-30:
        return f"they are not symmetric: u.Hv and v.Hu differ by {abs(forth - back) / scale:.1e} of their scale"
    why, error = _far(objective, [(v, of_v), (u, of_u)], size)
    if error <= _SHARP[fine] or (why is not None and _ERRORS * error <= _APART[fine]):
        return why
    with _few_samples(objective) as some:  # kinks at every step: few samples have few of them
        if not some:
            return why
        few = objective.exact_products()
        own, of_u = few.gradient_and_product(u)
        told, finer = _far(objective, [(v, few(v[None])[0]), (u, of_u)], weights.norm(own))
        return told if finer < error else why


@contextmanager
def _few_samples(objective: "ShardedObjective") -> Iterator[bool]:
    """The loss of one sample for each process, or of a batch that cannot be split; whether there are any that count."""
    kept = objective._batches, objective._total
    few = [(one, objective._weight(one)) for one in (batch.first(1) for batch, _ in kept[0][: objective.members.size])]
    few = [(one, weight) for one, weight in few if weight > 0]
    try:
        if few:
            objective._batches, objective._total = few, sum(weight for _, weight in few)
        yield bool(few)
    finally:
        objective._batches, objective._total = kept


def _far(objective: "ShardedObjective", products: list[tuple[Tensor, Tensor]], size: float) -> tuple[str | None, float]:
    """Whether products are further from differences of gradients than those are from the truth, and the error of the best.

    Args:
        objective: of the gradients.
        products: v and Hv.
        size: norm of the gradient.
    """
    weights, fine = objective.weights, int(objective.weights.dtype != torch.float64)
    eps = float(torch.finfo(weights.dtype).eps)
    start = eps ** (1 / 3) * max(weights.norm(objective.theta), 1.0)
    found = []  # relative error, relative distance, whether that is within the error
    for v, image in products:
        length, norm = weights.norm(v), weights.norm(image)
        for factor in _STEPS:
            step = factor * start
            near = DifferenceProducts(objective.gradient, objective.theta, weights, step).with_error(v)
            apart = weights.norm(near.vector.sub_(image))
            rounding = eps * (_ROUNDING[0] * size * length / step + _ROUNDING[1] * norm)
            error = near.error + rounding
            fits = apart <= min(_ERRORS * error, _APART[fine] * norm + _ERRORS * rounding)
            found.append((error / (norm or 1.0), apart / (norm or 1.0), fits))
            if fits and error <= _SHARP[fine] * norm:
                return None, error
    least = min(error for error, _, _ in found)
    if any(fits for error, _, fits in found if error <= _NEAR * least):
        return None, least
    error, apart, _ = min(found)
    return f"they are {apart:.1e} of their norm from differences of gradients, whose error is {error:.1e}", least
