"""One of two gloo processes: missing second derivatives are found, kinks let pass, and an error of one process ends both.

Started by test_exact_products.py under torchrun. Every process checks its own part; an error ends all of them.
"""

import json
import sys
import warnings
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import landscape as ls
from landscape.errors import NumericalError
from landscape.machine.distributed import LostError
from landscape.sharded import product_methods

WHY = "of their norm from differences of gradients, whose error is"


class Detached(torch.autograd.Function):
    """A sine whose backward reads a detached input."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, g):
        return g * torch.cos(ctx.saved_tensors[0].detach())


class Failing(Detached):
    """One whose backward fails in the second process where its graph is made."""

    @staticmethod
    def backward(ctx, g):
        if torch.is_grad_enabled() and dist.get_rank() == 1:
            raise ArithmeticError("no room here")
        return g * torch.cos(ctx.saved_tensors[0])


class Layer(nn.Module):
    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.linear, self.activation = nn.Linear(5, width), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.linear(x))


class Net(nn.Module):
    """A part of its output goes through a function of one's own."""

    def __init__(
        self, weight: float, function: type[torch.autograd.Function], width: int = 5, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.weight, self.function = weight, function
        self.first = Layer(width, activation or nn.Tanh())
        self.middle, self.last = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x + self.weight * self.function.apply(self.middle(x)))


def objective(net: nn.Module, layer: nn.Module, mesh, dtype: torch.dtype, samples: int = 16, method: str = "auto"):
    x = torch.randn(samples, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    y, half = (x[:, 0] > 0).long(), samples // 2
    for module in (layer, net):
        fully_shard(module, mesh=mesh)
    return ls.ShardedObjective(net, nn.CrossEntropyLoss(), [(x[:half], y[:half]), (x[half:], y[half:])], method=method)


def missing(mesh) -> None:
    """A backward that reads a detached input, at full, half and a tenth of its weight; last, behind kinks at every step."""
    for dtype, weights, width, samples in (
        (torch.float64, (1.0, 0.5, 0.1), 5, 16),
        (torch.float32, (1.0, 0.5), 5, 16),
        (torch.float32, (1.0, 0.5), 64, 1000),
    ):
        for weight in weights:

            def made(method: str, weight=weight, dtype=dtype, width=width, samples=samples):
                torch.manual_seed(3)
                net = Net(weight, Detached, width, nn.Tanh() if width == 5 else nn.ReLU()).to(dtype)
                return objective(net, net.first, mesh, dtype, samples, method)

            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                assert made("auto").products.name == "finite differences", (dtype, weight)
            assert any(WHY in str(w.message) for w in said) == (dist.get_rank() == 0)
            with pytest.raises(NumericalError, match=WHY):
                made("exact").products  # noqa: B018  # a property that does work


def passing(mesh) -> None:
    """Right networks, smooth ones and with kinks, whatever the seed."""
    for activation in (nn.ReLU, nn.GELU):
        for dtype, samples in ((torch.float64, 400), (torch.float32, 16), (torch.float32, 1000)):
            for seed in range(4):
                torch.manual_seed(seed)
                net = nn.Sequential(nn.Linear(5, 24), activation(), nn.Linear(24, 24), activation(), nn.Linear(24, 2)).to(dtype)
                found = objective(net, net[2], mesh, dtype, samples)
                before = found.gradients
                assert product_methods.chosen(found, "exact", None).name == "exact", (activation, dtype, seed)
                sharp = activation is nn.GELU or dtype is torch.float64
                assert found.gradients - before <= (13 if sharp else 65)


def alone(mesh) -> str:
    """What a process raises when the second one fails while the first waits for it."""
    torch.manual_seed(3)
    net = Net(1.0, Failing).double()
    with pytest.raises(LostError) as error:
        objective(net, net.first, mesh, torch.float64).products  # noqa: B018  # likewise
    return str(error.value)


def main() -> None:
    warnings.filterwarnings("ignore", message=".*_register_pre_backward_hook.*")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    missing(mesh)
    passing(mesh)
    text = alone(mesh)  # the last: the second process ends, which the first one waits for
    if dist.get_rank() == 0:
        with open(sys.argv[1], "w") as file:
            json.dump({"alone": text}, file)
    else:
        assert "process 1 of 2 alone: no room here" in text


if __name__ == "__main__":
    main()
