"""Gauss-Newton matrix and Fisher information: the parts of curvature that are never negative."""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from landscape.errors import UsageError
from landscape.measures.registry import NotDefined, measure
from landscape.measures.running.shared_computations import eigenvalue_of, extremes_work, sweep_work, trace_of, with_data_error
from landscape.objective import Objective
from landscape.results import Estimate, Spent

_GGN = "Schraudolph 2002; Martens 2020, arXiv:1412.1193"
_FISHER = "Amari 1998; Martens 2020, arXiv:1412.1193"
_EMPIRICAL = "Kunstner et al. 2019, arXiv:1905.12558"

_of_matrix = partial(measure, unit="loss / weight^2", invariant_to=(), default=False)


@_of_matrix("gauss_newton_trace", reference=_GGN, work=sweep_work("plain", "ggn"))
def gauss_newton_trace(objective: Objective, *, probes: int = 32, generator: torch.Generator | None = None) -> Estimate:
    """Trace of the generalized Gauss-Newton matrix G = mean J_n^T (d2 loss / d output2) J_n.

    The Hessian's part that comes from the curvature of the loss; positive semidefinite for a loss that is convex in the
    outputs. H - G vanishes where every sample is fitted, so at an interpolating minimum tr G is about tr H.

    Args:
        objective: the network on its data.
        probes: number of random vectors, at least 2.
        generator: of the probes; default seed 0.

    Returns:
        Kind "t", as `trace`; `data_stderr` is the sampling error.

    Cost: one Gauss-Newton product a probe.

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> gauss_newton_trace(Objective(net, nn.MSELoss(), (x, torch.zeros(2, 1)))).value
        5.0
    """
    return trace_of(objective, probes, generator, curvature="ggn")


@_of_matrix("gauss_newton_lambda_max", reference=_GGN, work=extremes_work("plain", "ggn"))
def gauss_newton_lambda_max(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Largest eigenvalue of the generalized Gauss-Newton matrix; see `gauss_newton_trace`. Kind "residual"."""
    return eigenvalue_of(objective, 0, generator, curvature="ggn")


@_of_matrix("fisher_trace", reference=_FISHER, work=sweep_work("plain", "ggn"))
def fisher_trace(objective: Objective, *, probes: int = 32, generator: torch.Generator | None = None) -> Estimate:
    """Trace of the Fisher information, F = mean over samples of E_{y ~ p(y | x_n)} grad log p grad log p^T.

    The labels are the model's own, not the data's. For cross-entropy F is the Gauss-Newton matrix of the plain loss, without
    label smoothing or class weights; for the squared error it is that of a Gaussian whose variance makes the loss its
    negative log-likelihood. Products are shared with `gauss_newton_trace` where the two agree.

    Args, Returns: as for `gauss_newton_trace`.

    Raises:
        NotDefined: the loss is neither cross-entropy of class labels nor the squared error.

    Cost: one product a probe.
    """
    return trace_of(_likelihood(objective), probes, generator, curvature="ggn")


@_of_matrix("fisher_lambda_max", reference=_FISHER, work=extremes_work("plain", "ggn"))
def fisher_lambda_max(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Largest eigenvalue of the Fisher information; see `fisher_trace`. Kind "residual"."""
    return eigenvalue_of(_likelihood(objective), 0, generator, curvature="ggn")


@_of_matrix("empirical_fisher_trace", unit="loss^2 / weight^2", reference=_EMPIRICAL, work=sweep_work("plain", "fisher"))
def empirical_fisher_trace(objective: Objective, *, probes: int = 32, generator: torch.Generator | None = None) -> Estimate:
    """Trace of the empirical Fisher matrix, the mean over samples of ||g_n||^2 with g_n the gradient of a sample's own loss.

    With the data's labels in place of the model's: not the Fisher information (Kunstner et al. 2019), and zero where every
    sample's own gradient vanishes.

    Args, Returns: as for `gauss_newton_trace`.

    Raises:
        NotDefined: the loss does not come apart by sample.

    Cost: one product a probe.
    """
    with _by_sample():
        return trace_of(objective, probes, generator, curvature="fisher")


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
    invariant_to=("layer", "node"),
    reference="Liang et al. 2019, arXiv:1711.01530",
    work=_rao_work,
    default=False,
)
def fisher_rao(objective: Objective, *, generator: torch.Generator | None = None) -> Estimate:
    """Fisher-Rao norm squared, w^T F w with F the Fisher information: the size of the weights as the model sees it.

    F is that of `fisher_trace`. A rescaling D turns w into Dw and F into D^-1 F D^-1: invariant, whatever the network.

    Args:
        objective: the network on its data.
        generator: not used: nothing here is random.

    Returns:
        Kind "exact", unit of the loss; `data_stderr` is the sampling error.

    Raises:
        NotDefined: as `fisher_trace`.

    Cost: one product, and one pass for the error.

    Reference: Liang, Poggio, Rakhlin, Stokes 2019, arXiv:1711.01530. Departure: the square, and no square root.
    """
    objective = _likelihood(objective)
    theta = objective.theta
    value = float((theta.double() * objective.ggnvp(theta).double()).sum())
    return with_data_error(objective, Estimate(value), [theta], "ggn")


def _likelihood(objective: Objective) -> Objective:
    """The objective whose Gauss-Newton matrix is the Fisher information: itself where its loss is a plain likelihood."""
    loss = objective.loss
    if isinstance(loss, nn.MSELoss):
        return objective
    if not isinstance(loss, nn.CrossEntropyLoss) or objective.classes is None:
        raise NotDefined(
            "expected cross-entropy of class labels or the squared error, found another loss", fix="take gauss_newton_trace"
        )
    if loss.weight is None and loss.label_smoothing == 0:
        return objective
    return objective.with_loss(nn.CrossEntropyLoss(ignore_index=loss.ignore_index))


@contextmanager
def _by_sample() -> Iterator[None]:
    """A loss that does not come apart by sample has no empirical Fisher matrix."""
    try:
        yield
    except UsageError as error:
        raise NotDefined(error.problem, fix=error.fix) from error
