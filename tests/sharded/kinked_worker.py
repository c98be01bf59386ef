"""One gloo process: which rectified networks in float32 pass the check of their gradient, right ones and wrong ones.

Started by test_gradient_check.py; `python tests/sharded/kinked_worker.py OUT [SEEDS]` counts over more seeds.
"""

import copy
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import landscape as ls
from landscape.errors import NumericalError


class Wrong(torch.autograd.Function):
    """The identity with another derivative."""

    @staticmethod
    def forward(context: Any, x: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * context.factor, None


class Rectified(nn.Module):
    """Layers with rectifiers between them; all of the gradient, or that of the inner layers, is multiplied by a factor."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.factor, self.inner = 1.0, False

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < len(self.layers) - 1:
                x = torch.relu(x)
            if self.factor != 1 and i == (len(self.layers) - 2 if self.inner else len(self.layers) - 1):
                x = Wrong.apply(x, self.factor)
        return x


def fitted(seed: int, steps: int) -> tuple[Rectified, Tensor, Tensor]:
    """One of two to four layers with few to many samples, by the seed, after so many steps of training; and its data."""
    torch.manual_seed(seed)
    width, depth, samples, classes = (
        (8, 16, 40)[seed % 3],
        1 + seed // 3 % 3,
        (6, 20, 64)[seed // 9 % 3],
        (2, 5)[seed // 27 % 2],
    )
    net = Rectified([6, *[width] * depth, classes])
    x, y = torch.randn(samples, 6), torch.randint(0, classes, (samples,))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net, x, y


def passes(net: Rectified, x: Tensor, y: Tensor, mesh: Any, factor: float = 1.0, *, inner: bool = False) -> bool:
    """Whether a sharded copy with this factor passes."""
    net = copy.deepcopy(net)
    net.factor, net.inner = factor, inner
    for layer in net.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    try:
        ls.ShardedObjective(net, nn.CrossEntropyLoss(), (x, y))
    except NumericalError as error:
        if "expected the gradient to be the derivative of the loss" in str(error):
            return False
        raise
    return True


STEPS = {"new": 0, "trained": 60, "fitted": 300}
FACTORS = {
    "right": {},
    "halved": {"factor": 0.5},
    "doubled": {"factor": 2.0},
    "a third more": {"factor": 4 / 3},
    "inner layers tripled": {"factor": 3.0, "inner": True},
}


def main(out: Path, seeds: int) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    found: dict[str, list[bool]] = {}
    for seed in range(seeds):
        for state, steps in STEPS.items():
            task = fitted(seed, steps)
            for name, options in FACTORS.items():
                found.setdefault(f"{state}, {name}", []).append(passes(*task, mesh, **options))
    out.write_text(json.dumps(found))
    print({name: f"{sum(passed)} of {seeds} pass" for name, passed in found.items()})
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 9)
