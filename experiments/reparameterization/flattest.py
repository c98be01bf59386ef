"""How flat rescaling can make a network: the smallest trace of the Hessian over all factors, exactly.

In a rectified network with softmax cross-entropy the outputs are piecewise linear in each single weight, so that the Hessian's
diagonal is that of the Gauss-Newton matrix, which is not negative. After rescaling by factors exp(t) the trace is
sum_i H_ii exp(-2 (t_num(i) - t_den(i))), a convex function of t: its minimum is the smallest trace that any of these rescalings
can give.
"""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from landscape.reparam import Symmetries

# Factors between e^-12 and e^12: the trace does not depend on those of neurons that no sample activates.
_REACH = 12.0


def diagonal(model: nn.Module, x: Tensor, chunk: int = 8) -> dict[str, Tensor]:
    """Diagonal of the Hessian of the mean softmax cross-entropy of a rectified network, off its kinks; in the shape of each weight.

    (1/N) sum_n (sum_c p_c J_ci^2 - (sum_c p_c J_ci)^2), with J the derivatives of the logits and p their softmax. Targets do
    not matter.
    """
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def logits(own: dict[str, Tensor], sample: Tensor) -> tuple[Tensor, Tensor]:
        output = functional_call(model, own, (sample[None],))[0]
        return output, output

    total = {name: torch.zeros_like(p) for name, p in weights.items()}
    for part in x.split(chunk):
        derivatives, output = vmap(jacrev(logits, has_aux=True), (None, 0))(weights, part)
        p = output.softmax(1)
        for name, j in derivatives.items():
            mean = torch.einsum("nc,nc...->n...", p, j)
            total[name] += (torch.einsum("nc,nc...->n...", p, j**2) - mean**2).sum(0)
    return {name: t / len(x) for name, t in total.items()}


def flattest(curvature: Mapping[str, Tensor], symmetries: Symmetries, *, node: bool) -> Tensor:
    """The scales with the smallest trace, (neurons + 1,): one factor for each layer, or with `node` for each neuron.

    Args:
        curvature: the Hessian's diagonal, in the shape of each weight.
        symmetries: of the network.
    """
    groups = [unit.neurons[i : i + 1] for unit in symmetries for i in range(len(unit.neurons))] if node else [
        unit.neurons for unit in symmetries
    ]  # fmt: skip
    spread = torch.zeros(symmetries.neurons + 1, len(groups), dtype=torch.float64)
    for i, neurons in enumerate(groups):
        spread[neurons, i] = 1.0

    def value(t: np.ndarray) -> tuple[float, np.ndarray]:
        own = torch.tensor(t, requires_grad=True)
        trace = scaled_trace(curvature, symmetries, (spread @ own).exp())
        (gradient,) = torch.autograd.grad(trace.log(), own)
        return float(trace.log().detach()), gradient.numpy()

    bounds = [(-_REACH, _REACH)] * len(groups)
    options = {"maxiter": 5000, "maxfun": 20_000, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(value, np.zeros(len(groups)), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return (spread @ torch.tensor(found.x)).exp()


def scaled_trace(curvature: Mapping[str, Tensor], symmetries: Symmetries, scales: Tensor) -> Tensor:
    """The trace after rescaling: every weight's second derivative over the square of its factor."""
    total = torch.zeros((), dtype=torch.float64)
    for name, own in curvature.items():
        scaling = symmetries.scalings.get(name)
        total = total + (own if scaling is None else own / scaling.factor(scales) ** 2).sum()
    return total
