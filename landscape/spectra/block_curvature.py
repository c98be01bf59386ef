"""Curvature by layer, filter and attention head: trace and largest eigenvalue of each diagonal block of the Hessian."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from landscape import linalg
from landscape.linalg.probes import default_generator
from landscape.objective import Objective
from landscape.results import Block, Breakdown, Eigenpairs
from landscape.spectra.hessian_spectrum import eigenpairs


def breakdown(
    objective: Objective,
    *,
    filters: bool = False,
    heads: bool = False,
    top: Eigenpairs | None = None,
    probes: int = 64,
    tol: float = 1e-3,
    generator: torch.Generator | None = None,
) -> Breakdown:
    """Trace, largest eigenvalue, and part in the top eigenvector of the Hessian's diagonal blocks: layers, filters, heads.

    A layer's block contains all parameters of one module. A filter's contains the weights of one output channel of a
    convolution or one neuron of a linear layer, without its bias. A head's contains the weights of its attention layer that the
    layer's output depends on through that head: its rows of the projections of queries, keys and values, and its columns of
    the output projection if the same module has it. Keys and values that several heads share (grouped queries) are in the block
    of each of them.

    The traces of all blocks come from one sweep of probes; those of the layers sum to tr H. The largest eigenvalue of a block
    is at most that of H. The share of a block in the top eigenvector v of H, |v| = 1, is the sum of v_i^2 over the block.

    Args:
        objective: the network on its data.
        filters: whether to include every filter and neuron.
        heads: whether to include every attention head, see `Objective.attention_heads`.
        top: eigenpairs of the Hessian, of which the one of the largest eigenvalue gives the shares; None computes it.
        probes: random vectors for the traces, at least 2.
        tol: relative residual of a filter's or head's eigenvalue.
        generator: of probes and start vectors; default seed 0.

    Returns:
        Blocks of the layers in the order of the network, then those of the filters, then those of the heads; prints, plots, and
        gives a DataFrame.

    Raises:
        UsageError: there are fewer than 2 probes.

    Cost: one product for each probe; 15 to 40 products for each layer, with derivatives of that layer only; 5 to 15 products
    for each filter and head, eight of them in one pass; those of the top eigenpair, if it is not given.

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
    found = objective.attention_heads()[0] if heads else []
    members = torch.zeros(len(found), objective.dim, dtype=torch.bool)
    for row, head in zip(members, found, strict=True):
        row[head.weights] = True
    # Sections of the sweep may not overlap: a part of one that is in other heads is a section of its own.
    parts, ids = torch.unique(torch.stack((ids.cpu(), *members.long())), dim=1, return_inverse=True)
    owner, within = parts[0].tolist(), parts[1:].bool().numpy()
    together = objective.plan.block
    sweep = linalg.quadratic_forms(objective.hvp, objective.dim, probes=probes, block=together, sections=ids, **options)
    values = eigenpairs(objective, 1, generator=default_generator(None)) if top is None else top
    leading = values.vectors[int(np.argmax(values.values))].cpu().double().square()
    out = []
    for layer in layers:
        part = objective.only(*(e.name for e in objective.layout.layers[layer]))
        inside = np.array([names[i][0] == layer for i in owner])
        share = float(leading[torch.from_numpy(inside)[ids]].sum())
        trace, largest = linalg.mean_estimate(sweep.sections[:, inside].sum(1)), eigenpairs(part, generator=random).estimate(0)
        out.append(Block(layer, None, part.dim, trace, largest, share=share))
    chosen: list[tuple[np.ndarray, dict[str, Any]]] = []  # the sections of every further block, and what it is
    if filters:
        for i, (layer, number) in enumerate(names):
            if number is not None:
                chosen.append((np.array([i == o for o in owner]), {"layer": layer, "filter": number}))
    for head, inside in zip(found, within, strict=True):
        chosen.append((inside, {"layer": head.layer, "filter": None, "head": head.number, "shared": head.shared}))
    blocks = [torch.from_numpy(inside)[ids].nonzero()[:, 0] for inside, _ in chosen]
    on_device = [block.to(objective.device) for block in blocks]
    tops = linalg.block_eigenvalues(objective.hvp, objective.dim, on_device, tol=tol, together=together, **options)
    for block, (inside, what), largest in zip(blocks, chosen, tops, strict=True):
        trace = linalg.mean_estimate(sweep.sections[:, inside].sum(1))
        out.append(Block(**what, weights=len(block), trace=trace, lambda_max=largest, share=float(leading[block].sum())))
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
