"""Trace and Frobenius norm of the Hessian, and the trace in units of the weights: all from sweeps of random probes."""

import torch
from torch import Tensor

from landscape import linalg
from landscape.measures.registry import measure
from landscape.measures.shared import once, operator, seeded, with_data_error
from landscape.objective import Objective
from landscape.results import Estimate

_PROBES = 64
# How many probes also measure the spread over samples: enough for a standard error of a standard error of some 10 %.
_DATA_PROBES = 4


@measure("trace", unit="loss / weight^2", invariant_to=(), reference="Hutchinson 1990; Yao et al. 2020, arXiv:1912.07145")
def trace(objective: Objective, *, probes: int = _PROBES, generator: torch.Generator | None = None) -> Estimate:
    """Trace of the Hessian of the mean loss.

    tr H = sum of all eigenvalues = E[z^T H z] for z of independent signs (Rademacher). Layer-wise rescaling by alpha turns
    it into alpha^-2 tr H_11 + alpha^2 tr H_22: as large as one likes, never below 2 sqrt(tr H_11 tr H_22).

    Args:
        objective: the network on its data.
        probes: number of random vectors z, at least 2.
        generator: of the probes; default seed 0.

    Returns:
        Kind "t": mean over probes, standard error with ddof = 1, Student's interval. `data_stderr` is the sampling error.

    Raises:
        UsageError: fewer than 2 probes.

    Cost: one product a probe; shared with `frobenius` for the same generator.

    Accuracy: variance (2 / probes)(||H||_F^2 - sum H_ii^2), unbiased.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> trace(Objective(net, nn.MSELoss(), (x, torch.zeros(2, 1)))).value
        5.0
    """
    return _trace(objective, probes, seeded(generator), None)


@measure("frobenius", unit="loss / weight^2", invariant_to=(), reference="Hutchinson 1990")
def frobenius(objective: Objective, *, probes: int = _PROBES, generator: torch.Generator | None = None) -> Estimate:
    """Frobenius norm of the Hessian of the mean loss.

    ||H||_F = sqrt(sum of squared eigenvalues) = sqrt(E ||Hz||^2) for z of independent signs.

    Args:
        objective: the network on its data.
        probes: number of random vectors z, at least 2.
        generator: of the probes; default seed 0.

    Returns:
        Kind "t"; the standard error of ||Hz||^2 carried through the square root to first order, which makes the value
        slightly too
        small: by about half its squared relative error.

    Cost: one product a probe; shared with `trace` for the same generator.
    """
    return _sweep(objective, probes, seeded(generator), None).frobenius()


@measure(
    "adaptive_trace",
    unit="loss",
    invariant_to=("layer", "node"),
    reference="Andriushchenko et al. 2023, arXiv:2302.07011; Tsuzuku et al. 2020, arXiv:1901.04653",
)
def adaptive_trace(objective: Objective, *, probes: int = _PROBES, generator: torch.Generator | None = None) -> Estimate:
    """Trace of the Hessian in units of the weights, sum_i w_i^2 H_ii.

    Second-order form of average-case elementwise adaptive sharpness: E[L(w + rho |w| z) - L(w)] = (rho^2 / 2) sum_i w_i^2
    H_ii + ... Biases and norm layers included. Invariant to layer-wise and neuron-wise rescaling, term by term.

    Args:
        objective: the network on its data.
        probes: number of random vectors, at least 2.
        generator: of the probes; default seed 0.

    Returns:
        Kind "t", unit of the loss.

    Cost: one product a probe.
    """
    return _trace(objective, probes, seeded(generator), objective.theta.abs())


def _trace(objective: Objective, probes: int, generator: torch.Generator, weight: Tensor | None) -> Estimate:
    """Trace of H or of diag(w) H diag(w), with both its errors."""
    signs = torch.Generator().manual_seed(generator.initial_seed() + 1)
    estimate = _sweep(objective, probes, generator, weight).trace()
    rows = torch.randint(0, 2, (_DATA_PROBES, objective.dim), generator=signs).mul_(2).sub_(1).to(objective.theta)
    return with_data_error(objective, estimate, [r if weight is None else weight * r for r in rows])


def _sweep(objective: Objective, probes: int, generator: torch.Generator, weight: Tensor | None) -> linalg.ProbeSweep:
    """All probes in one sweep, remembered."""
    return once(
        objective,
        generator,
        ("sweep", probes, weight is not None),
        lambda: linalg.quadratic_forms(
            operator(objective, weight),
            objective.dim,
            probes=probes,
            generator=generator,
            dtype=objective.dtype,
            device=objective.device,
        ),
    )
