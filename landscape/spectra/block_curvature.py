"""Curvature by layer and by filter: trace and largest eigenvalue of each diagonal block of the Hessian."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from landscape import linalg
from landscape.linalg.probes import default_generator
from landscape.objective import Objective
from landscape.results import Block, Breakdown
from landscape.spectra.hessian_spectrum import eigenpairs


def breakdown(
    objective: Objective,
    *,
    filters: bool = False,
    probes: int = 64,
    tol: float = 1e-3,
    generator: torch.Generator | None = None,
) -> Breakdown:
    """Trace and largest eigenvalue of the Hessian's diagonal blocks, for layers and optionally for filters.

    A layer's block contains all parameters of one module. A filter's contains the weights of one output channel of a
    convolution or one neuron of a linear layer, without its bias. The traces of all blocks come from one sweep of probes; those
    of the layers sum to tr H. The largest eigenvalue of a block is at most that of H.

    Args:
        objective: the network on its data.
        filters: whether to include every filter and neuron.
        probes: random vectors for the traces, at least 2.
        tol: relative residual of a filter's eigenvalue.
        generator: of probes and start vectors; default seed 0.

    Returns:
        Blocks of the layers in the order of the network, then those of the filters; prints, plots, and gives a
        DataFrame.

    Raises:
        UsageError: there are fewer than 2 probes.

    Cost: one product for each probe; 15 to 40 products for each layer, with derivatives of that layer only; 5 to 15 products
    for each filter, eight filters in one pass.

    Accuracy: a block's trace has the noise of all off-diagonal entries of the Hessian in its rows.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(2, 2, bias=False)
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> blocks = breakdown(Objective(net, nn.MSELoss(), (x, torch.zeros(2, 2))), filters=True)
        >>> [(b.name, b.trace.value, round(b.lambda_max.value, 4)) for b in blocks]
        [('(model)', 5.0, 2.0), ('(model)[0]', 2.5, 2.0), ('(model)[1]', 2.5, 2.0)]
    """
    random = default_generator(generator)
    options: dict[str, Any] = {"generator": random, "dtype": objective.dtype, "device": objective.device}
    layers = list(objective.layout.layers)
    names, ids = _sections(objective)
    together = objective.plan.block
    sweep = linalg.quadratic_forms(objective.hvp, objective.dim, probes=probes, block=together, sections=ids, **options)
    out = []
    for layer in layers:
        part = objective.only(*(e.name for e in objective.layout.layers[layer]))
        forms = sweep.sections[:, [name[0] == layer for name in names]].sum(1)
        out.append(Block(layer, None, part.dim, linalg.mean_estimate(forms), eigenpairs(part, generator=random).estimate(0)))
    if not filters:
        return Breakdown(out)
    numbers = [i for i, name in enumerate(names) if name[1] is not None]
    blocks = [torch.nonzero(ids == i)[:, 0].to(objective.device) for i in numbers]
    traces = sweep.section_traces()
    tops = linalg.block_eigenvalues(objective.hvp, objective.dim, blocks, tol=tol, together=together, **options)
    for i, block, top in zip(numbers, blocks, tops, strict=True):
        out.append(Block(*names[i], len(block), traces[i], top))
    return Breakdown(out)


def _sections(objective: Objective) -> tuple[list[tuple[str, int | None]], Int[Tensor, " P"]]:
    """Names (layer, filter) of the finest sections, which are filters and other tensors, and the section of each weight."""
    names: list[tuple[str, int | None]] = []
    counted: dict[str, int] = {}  # filters of several weight tensors of a module are numbered consecutively
    for e in objective.layout:
        if e.filters is not None:
            first = counted.get(e.layer, 0)
            counted[e.layer] = first + e.filters.count
            names += [(e.layer, i) for i in range(first, counted[e.layer])]
    ids = objective.layout.filters.clone()
    for e in objective.layout:
        if e.filters is None:
            ids[e.start : e.stop] = len(names)
            names.append((e.layer, None))
    return names, ids
