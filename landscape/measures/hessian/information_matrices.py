"""Gauss-Newton matrix and Fisher information: positive semidefinite curvature matrices."""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from landscape.errors import UsageError
from landscape.measures.paired.paired_traces import trace_to, trace_work
from landscape.measures.registry import HOMOGENEOUS, PLAIN, NotDefined, measure
from landscape.measures.running.shared_computations import eigenvalue_of, extremes_work, with_data_error
from landscape.measures.traced_network import with_means_of_batchnorm
from landscape.objective import Objective
from landscape.results import Estimate, Spent

_GGN = "Schraudolph 2002; Martens 2020, arXiv:1412.1193"
_FISHER = "Amari 1998; Martens 2020, arXiv:1412.1193"
_EMPIRICAL = "Kunstner et al. 2019, arXiv:1905.12558"

_of_matrix = partial(measure, unit="loss / weight^2", invariant_to=PLAIN, default=False)


@_of_matrix("gauss_newton_trace", reference=_GGN, work=trace_work("plain", "ggn"))
def gauss_newton_trace(
    objective: Objective,
    *,
    probes: int = 32,
    relative_error: float = 0.0,
    exact: bool = False,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Trace of the generalized Gauss-Newton matrix G = mean J_n^T (d2 loss / d output2) J_n.

    The part of the Hessian that comes from the curvature of the loss; positive semidefinite for a loss that is convex in the
    outputs. H - G vanishes if every sample is fitted, so at an interpolating minimum tr G is about tr H.

    Args:
        objective: the network on its data.
        probes: number of random vectors, at least 2.
        relative_error, exact: as for `trace`; `exact` takes one gradient of every sample for each of its outputs.
        generator: generator of the probes; default seed 0.

    Returns:
        Kind "t", as for `trace`; `data_stderr` is the sampling error.

    Cost: one Gauss-Newton product per probe; to a relative error as for `trace`.

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> gauss_newton_trace(Objective(net, nn.MSELoss(), (x, torch.zeros(2, 1)))).value
        5.0
    """
    return trace_to(objective, probes, generator, curvature="ggn", relative_error=relative_error, exact=exact)


@_of_matrix("gauss_newton_lambda_max", reference=_GGN, work=extremes_work("plain", "ggn"))
def gauss_newton_lambda_max(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Largest eigenvalue of the generalized Gauss-Newton matrix; see `gauss_newton_trace`. Kind "residual"."""
    return eigenvalue_of(objective, 0, generator, curvature="ggn")


@_of_matrix("fisher_trace", reference=_FISHER, work=trace_work("plain", "ggn"))
def fisher_trace(
    objective: Objective,
    *,
    probes: int = 32,
    relative_error: float = 0.0,
    exact: bool = False,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Trace of the Fisher information, F = mean over samples of E_{y ~ p(y | x_n)} grad log p grad log p^T.

    The labels are drawn from the model, not taken from the data. For cross-entropy F is the Gauss-Newton matrix of the plain
    loss, without label smoothing or class weights. For the squared error it is that of a Gaussian whose variance makes the
    loss its negative log-likelihood. Products are shared with `gauss_newton_trace` if the two matrices agree.

    Args, Returns: as for `gauss_newton_trace`.

    Raises:
        NotDefined: the loss is neither cross-entropy of class labels nor the squared error.

    Cost: one product per probe.
    """
    objective = _likelihood(objective)
    return trace_to(objective, probes, generator, curvature="ggn", relative_error=relative_error, exact=exact)


@_of_matrix("fisher_lambda_max", reference=_FISHER, work=extremes_work("plain", "ggn"))
def fisher_lambda_max(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Largest eigenvalue of the Fisher information; see `fisher_trace`. Kind "residual"."""
    return eigenvalue_of(_likelihood(objective), 0, generator, curvature="ggn")


@_of_matrix("empirical_fisher_trace", unit="loss^2 / weight^2", reference=_EMPIRICAL, work=trace_work("plain", "fisher"))
def empirical_fisher_trace(
    objective: Objective,
    *,
    probes: int = 32,
    relative_error: float = 0.0,
    exact: bool = False,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Trace of the empirical Fisher matrix, the mean over samples of ||g_n||^2 with g_n the gradient of a sample's loss.

    It uses the labels of the data instead of the model's, so it is not the Fisher information (Kunstner et al. 2019). It is
    zero if the gradient of every sample vanishes.

    Args, Returns: as for `gauss_newton_trace`.

    Raises:
        NotDefined: the loss is not a mean over samples.

    Cost: one product per probe.
    """
    with _by_sample():
        return trace_to(objective, probes, generator, curvature="fisher", relative_error=relative_error, exact=exact)


@_of_matrix(
    "empirical_fisher_lambda_max", unit="loss^2 / weight^2", reference=_EMPIRICAL, work=extremes_work("plain", "fisher")
)
def empirical_fisher_lambda_max(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Largest eigenvalue of the empirical Fisher matrix; see `empirical_fisher_trace`. Kind "residual"."""
    with _by_sample():
        return eigenvalue_of(objective, 0, generator, curvature="fisher")


def _rao_work(objective: Objective, settings: Mapping[str, Any]) -> dict[Hashable, Spent]:
    return {"w^T F w": Spent(sweeps=2, products=2)}


@measure(
    "fisher_rao",
    unit="loss",
    invariant_to=HOMOGENEOUS,
    also=with_means_of_batchnorm,
    reference="Liang et al. 2019, arXiv:1711.01530",
    work=_rao_work,
    default=False,
)
def fisher_rao(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Fisher-Rao norm squared, w^T F w with F the Fisher information.

    F is that of `fisher_trace`. A rescaling D turns w into Dw and F into D^-1 F D^-1, so it is invariant for every network.

    Args:
        objective: the network on its data.
        generator: not used: nothing here is random.

    Returns:
        Kind "exact", unit of the loss; `data_stderr` is the sampling error.

    Raises:
        NotDefined: as for `fisher_trace`.

    Cost: one product, and one pass for the error.

    Reference: Liang, Poggio, Rakhlin, Stokes 2019, arXiv:1711.01530. Deviation: this is the square of their norm.
    """
    objective = _likelihood(objective)
    theta = objective.theta
    value = float((theta.double() * objective.ggnvp(theta).double()).sum())
    return with_data_error(objective, Estimate(value), [theta], "ggn")


def _likelihood(objective: Objective) -> Objective:
    """The objective whose Gauss-Newton matrix is the Fisher information: itself if its loss is a negative log-likelihood."""
    loss = objective.loss
    if isinstance(loss, nn.MSELoss):
        return objective
    if not isinstance(loss, nn.CrossEntropyLoss) or objective.classes is None:
        raise NotDefined(
            "expected cross-entropy of class labels or the squared error, found another loss", fix="use gauss_newton_trace"
        )
    if loss.weight is None and loss.label_smoothing == 0:
        return objective
    return objective.with_loss(nn.CrossEntropyLoss(ignore_index=loss.ignore_index))


@contextmanager
def _by_sample() -> Iterator[None]:
    """Without a loss that is a mean over samples there is no empirical Fisher matrix."""
    try:
        yield
    except UsageError as error:
        raise NotDefined(error.problem, fix=error.fix) from error
