"""Where the curvature sits: trace and largest eigenvalue of every layer's, and every filter's, own block of the Hessian."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from landscape import linalg
from landscape.objective import Objective
from landscape.results import Block
from landscape.spectrum import eigenpairs


def breakdown(
    objective: Objective,
    *,
    filters: bool = False,
    probes: int = 64,
    tol: float = 1e-3,
    generator: torch.Generator | None = None,
) -> list[Block]:
    """Trace and largest eigenvalue of the diagonal blocks of the Hessian, by layer or by filter.

    A layer's block has all parameters of one module. A filter's has the weights of one output channel of a convolution or of
    one neuron of a linear layer, without its bias. The traces of all blocks come from one sweep of probes, those of the layers
    add up to tr H; the eigenvalue of a block is at most that of H.

    Args:
        objective: the network on its data.
        filters: by filter; else by layer.
        probes: random vectors for the traces, at least 2.
        tol: relative residual of a filter's eigenvalue.
        generator: of probes and start vectors; default seed 0.

    Returns:
        Blocks in the order of the network.

    Raises:
        UsageError: fewer than 2 probes.

    Cost: one product a probe; 15 to 40 products a layer, in which only that layer's derivatives are computed; 5 to 15 products
    a filter, eight filters to a pass.

    Accuracy: a block's trace carries the noise of the whole Hessian's off-diagonal entries in its rows.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(2, 2, bias=False)
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> blocks = breakdown(Objective(net, nn.MSELoss(), (x, torch.zeros(2, 2))), filters=True)
        >>> [(b.name, b.trace.value, round(b.lambda_max.value, 4)) for b in blocks]
        [('(model)[0]', 2.5, 2.0), ('(model)[1]', 2.5, 2.0)]
    """
    random = generator if generator is not None else torch.Generator().manual_seed(0)
    names, ids = _sections(objective, filters)
    sweep = linalg.quadratic_forms(
        objective.hvp,
        objective.dim,
        probes=probes,
        sections=ids,
        generator=random,
        dtype=objective.dtype,
        device=objective.device,
    )
    traces = sweep.section_traces()
    sizes = np.bincount(ids[ids >= 0].numpy(), minlength=len(names))
    if filters:
        blocks = [torch.nonzero(ids == i)[:, 0].to(objective.device) for i in range(len(names))]
        tops = linalg.block_eigenvalues(
            objective.hvp,
            objective.dim,
            blocks,
            tol=tol,
            generator=random,
            dtype=objective.dtype,
            device=objective.device,
        )
    else:
        tops = []
        for layer, _ in names:
            part = objective.only(*(e.name for e in objective.layout.layers[layer]))
            tops.append(eigenpairs(part, generator=random).estimate(0))
    return [Block(*name, int(n), t, top) for name, n, t, top in zip(names, sizes, traces, tops, strict=True)]


def _sections(objective: Objective, filters: bool) -> tuple[list[tuple[str, int | None]], Int[Tensor, " P"]]:
    """(layer, filter) of every block, and the block that each weight belongs to; -1 for none."""
    names: list[tuple[str, int | None]] = []
    if filters:
        counted: dict[str, int] = {}  # a module with several weight tensors numbers their filters through
        for e in objective.layout:
            if e.filter_axis is not None:
                first = counted.get(e.layer, 0)
                counted[e.layer] = first + e.shape[e.filter_axis]
                names += [(e.layer, i) for i in range(first, counted[e.layer])]
        return names, objective.layout.filters
    ids = torch.empty(objective.dim, dtype=torch.long)
    for layer, entries in objective.layout.layers.items():
        for e in entries:
            ids[e.start : e.stop] = len(names)
        names.append((layer, None))
    return names, ids
