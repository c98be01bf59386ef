"""Relative flatness: curvature weighed by the neurons' scalar products, without building a layer's Hessian."""

from collections.abc import Callable, Hashable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from landscape import linalg
from landscape.errors import UsageError
from landscape.linalg.probes import default_generator, random_rows
from landscape.machine import progress
from landscape.measures.registry import NotDefined, measure
from landscape.measures.running.shared_computations import DATA_PROBES, with_data_error
from landscape.measures.traced_network import in_whole_tensors
from landscape.network.parameters import Entry
from landscape.objective import Objective
from landscape.results import Estimate, Spent

_BLOCK = 8


def _work(objective: Objective, settings: Mapping[str, Any]) -> dict[Hashable, Spent]:
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
    objective: Objective, *, layers: str = "*", probes: int = 32, generator: torch.Generator | None = None
) -> Estimate:
    """Petzka's relative flatness, summed over layers: sum over neurons s, s' of <w_s, w_s'> tr H_ss'.

    w_s is the weight vector of neuron s of a layer (row of a linear weight, filter of a convolution) and H_ss' the block of
    the Hessian between the weights of s and s'. With W the layer's weight matrix the sum is tr((W W^T x I) H), which
    E v^T H v gives without any block for v = vec(L Z), L L^T = W W^T and Z of independent signs. Layer-wise rescaling
    does not move it; scaling the neurons of the layer before does.

    Args:
        objective: the network on its data.
        layers: shell pattern on the names of weight tensors; "*" for the sum over all, a name for one, as in the paper.
        probes: number of random vectors, at least 2.
        generator: of the probes; default seed 0.

    Returns:
        Kind "t", unit of the loss; `data_stderr` is the sampling error.

    Raises:
        UsageError: fewer than 2 probes.
        NotDefined: no weight tensor has such a name, or the neurons of one are not known.

    Cost: one product a probe, and a QR decomposition of every wide layer.

    Reference: Petzka, Kamp, Adilova, Sminchisescu, Boley 2021, arXiv:2001.00939. The paper measures one layer, the one that
    reads the features; we add all layers up unless one is named, and treat a filter as a neuron.

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
    forms = []
    with progress.stage("relative flatness", probes) as advance:
        for begin in range(0, probes, _BLOCK):
            v = torch.stack([draw(random) for _ in range(min(_BLOCK, probes - begin))])
            forms.append((v.double() * objective.hvp(v).double()).sum(1).cpu())
            advance(len(v))
    estimate = linalg.mean_estimate(torch.cat(forms).numpy())
    return with_data_error(objective, estimate, [draw(fresh) for _ in range(DATA_PROBES)])


def _probes(objective: Objective, weights: list[Entry]) -> Callable[[torch.Generator], Float[Tensor, " P"]]:
    """A function that draws v with E v v^T = W W^T x I on every layer, 0 elsewhere."""
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
