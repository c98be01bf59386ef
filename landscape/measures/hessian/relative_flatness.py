"""Relative flatness: curvature weighted by the scalar products of neurons' weights, without the Hessian of a layer."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from landscape import linalg
from landscape.errors import UsageError
from landscape.linalg.probes import default_generator, random_rows
from landscape.machine import progress
from landscape.measures.paired.pair_plan import of_terms
from landscape.measures.paired.shared_pairs import Shared
from landscape.measures.registry import NotDefined, measure
from landscape.measures.running.shared_computations import DATA_PROBES, with_data_error
from landscape.measures.traced_network import in_whole_tensors
from landscape.network.parameters import Entry
from landscape.objective import Objective
from landscape.results import Estimate, Spent

# Probes together, and the most for a relative error.
_BLOCK, _MOST = 8, 2000


def _work(objective: Objective, settings: Mapping[str, Any]) -> dict[Hashable, Spent]:
    if settings["relative_error"] or settings["exact"]:
        return {("pairs",): Spent(forwards=1), "relative flatness": Spent(gradients=100 / objective.samples)}
    probes = settings["probes"] + 3 * DATA_PROBES
    return {"relative flatness": Spent(sweeps=probes / _BLOCK, products=probes)}


@measure(
    "relative_flatness",
    unit="loss",
    invariant_to=("layer",),
    reference="Petzka et al. 2021, arXiv:2001.00939",
    work=_work,
    default=False,
    only_if=in_whole_tensors,
)
def relative_flatness(
    objective: Objective,
    *,
    layers: str = "*",
    probes: int = 32,
    relative_error: float = 0.0,
    exact: bool = False,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Petzka's relative flatness, summed over layers: sum over neurons s, s' of <w_s, w_s'> tr H_ss'.

    w_s is the weight vector of neuron s of a layer (row of a linear weight, filter of a convolution) and H_ss' the block of
    the Hessian between the weights of s and s'. With W the layer's weight matrix the sum is tr((W W^T x I) H). It is
    estimated as E v^T H v with v = vec(L Z), L L^T = W W^T and Z of independent signs, without forming a block. Layer-wise
    rescaling leaves it unchanged; rescaling the neurons of the layer before does not.

    Args:
        objective: the network on its data.
        layers: shell pattern for the names of weight tensors; "*" sums over all, a name selects one, as in the paper.
        probes: number of random vectors, at least 2.
        relative_error, exact: as for `trace`, by the same pairs: a gradient adds ||W^T g||^2 of every layer.
        generator: generator of the probes; default seed 0.

    Returns:
        Kind "t", unit of the loss; `data_stderr` is the sampling error.

    Raises:
        UsageError: fewer than 2 probes.
        NotDefined: no weight tensor has a matching name, or the neurons of one are unknown.

    Cost: one product per probe, and a QR decomposition of every wide layer.

    Reference: Petzka, Kamp, Adilova, Sminchisescu, Boley 2021, arXiv:2001.00939. The paper measures one layer, which reads the
    features. Here the default is the sum over all layers, and a filter counts as a neuron.

    Example:
        L = mean (w . x)^2 has one neuron and H = 2 mean x x^T: ||w||^2 tr H = (9 + 16) * 5.
        >>> from torch import nn
        >>> net = nn.Linear(2, 1, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> objective = Objective(net, nn.MSELoss(), (x, torch.zeros(2, 1)))
        >>> round(relative_flatness(objective, probes=2000).value)
        125
    """
    if probes < 2:
        raise UsageError(f"expected at least 2 probes, found {probes}", fix="an interval needs two")
    weights = [e for e in objective.layout if e.kind == "weight" and fnmatchcase(e.name, layers)]
    if not weights:
        raise NotDefined(f"expected weight tensors whose names match {layers!r}, found none")
    if lost := [e.name for e in weights if e.filters is None]:
        raise NotDefined(f"expected weights whose neurons are known, found {lost[0]}, which is used in two ways")
    random = default_generator(generator)
    draw = _probes(objective, weights)
    fresh = torch.Generator().manual_seed(random.initial_seed() + 1)
    inexact = ""
    if relative_error or exact:
        found = _paired(objective, weights, draw, layers, random, relative_error, exact)
        if isinstance(found, Estimate):
            return found
        inexact = f"not exact: {found}; " if exact else ""
    forms: list[float] = []

    def more(count: int) -> None:
        with progress.stage("relative flatness", count) as advance:
            for begin in range(0, count, _BLOCK):
                v = torch.stack([draw(random) for _ in range(min(_BLOCK, count - begin))])
                forms.extend((v.double() * objective.hvp(v).double()).sum(1).tolist())
                advance(len(v))

    more(probes)
    goal = relative_error * abs(float(np.mean(forms)))
    if goal:  # Stein's second stage
        half = float(stdtrit(probes - 1, 0.975)) * float(np.std(forms, ddof=1))
        more(min(math.ceil((half / goal) ** 2), _MOST) - probes)
    estimate = linalg.mean_estimate(np.array(forms))
    if goal:
        low, high = estimate.interval() or (0.0, 0.0)
        reached = high - low <= 2.5 * relative_error * abs(estimate.value)
        estimate = replace(estimate, converged=reached, reason=f"probes: {len(forms)}")
    if inexact:
        estimate = replace(estimate, reason=inexact + (estimate.reason or f"probes: {len(forms)}"))
    return with_data_error(objective, estimate, [draw(fresh) for _ in range(DATA_PROBES)])


def _paired(
    objective: Objective,
    weights: list[Entry],
    draw: Callable[[torch.Generator], Tensor],
    layers: str,
    random: torch.Generator,
    relative_error: float,
    exact: bool,
) -> Estimate | str:
    """From pairs: tr((W W^T x I) g g^T) = ||W^T g||^2. A block of H is that of G if the outputs are affine in its tensor."""
    shared = Shared.of(objective, random)
    if isinstance(shared, str):
        return shared
    theta = objective.theta
    places = [e.start + e.filters.order().to(theta.device) for e in weights if e.filters is not None]

    def squares(rows: Float[Tensor, "k P"]) -> Float[Tensor, "k 1"]:
        parts = [torch.einsum("sd,kse->kde", theta[at], rows[:, at]).double().square().sum((1, 2)) for at in places]
        return torch.stack(parts).sum(0)[:, None]

    mark = ("relative flatness", layers)
    terms, rests = shared.in_units(mark, squares, exact), None if shared.is_affine() else shared.rests(mark, draw)
    name = "exact diagonal" if rests is None else "control variate"
    return of_terms(shared, terms, 0, rests, name, relative_error, exact)


def _probes(objective: Objective, weights: list[Entry]) -> Callable[[torch.Generator], Float[Tensor, " P"]]:
    """A function that draws v with E v v^T = W W^T x I on every layer, and 0 elsewhere."""
    theta = objective.theta
    places = [e.start + e.filters.order().to(theta.device) for e in weights if e.filters is not None]
    factors = [_factor(theta[at]) for at in places]

    def draw(generator: torch.Generator) -> Tensor:
        out = torch.zeros_like(theta)
        for at, factor in zip(places, factors, strict=True):
            out[at] = factor @ random_rows(factor.shape[1], at.shape[1], "rademacher", generator, factor.dtype, factor.device)
        return out

    return draw


def _factor(w: Float[Tensor, "s d"]) -> Float[Tensor, "s r"]:
    """L with L L^T = W W^T and few columns: W itself, or the transposed triangle of W^T = Q R."""
    if w.shape[1] <= w.shape[0]:
        return w
    return torch.linalg.qr(w.T.double(), mode="r").R.T.to(w)
