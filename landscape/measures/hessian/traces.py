"""Trace and Frobenius norm of the Hessian, and traces in units of the weights, from random probes."""

import torch

from landscape.linalg.probes import default_generator
from landscape.measures.paired.paired_traces import trace_to, trace_work
from landscape.measures.registry import ELEMENTWISE, HOMOGENEOUS, PLAIN, measure
from landscape.measures.running.shared_computations import layer_norms, sweep, sweep_work, with_data_error
from landscape.measures.traced_network import in_whole_tensors, with_means_of_batchnorm
from landscape.objective import Objective
from landscape.results import Estimate, Spent

_PROBES = 64


@measure(
    "trace",
    unit="loss / weight^2",
    invariant_to=PLAIN,
    reference="Hutchinson 1990; Yao et al. 2020, arXiv:1912.07145",
    work=trace_work("plain"),
)
def trace(
    objective: Objective,
    *,
    probes: int = _PROBES,
    relative_error: float = 0.0,
    exact: bool = False,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Trace of the Hessian of the mean loss.

    tr H = sum of all eigenvalues = E[z^T H z] for z of independent signs (Rademacher). Layer-wise rescaling by alpha turns
    it into alpha^-2 tr H_11 + alpha^2 tr H_22, which is unbounded and at least 2 sqrt(tr H_11 tr H_22).

    Args:
        objective: the network on its data.
        probes: number of random vectors z, at least 2.
        relative_error: target half-width of the 95 % interval, relative to the trace. The way that takes least is then chosen
            after a pilot, and `probes` is ignored. 0 uses `probes` probes.
        exact: take all pairs of a sample and a factor of its loss's curvature, so that tr G has no error; H - G has that of
            `relative_error` (0.05 if 0), or what four times the work of probes gives (`converged` tells), unless it has none.
            Where the loss has no pairs `reason` says "not exact" and why.
        generator: generator of the probes; default seed 0.

    Returns:
        Kind "t": Student's interval with ddof = 1. Kind "exact" where all pairs were taken and nothing else counts. To a
        relative error `reason` names the way: "exact diagonal", "control variate" or "probes". `data_stderr` is the sampling
        error.

    Raises:
        UsageError: fewer than 2 probes, or a negative relative error.

    Cost: one product per probe; shared with `frobenius` for the same generator. To a relative error a forward pass, and some
        100 to 1,000 gradients of single samples; where H has another trace than the Gauss-Newton matrix G, products of 8
        samples, at least 32, or some 20 of all samples where these are few. See `landscape.measures.paired.paired_traces`.

    Accuracy: variance (2 / probes)(||H||_F^2 - sum H_ii^2), unbiased.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> trace(Objective(net, nn.MSELoss(), (x, torch.zeros(2, 1)))).value
        5.0
    """
    return trace_to(objective, probes, generator, relative_error=relative_error, exact=exact)


@measure("frobenius", unit="loss / weight^2", invariant_to=PLAIN, reference="Hutchinson 1990", work=sweep_work("plain"))
def frobenius(objective: Objective, *, probes: int = _PROBES, generator: torch.Generator | None = None) -> Estimate:
    """Frobenius norm of the Hessian of the mean loss.

    ||H||_F = sqrt(sum of squared eigenvalues) = sqrt(E ||Hz||^2) for z of independent signs.

    Args:
        objective: the network on its data.
        probes: number of random vectors z, at least 2.
        generator: generator of the probes; default seed 0.

    Returns:
        Kind "t". The standard error is that of ||Hz||^2, propagated through the square root to first order. The square root
        makes the value too small by about half its squared relative error.

    Cost: one product per probe; shared with `trace` for the same generator.
    """
    return sweep(objective, probes, default_generator(generator)).frobenius()


@measure(
    "adaptive_trace",
    unit="loss",
    invariant_to=ELEMENTWISE,
    reference="Andriushchenko et al. 2023, arXiv:2302.07011; Tsuzuku et al. 2020, arXiv:1901.04653",
    work=trace_work("adaptive"),
)
def adaptive_trace(
    objective: Objective,
    *,
    probes: int = _PROBES,
    relative_error: float = 0.0,
    exact: bool = False,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Trace of the Hessian in units of the weights, sum_i w_i^2 H_ii.

    Second-order form of average-case elementwise adaptive sharpness: E[L(w + rho |w| z) - L(w)] = (rho^2 / 2) sum_i w_i^2
    H_ii + ... Biases and norm layers are included. Every term is invariant to layer-wise and neuron-wise rescaling.

    Args:
        objective: the network on its data.
        probes: number of random vectors, at least 2.
        relative_error, exact: as for `trace`, whose pairs are shared.
        generator: generator of the probes; default seed 0.

    Returns:
        Kind "t", or as for `trace`; unit of the loss.

    Cost: one product with diag(|w|) H diag(|w|) per probe. A weighted sum over the products of `trace` would have the same
    mean, but larger noise that changes under rescaling, so that the estimate would not be invariant.
    """
    return trace_to(objective, probes, generator, objective.theta.abs(), relative_error=relative_error, exact=exact)


@measure(
    "layer_relative_trace",
    unit="loss",
    invariant_to=("layer",),
    reference="Rangamani et al. 2019, arXiv:1902.02434",
    work=trace_work("layer"),
    default=False,
    only_if=in_whole_tensors,
)
def layer_relative_trace(
    objective: Objective,
    *,
    probes: int = 32,
    relative_error: float = 0.0,
    exact: bool = False,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Trace of the Hessian in units of the layers' norms, sum over tensors t of ||W_t||^2 tr H_tt.

    The average-case counterpart of `layer_relative_lambda_max`: the growth of the loss if each parameter tensor changes at
    random in proportion to its Euclidean norm. Layer-wise rescaling leaves it unchanged; neuron-wise rescaling does not.

    Args, Returns: as for `adaptive_trace`.

    Cost: one product with D H D per probe. A weighted sum over the products of `trace` would have the same mean, but noise
    that changes under rescaling.
    """
    return trace_to(objective, probes, generator, layer_norms(objective), relative_error=relative_error, exact=exact)


@measure(
    "weight_curvature",
    unit="loss",
    invariant_to=HOMOGENEOUS,
    also=with_means_of_batchnorm,
    reference="Liang et al. 2019, arXiv:1711.01530",
    work=lambda objective, settings: {"w^T H w": Spent(sweeps=3, products=3)},
)
def weight_curvature(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Curvature along the weights themselves, w^T H w: the second derivative of the loss as all weights are scaled together.

    d2 L((1 + t) w) / dt^2 at t = 0. A rescaling D turns w into Dw and H into D^-1 H D^-1, so it is invariant. It may be
    negative.

    Args:
        objective: the network on its data.
        generator: not used; nothing here is random.

    Returns:
        Kind "exact", unit of the loss; `data_stderr` is the sampling error.

    Cost: one product, and one pass for the error.

    Reference: Liang, Poggio, Rakhlin, Stokes 2019, arXiv:1711.01530, whose Fisher-Rao norm has the Fisher matrix in place of
    H; see `fisher_rao`.

    Example:
        L = mean (w x)^2 is quadratic in w: w^T H w = 2 L = 18 for w = 3, x = 1.
        >>> from torch import nn
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(net.weight, 3.0)
        >>> weight_curvature(Objective(net, nn.MSELoss(), (torch.ones(2, 1), torch.zeros(2, 1)))).value
        18.0
    """
    theta = objective.theta
    value = float((theta.double() * objective.hvp(theta).double()).sum())
    return with_data_error(objective, Estimate(value), [theta])
