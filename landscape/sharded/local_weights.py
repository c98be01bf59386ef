"""The weights of a network that `fully_shard` divided among processes: each process sees, moves and draws its own part."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.errors import UsageError
from landscape.linalg.probes import Distribution
from landscape.machine.distributed import Group

_WRAP = "wrap it with torch.distributed.fsdp.fully_shard on a mesh of one dimension with all processes"


class LocalWeights:
    """This process's part of the trainable weights, as one flat vector, in the order of `named_parameters()`.

    Args:
        model: wrapped by `torch.distributed.fsdp.fully_shard`; all its trainable weights are then `DTensor`s, of which each
            process holds a part along one dimension.
        members: all processes.

    Raises:
        UsageError: the model is not wrapped, a weight is whole or sharded over a mesh of other processes, or the weights are
            not all float32 or all float64.

    Attributes:
        names: of the weights.
        dim: P, the number of all weights.
        own: number of those of this process; it may be 0.
    """

    def __init__(self, model: nn.Module, members: Group) -> None:
        from torch.distributed.fsdp import FSDPModule
        from torch.distributed.tensor import DTensor, Shard

        self.members = members
        self._wrapped = [m for m in model.modules() if isinstance(m, FSDPModule)]
        self.reshard()
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not self._wrapped or not named:
            raise UsageError("expected a model with trainable weights that are sharded, found none", fix=_WRAP)
        for name, p in named:
            if not isinstance(p, DTensor):
                raise UsageError(f"expected sharded weights, found {name} whole in each process", fix=_WRAP)
            if p.device_mesh.ndim != 1 or p.device_mesh.size() != members.size or type(p.placements[0]) is not Shard:
                raise UsageError(
                    f"expected weights sharded once over {members.size} processes, found {name} otherwise", fix=_WRAP
                )
        kinds = {p.dtype for _, p in named}
        if kinds not in ({torch.float32}, {torch.float64}):
            raise UsageError(
                f"expected weights of float32 or of float64, found {', '.join(sorted(map(str, kinds)))}",
                fix="model.float() before fully_shard; products of half precision are mostly rounding",
            )
        self.names = tuple(name for name, _ in named)
        self.parameters: list[DTensor] = [p for _, p in named]  # type: ignore[misc]  # checked above
        self._local = [p.to_local() for p in self.parameters]
        self.dim = sum(p.numel() for p in self.parameters)
        self.own = sum(t.numel() for t in self._local)
        self.dtype, self.device = self._local[0].dtype, self._local[0].device

    def reshard(self) -> None:
        """Drop whole weights that a forward pass left: they would be used again after the parts have moved."""
        for module in self._wrapped:
            module.reshard()

    def flat(self) -> Float[Tensor, " own"]:
        """A copy of this process's weights."""
        return self._joined(self._local)

    def write(self, flat: Float[Tensor, " own"]) -> None:
        """Move the network: set this process's weights."""
        self.reshard()
        with torch.no_grad():
            for t, part in zip(self._local, flat.split([t.numel() for t in self._local]), strict=True):
                t.copy_(part.view_as(t))

    def gradient(self) -> Float[Tensor, " own"]:
        """This process's part of the gradients that `backward` left; 0 where a weight has none."""
        parts = []
        for p, t in zip(self.parameters, self._local, strict=True):
            parts.append(torch.zeros_like(t) if p.grad is None else p.grad.to_local())  # type: ignore[attr-defined]
        return self._joined(parts)

    def random(self, seed: int, distribution: Distribution) -> Float[Tensor, " own"]:
        """This process's part of a random vector of length P, which does not depend on the number of processes.

        Every process draws every tensor, one at a time, and keeps its own part.
        """
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for p, t in zip(self.parameters, self._local, strict=True):
            if distribution == "rademacher":
                whole = torch.randint(0, 2, tuple(p.shape), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
            else:
                whole = torch.randn(tuple(p.shape), generator=generator)
            chunks = whole.chunk(self.members.size, dim=p.placements[0].dim)  # type: ignore[attr-defined]  # a Shard
            mine = chunks[self.members.rank] if self.members.rank < len(chunks) else whole[:0]
            parts.append(mine.to(t).reshape(t.shape))
        return self._joined(parts)

    def like_rows(self, direction: Float[Tensor, " own"], theta: Float[Tensor, " own"]) -> Float[Tensor, " own"]:
        """A direction whose rows have the norms of the weights' rows; tensors of one dimension are 0.

        A row belongs to one output of a linear layer or convolution. All rows must be whole.

        Raises:
            UsageError: a weight is sharded along another dimension than its first.
        """
        parts = []
        sizes = [t.numel() for t in self._local]
        for p, t, d, w in zip(self.parameters, self._local, direction.split(sizes), theta.split(sizes), strict=True):
            if p.ndim < 2:
                parts.append(torch.zeros_like(d))
                continue
            if p.placements[0].dim != 0:  # type: ignore[attr-defined]  # a Shard
                raise UsageError("expected weights sharded along their first dimension, found another", fix=_WRAP)
            rows, wanted = (x.view(len(t), -1) if len(t) else x.view(0, 1) for x in (d, w))
            own, length = rows.norm(dim=1, keepdim=True), wanted.norm(dim=1, keepdim=True)
            parts.append((rows * torch.where(own > 0, length / own, 0.0)).flatten())
        return self._joined(parts)

    def dots(self, *pairs: tuple[Float[Tensor, " own"], Float[Tensor, " own"]]) -> list[float]:
        """Inner products of whole vectors, in float64, the same bits in each process. Cost: one collective."""
        mine = torch.stack([_dot(a, b) for a, b in pairs])
        return [float(x) for x in self.members.sum_(mine)]

    def norm(self, v: Float[Tensor, " own"]) -> float:
        """Euclidean norm of a whole vector."""
        return self.dots((v, v))[0] ** 0.5

    @staticmethod
    def _joined(parts: list[Tensor]) -> Float[Tensor, " own"]:
        return torch.cat([part.detach().reshape(-1) for part in parts])


def _dot(a: Tensor, b: Tensor, piece: int = 1 << 20) -> Tensor:
    """Inner product in float64, without a float64 copy of the vectors."""
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for i in range(0, len(a), piece):
        total += torch.dot(a[i : i + piece].double(), b[i : i + piece].double())
    return total
