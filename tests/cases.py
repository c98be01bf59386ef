"""The table of networks that every curvature test runs over: small enough for a dense float64 Hessian."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Case:
    """A network, a loss and data; `make(seed)` draws them."""

    name: str
    make: Callable[[int], tuple[nn.Module, nn.Module, Tensor, Tensor]]

    def __str__(self) -> str:
        return self.name


class Residual(nn.Module):
    """Two convolutions with BatchNorm and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(h + self.bn2(self.conv2(h)))
        return self.fc(F.adaptive_avg_pool2d(h, 1).flatten(1))


class Attention(nn.Module):
    """One pre-norm attention block over four tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)
        self.mlp = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).view(len(x), 4, 2, 6).transpose(1, 2).chunk(3, -1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), 4, 4)
        x = x + self.out(h)
        x = x + self.mlp(self.norm2(x))
        return self.head(x.mean(1))


def _made(build: Callable[[], nn.Module], shape: tuple[int, ...], classes: int | None, loss: nn.Module, n: int = 23):
    def make(seed: int) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build()
            for name, b in model.named_buffers():
                if name.endswith("running_var"):
                    b.uniform_(0.5, 2.0)
                elif name.endswith("running_mean"):
                    b.normal_()
            x = torch.randn(n, *shape)
            y = torch.randint(0, classes, (n,)) if classes else torch.randn(n, 3)
        return model.eval(), loss, x, y

    return make


class _WrongSecond(torch.autograd.Function):
    """x -> x^3 with its first derivative, whose own derivative is wrong."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x.detach() ** 2


class WrongCube(nn.Module):
    """A layer whose second derivative is wrong."""

    def forward(self, x: Tensor) -> Tensor:
        return _WrongSecond.apply(x)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.LeakyReLU(0.1), nn.Linear(6, 3))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


CASES = [
    Case("mlp", _made(_mlp, (5,), 3, nn.CrossEntropyLoss())),
    Case("mlp-mse", _made(_mlp, (5,), None, nn.MSELoss())),
    Case(
        "mlp-class-weights",
        _made(_mlp, (5,), 3, nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]), label_smoothing=0.1)),
    ),
    Case("cnn-batchnorm", _made(_cnn, (1, 8, 8), 4, nn.CrossEntropyLoss())),
    Case("residual", _made(Residual, (2, 5, 5), 4, nn.CrossEntropyLoss())),
    Case("attention", _made(Attention, (4, 4), 3, nn.CrossEntropyLoss())),
]
