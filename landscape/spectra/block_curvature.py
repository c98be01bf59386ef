"""Curvature by layer, filter and attention head: trace and largest eigenvalue of each diagonal block of the Hessian."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from landscape import linalg
from landscape.linalg.probes import default_generator
from landscape.machine import progress
from landscape.objective import Head, Objective
from landscape.results import Block, Breakdown, Eigenpairs
from landscape.spectra.hessian_spectrum import eigenpairs
from landscape.spectra.known_pairs import heaviest


def breakdown(
    objective: Objective,
    *,
    filters: bool = False,
    heads: bool | Sequence[Head] = False,
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

    The traces of all blocks come from one sweep of probes of H - K, and the diagonal of K: K is the part of H that the
    gradients of the heaviest (sample, class) pairs make up, which has most of what makes probes noisy at a trained minimum.
    Those of the layers sum to tr H. The largest eigenvalue of a block
    is at most that of H. The share of a block in the top eigenvector v of H, |v| = 1, is the sum of v_i^2 over the block.

    Args:
        objective: the network on its data.
        filters: whether to include every filter and neuron.
        heads: whether to include every attention head, see `Objective.attention_heads`; or heads that it has found.
        top: eigenpairs of the Hessian, of which the one of the largest eigenvalue gives the shares; None computes it.
        probes: random vectors for the traces, at least 2.
        tol: relative residual of a filter's or head's eigenvalue.
        generator: of probes and start vectors; default seed 0.

    Returns:
        Blocks of the layers in the order of the network, then those of the filters, then those of the heads; prints, plots, and
        gives a DataFrame.

    Raises:
        UsageError: there are fewer than 2 probes.

    Cost: one product for each probe, eight of them in one pass; for K a forward pass and at most 0.8 products' worth of
    gradients; 10 to 40 products for each layer, one after another, with derivatives of that layer only; 5 to 20 products for
    each filter and head, eight of them in one pass; those of the top eigenpair, 15 to 40, if it is not given. As the first work
    on an objective, its checks and the choice of the fastest product come before, some 50 gradients on a few samples. A GPT-2
    of 2 layers with 4 heads each has 15 layers of weights: 16 runs and 8 heads, some 390 products at `probes=8`.
    `landscape.progress` shows how far it is.

    Accuracy: a block's trace has the noise of all off-diagonal entries of H - K in its rows. K is fixed before the probes are
    drawn, so that the traces are unbiased.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(2, 2, bias=False)
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> blocks = breakdown(Objective(net, nn.MSELoss(), (x, torch.zeros(2, 2))), filters=True)
        >>> [(b.name, round(b.trace.value, 4), round(b.lambda_max.value, 4)) for b in blocks]
        [('(model)', 5.0, 2.0), ('(model)[0]', 2.5, 2.0), ('(model)[1]', 2.5, 2.0)]
    """
    random = default_generator(generator)
    options: dict[str, Any] = {"generator": random, "dtype": objective.dtype, "device": objective.device}
    layers = list(objective.layout.layers)
    names, ids = _sections(objective)
    found = list(heads) if not isinstance(heads, bool) else objective.attention_heads()[0] if heads else []
    # Sections of the sweep may not overlap: a part of one that is in other heads is a section of its own.
    owner, within = _refined(ids, len(names), [head.weights.cpu() for head in found])
    together = objective.plan.block
    known = heaviest(objective)
    left = objective.hvp if known is None else lambda v: objective.hvp(v) - known.product(v)
    sweep = linalg.quadratic_forms(left, objective.dim, probes=probes, block=together, sections=ids, **options)
    forms = np.pad(sweep.sections, ((0, 0), (0, len(owner) - sweep.sections.shape[1])))  # the last tensors may be empty
    if known is not None:
        forms += torch.bincount(ids, weights=known.diagonal.cpu(), minlength=len(owner)).numpy()
    values = eigenpairs(objective, 1, generator=default_generator(None)) if top is None else top
    leading = values.vectors[int(np.argmax(values.values))].cpu().double().square()
    shares = torch.bincount(ids, weights=leading, minlength=len(owner)).numpy()
    place = {layer: i for i, layer in enumerate(layers)}
    layer_of = np.array([place[layer] for layer, _ in names])[owner]
    out = []
    with progress.stage("layers", len(layers)) as advance:
        for i, layer in enumerate(layers):
            part = objective.only(*(e.name for e in objective.layout.layers[layer]))
            inside = np.flatnonzero(layer_of == i)
            trace, largest = linalg.mean_estimate(forms[:, inside].sum(1)), eigenpairs(part, generator=random).estimate(0)
            out.append(Block(layer, None, part.dim, trace, largest, share=float(shares[inside].sum())))
            advance(1)
    chosen: list[tuple[np.ndarray, Tensor, dict[str, Any]]] = []  # sections and weights of every further block, and what it is
    if filters:
        whole = torch.from_numpy(owner)[ids]
        weights = whole.argsort(stable=True).split(whole.bincount(minlength=len(names)).tolist())
        sections = np.split(owner.argsort(kind="stable"), np.bincount(owner).cumsum()[:-1])
        for (layer, number), block, inside in zip(names, weights, sections, strict=True):
            if number is not None:
                chosen.append((inside, block, {"layer": layer, "filter": number}))
    for head, inside in zip(found, within, strict=True):
        chosen.append((inside, head.weights, {"layer": head.layer, "filter": None, "head": head.number, "shared": head.shared}))
    on_device = [block.to(objective.device) for _, block, _ in chosen]
    tops = linalg.block_eigenvalues(objective.hvp, objective.dim, on_device, tol=tol, together=together, **options)
    for (inside, block, what), largest in zip(chosen, tops, strict=True):
        trace = linalg.mean_estimate(forms[:, inside].sum(1))
        out.append(Block(**what, weights=len(block), trace=trace, lambda_max=largest, share=float(shares[inside].sum())))
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
    return names, ids.cpu()


def _refined(ids: Int[Tensor, " P"], count: int, heads: list[Int[Tensor, " n"]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Divide sections, in place, so that each is within a head or outside of it.

    Args:
        ids: (P,) the section of each weight; overwritten.
        count: of the sections.
        heads: positions of each head's weights, without repetitions.

    Returns:
        (s,) the section that each came from, and the sections of each head.

    Cost: a sort of each head's weights.
    """
    sizes, owner = ids.bincount(minlength=count).tolist(), list(range(count))
    holders: list[list[int]] = [[] for _ in range(count)]
    for h, weights in enumerate(heads):
        touched, place, inside = ids[weights].unique(return_inverse=True, return_counts=True)
        now = touched.tolist()
        for i, (section, n) in enumerate(zip(touched.tolist(), inside.tolist(), strict=True)):
            if n < sizes[section]:  # the part in this head becomes a section
                now[i] = len(owner)
                sizes[section] -= n
                sizes.append(n)
                owner.append(owner[section])
                holders.append(list(holders[section]))
            holders[now[i]].append(h)
        ids[weights] = torch.tensor(now, dtype=ids.dtype)[place]
    within: list[list[int]] = [[] for _ in heads]
    for section, held in enumerate(holders):
        for h in held:
            within[h].append(section)
    return np.array(owner, dtype=np.int64), [np.array(sections, dtype=np.int64) for sections in within]
