"""Which way products with the Hessian of a sharded network are made: exact, or by finite differences of gradients."""

import warnings
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from landscape.errors import NumericalError
from landscape.machine.distributed import LostError
from landscape.sharded.exact_products import ExactProducts
from landscape.sharded.finite_differences import DifferenceProducts, Product

if TYPE_CHECKING:
    from landscape.sharded.sharded_objective import ShardedObjective

Method = Literal["auto", "exact", "differences"]

# What gradient, symmetry and a difference of gradients may deviate by, relative: for float64 and for float32.
_GRADIENT, _SKEW, _APART = (1e-9, 1e-3), (1e-8, 1e-3), (0.02, 0.1)
# Steps of that difference, in eps^(1/3) ||theta||: a kink or a strong fourth derivative spoils one of them.
_STEPS = (1.0, 1 / 16, 16.0)


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

    The checks of exact products: the gradient is that of `backward`, through the hooks of `fully_shard`; u^T Hv = v^T Hu; Hv is
    near a difference of gradients. They find what autograd does not see: a detached part, a layer that reads what is not an
    argument of it, a second derivative that is missing.

    Raises:
        NumericalError: method is "exact", and they are not to be had; the text says why.

    Cost: of the checks two products and three to seven gradients, once.
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
    """Exact products that passed the checks; None and the reason if there are none, in all processes alike."""
    products, why = None, None
    try:
        products = objective.exact_products()
        why = _wrong(objective, products)
    except LostError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, NotImplementedError, NumericalError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
    why = next((w for w in objective.members.everyone(why) if w is not None), None)
    return (products, "") if why is None else (None, why)


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
    start = float(torch.finfo(weights.dtype).eps) ** (1 / 3) * max(weights.norm(objective.theta), 1.0)
    apart = []
    for factor in _STEPS:
        near = DifferenceProducts(objective.gradient, objective.theta, weights, factor * start)(v[None])[0]
        apart.append(weights.norm(near - of_v))
        if apart[-1] <= _APART[fine] * hv**0.5 + 1e-6 * size:
            return None
    return f"they are {min(apart) / (hv**0.5 or 1.0):.1e} of their norm from differences of gradients"
