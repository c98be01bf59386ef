"""Extreme eigenvalues of the Hessian, and of the Hessian in units of the weights."""

import torch

from landscape.measures.registry import ELEMENTWISE, PLAIN, measure
from landscape.measures.running.shared_computations import eigenvalue_of, extremes_work, layer_norms
from landscape.measures.traced_network import in_whole_tensors
from landscape.objective import Objective
from landscape.results import Estimate


@measure(
    "lambda_max",
    unit="loss / weight^2",
    invariant_to=PLAIN,
    reference="Dinh et al. 2017, arXiv:1703.04933",
    work=extremes_work("plain"),
)
def lambda_max(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Largest eigenvalue of the Hessian of the mean loss, in algebraic order.

    lambda_max(H) = max over ||v|| = 1 of v^T H v, H = d2 L / d theta2. Largest algebraic, not largest magnitude. Layer-wise
    rescaling by alpha makes it at least max(alpha^-2 lambda_max(H_11), alpha^2 lambda_max(H_22)), which is unbounded.

    Args:
        objective: the network on its data.
        generator: generator of the Lanczos start vector; default seed 0.

    Returns:
        Kind "residual": an eigenvalue of H lies within `stderr` = ||Hv - lambda v||. `data_stderr` is the sampling error of
        v^T H_n v.

    Cost: typically 15 to 40 Hessian-vector products, and as many vectors of memory.

    Accuracy: relative residual 1e-4, so that the relative error of the value is of the order of 1e-8 / relative gap.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> round(lambda_max(Objective(net, nn.MSELoss(), (x, torch.zeros(2, 1)))).value, 5)
        4.0
    """
    return eigenvalue_of(objective, 0, generator)


@measure(
    "lambda_min",
    unit="loss / weight^2",
    invariant_to=PLAIN,
    reference="Li et al. 2018, arXiv:1712.09913, section 6",
    work=extremes_work("plain"),
)
def lambda_min(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Smallest eigenvalue of the Hessian of the mean loss, in algebraic order; negative at a saddle.

    lambda_min(H) = min over ||v|| = 1 of v^T H v. If it is negative, |lambda_min / lambda_max| measures how far from convex the
    loss is at this point.

    Args:
        objective: the network on its data.
        generator: generator of the Lanczos start vector; default seed 0.

    Returns:
        Kind "residual", as for `lambda_max`, from the same Lanczos run.

    Cost: shared with `lambda_max`.

    Accuracy: the residual is at most 1e-4 of the largest |eigenvalue|, not of lambda_min itself.
    """
    return eigenvalue_of(objective, -1, generator)


@measure(
    "adaptive_lambda_max",
    unit="loss",
    invariant_to=ELEMENTWISE,
    reference="Kwon et al. 2021, arXiv:2102.11600; Andriushchenko et al. 2023, arXiv:2302.07011",
    work=extremes_work("adaptive"),
)
def adaptive_lambda_max(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Largest eigenvalue of the Hessian in units of the weights, diag(|w|) H diag(|w|).

    Second-order form of elementwise adaptive sharpness: the largest growth of the loss if each weight changes in proportion
    to its size, including biases and norm layers. A rescaling D turns H into D^-1 H D^-1 and |w| into D|w|, so the product
    does not change: invariant to layer-wise and neuron-wise rescaling. It depends on the scale of the last layer, so compare
    networks of similar training loss.

    Args:
        objective: the network on its data.
        generator: generator of the Lanczos start vector; default seed 0.

    Returns:
        Kind "residual", unit of the loss.

    Cost: as for `lambda_max`.
    """
    return eigenvalue_of(objective, 0, generator, weight=objective.theta.abs())


@measure(
    "layer_relative_lambda_max",
    unit="loss",
    invariant_to=("layer",),
    reference="Rangamani et al. 2019, arXiv:1902.02434",
    work=extremes_work("layer"),
    default=False,
    only_if=in_whole_tensors,
)
def layer_relative_lambda_max(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Largest eigenvalue of the Hessian in units of the layers' norms, D H D with D = ||W_t|| for every tensor t.

    Layer-relative flatness: the largest curvature in the metric sum_t ||d_t||^2 / ||W_t||^2, in which each parameter tensor
    changes in proportion to its Euclidean norm. A layer-wise rescaling multiplies a tensor and its norm by the same factor,
    so the value does not change. A neuron-wise rescaling changes it.

    Args:
        objective: the network on its data.
        generator: generator of the Lanczos start vector; default seed 0.

    Returns:
        Kind "residual", unit of the loss.

    Cost: as for `lambda_max`; the Lanczos run is not shared.

    Reference: Rangamani et al. 2019, arXiv:1902.02434, who use the quotient metric of layer-wise rescalings. Deviation:
    biases and norm layers are separate tensors.
    """
    return eigenvalue_of(objective, 0, generator, weight=layer_norms(objective))
