"""Thirty small networks to search boxes around: perceptrons, convolutions and attention, fitted and not, in both dtypes."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.objective import Objective

# Steps of Adam on the whole data: none, some, and until the loss is small.
STEPS = {"new": 0, "fitted": 60, "overfitted": 500}


class Attention(nn.Module):
    """Two pre-norm attention blocks over six tokens of width eight."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(5, 8)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"norm": nn.LayerNorm(8), "qkv": nn.Linear(8, 24), "out": nn.Linear(8, 8), "norm2": nn.LayerNorm(8),
                           "up": nn.Linear(8, 16), "down": nn.Linear(16, 8)}) for _ in range(2)
        )  # fmt: skip
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            q, k, v = block["qkv"](block["norm"](x)).chunk(3, -1)
            x = x + block["out"](torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v)
            x = x + block["down"](F.gelu(block["up"](block["norm2"](x))))
        return self.head(x.mean(1))


class Residual(nn.Module):
    """Three convolutions with BatchNorm and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv3, self.fc = nn.Conv2d(8, 10, 3), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(h + self.bn2(self.conv2(h)))
        return self.fc(F.relu(self.conv3(h)).mean((2, 3)))


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 4))


def _deep() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
    )


def _convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 10), nn.Tanh(),
        nn.Linear(10, 4),
    )  # fmt: skip


BUILD = {
    "perceptron": (_perceptron, (8,)),
    "deep": (_deep, (8,)),
    "convolutions": (_convolutions, (2, 6, 6)),
    "residual": (Residual, (2, 6, 6)),
    "attention": (Attention, (6, 5)),
}


@dataclass(frozen=True)
class BoxNetwork:
    """A network on random data with noisy classes."""

    kind: str
    state: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.state}-{self.dtype}"

    @cached_property
    def parts(self) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
        """Model, loss, inputs and classes."""
        build, shape = BUILD[self.kind]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(NETWORKS.index(self))
            model, teacher, x = build(), build(), torch.randn(96, *shape)
            y = teacher.eval()(x).detach().add(0.1 * torch.randn(96, 4)).argmax(1)
            model.train()
            model(x)  # the statistics of BatchNorm
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
            for _ in range(STEPS[self.state]):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
        return model.eval(), nn.CrossEntropyLoss(), x, y

    @property
    def objective(self) -> Objective:
        """On all its data."""
        model, loss, x, y = self.parts
        return Objective(model, loss, (x, y), dtype=self.dtype)


NETWORKS = [
    BoxNetwork(kind, state, dtype) for kind in BUILD for state in STEPS for dtype in ("float32", "float64")
]  # fmt: skip
