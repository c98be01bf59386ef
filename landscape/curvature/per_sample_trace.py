"""Trace of the Gauss-Newton matrix of every single sample, from its Jacobian and the curvature of its loss in the outputs."""

import warnings
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.curvature.engine import Engine
from landscape.curvature.reverse_mode import grad, vjp
from landscape.errors import is_exhausted
from landscape.linalg.small_matrices import eigh_each
from landscape.machine.arithmetic import exact_math
from landscape.network.batches import Batch

# Outputs of a sample up to which the trace is exact: each takes a backward pass of every sample.
MOST_OUTPUTS = 128
# Bytes of gradients that are held at once.
_ROOM = 1 << 26


def sample_gauss_newton_traces(engine: Engine, theta: Float[Tensor, " P"]) -> Float[Tensor, " N"] | None:
    """tr G_n for every sample, G_n = J_n^T A_n J_n with A_n = d2 loss_n / d output_n^2; exact up to rounding, float64.

    With the eigenpairs A_n u_k = a_k u_k it is sum_k a_k ||J_n^T u_k||^2: one gradient of a single sample for each output.
    None if samples cannot be processed separately, or have more than `MOST_OUTPUTS` outputs.

    Cost: one forward pass and as many backward passes as a sample has outputs, of single samples vectorized by
        `torch.func.vmap`; one sample at a time if the network cannot be vectorized. At most 64 MiB of gradients at once, or
        one gradient.
    """
    if not engine.divisible:
        return None
    parts = []
    for batch in engine.batches:
        found = _output_curvature(engine, theta, batch)
        if found is None:
            return None
        values, directions = found
        count = values.shape[1]
        together = max(1, _ROOM // (theta.nbytes * count))
        rows = [slice(i, i + together) for i in range(0, len(batch), together)]
        squares = [_squared_pullbacks(engine, theta, batch[part], directions[part]) for part in rows]
        parts.append((values * torch.cat(squares)).sum(1))
    return torch.cat(parts)


def _output_curvature(
    engine: Engine, theta: Tensor, batch: Batch
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K ..."]] | None:
    """Eigenvalues of every sample's A_n, float64, and eigenvectors in the shape of its output; None if there are too many."""
    with engine.derivatives(theta):
        with torch.no_grad():
            output = engine.forward(engine.tensors(theta), batch)
        count = output[0].numel()
        if count > MOST_OUTPUTS:
            return None
        point = output.detach().requires_grad_()
        losses = engine.loss.per_sample(point, batch.target, batch.weights)
        assert losses is not None  # a divisible engine's loss comes apart
        slope = grad(losses.sum(), {"output": point}, create_graph=True)
        columns = []
        for k in range(count):
            z = torch.zeros_like(output).reshape(len(output), count)
            z[:, k] = 1.0
            columns.append(vjp(slope, {"output": point}, {"output": z.reshape(output.shape)})["output"].flatten(1))
    values, vectors = eigh_each(torch.stack(columns, 2))
    return values, vectors.mT.to(output.dtype).reshape(len(output), count, *output.shape[1:])


def _squared_pullbacks(
    engine: Engine, theta: Tensor, batch: Batch, directions: Float[Tensor, "B K ..."]
) -> Float[Tensor, "B K"]:
    """||J_n^T u_nk||^2 for every sample n and direction k, float64."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "There is a performance drop")  # vmap fell back to a loop
            return _vectorized(engine, theta, batch, directions)
    except Exception as error:  # control flow that depends on values, or an operation without a rule for vmap
        if is_exhausted(error):
            raise
        return torch.stack([torch.stack(list(_one(engine, theta, batch[i : i + 1], u))) for i, u in enumerate(directions)])


def _vectorized(engine: Engine, theta: Tensor, batch: Batch, directions: Tensor) -> Float[Tensor, "B K"]:
    """All samples together."""
    tensors, form = torch.utils._pytree.tree_flatten((batch.args, batch.kwargs, batch.target))
    moving = [isinstance(t, Tensor) for t in tensors]
    params = engine.tensors(theta)
    chunk = max(1, _ROOM // theta.nbytes)

    def one(own: list[Tensor], u: Tensor) -> Tensor:
        rows = iter(own)
        leaves = [next(rows)[None] if moves else t for t, moves in zip(tensors, moving, strict=True)]
        single = Batch(*torch.utils._pytree.tree_unflatten(leaves, form))
        pull = torch.func.vjp(lambda p: engine.forward(p, single)[0], params)[1]

        def squared(v: Tensor) -> Tensor:
            return torch.stack([t.double().square().sum() for t in pull(v)[0].values()]).sum()

        return torch.func.vmap(squared, chunk_size=chunk)(u)

    recurrent = any(isinstance(m, nn.RNNBase) for m in engine.model.modules())
    with exact_math(derivatives=True, recurrent=recurrent), torch.inference_mode(False), torch.enable_grad():
        own = [t for t, moves in zip(tensors, moving, strict=True) if moves]
        return torch.func.vmap(one)(own, directions).detach()


def _one(engine: Engine, theta: Tensor, batch: Batch, directions: Float[Tensor, "K ..."]) -> Iterator[Tensor]:
    """The squares of a single sample, one direction after another."""
    with engine.derivatives(theta):
        leaves = engine.leaves(theta)
        output = engine.forward(leaves, batch)
        for u in directions:
            pulled = vjp({"output": output}, leaves, {"output": u[None]})
            yield torch.stack([t.double().square().sum() for t in pulled.values()]).sum().detach()
