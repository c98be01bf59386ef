"""Networks with every way in which a scale can pass, or be stopped; all parameters and running statistics are random."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.tasks import networks


@dataclass(frozen=True)
class Net:
    """A network in float64, the shape of one input, the first units that must be found, and how many free neurons in all."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    units: tuple[str, ...]
    neurons: int

    def __str__(self) -> str:
        return self.name

    def make(self, seed: int = 0, n: int = 7) -> tuple[nn.Module, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.build().double().eval()
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim < 2:  # biases and norm layers start at 0 and 1, where mistakes hide
                    p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
            for name, b in model.named_buffers():
                if name.endswith("running_var"):
                    b.copy_(0.2 + torch.rand(b.shape, generator=generator, dtype=b.dtype))
                elif name.endswith("running_mean"):
                    b.copy_(torch.randn(b.shape, generator=generator, dtype=b.dtype))
        return model, torch.randn(n, *self.shape, generator=generator, dtype=torch.float64)


class Functional(nn.Module):
    """Plain tensors, functional calls, a weight used transposed, in-place activations."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(6))
        self.w2 = nn.Parameter(torch.randn(6, 5))
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.w1, self.b1)
        F.relu_(x)
        x = x @ self.w2
        x *= 0.5
        return self.last(F.leaky_relu(x, 0.2))


class Twice(nn.Module):
    """One module called twice in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.shared, self.leave = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.leaky_relu(self.shared(F.leaky_relu(self.shared(F.leaky_relu(self.enter(x)))))))


class Tied(nn.Module):
    """An autoencoder whose decoder is the transposed encoder: the scale of each code unit is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.leaky_relu(self.encoder(x)), self.encoder.weight.t())


class HalfTied(nn.Module):
    """Two layers share one weight under two names, with biases of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.out = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.c.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.leaky_relu(self.c(F.leaky_relu(self.b(F.leaky_relu(self.a(x)))))))


class Dense(nn.Module):
    """DenseNet: each layer reads the concatenation of all before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1, self.conv2 = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(5, 4, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(3), nn.BatchNorm2d(5)
        self.fc = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv0(x)
        b = torch.cat([a, self.conv1(F.relu(self.norm1(a)))], 1)
        c = torch.cat([b, self.conv2(F.relu(self.norm2(b)))], 1)
        return self.fc(F.relu(c).mean((2, 3)))


class PreNorm(nn.Module):
    """A transformer block with class token, positions, LayerScale and a rectified MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cls, self.pos = nn.Linear(3, 8), nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc1, self.fc2, self.gamma = nn.Linear(8, 16), nn.Linear(16, 8), nn.Parameter(torch.randn(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls.expand(len(x), -1, -1), self.embed(x)], 1) + self.pos
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        x = x + self.gamma * self.fc2(F.relu(self.fc1(self.norm2(x))))
        return self.head(self.norm3(x)[:, 0])


class Gated(nn.Module):
    """Squeeze and excitation, a gate on half of the channels, and a branch that is only partly homogeneous."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.excite = nn.Conv2d(2, 8, 3), nn.Linear(8, 4), nn.Linear(4, 8)
        self.mix, self.fc = nn.Conv2d(8, 12, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv(x))
        x = x * torch.sigmoid(self.excite(F.leaky_relu(self.squeeze(x.mean((2, 3))))))[:, :, None, None]
        value, gate = self.mix(x).chunk(2, 1)
        return self.fc(F.adaptive_max_pool2d(F.leaky_relu(value) * torch.tanh(gate), 1).flatten(1))


class Decoder(nn.Module):
    """Grouped, transposed and depthwise convolutions, padding, interpolation, a shuffle, PReLU, a flatten that interleaves."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 8, 3, groups=2, bias=False), nn.Conv2d(8, 8, 3, groups=8)
        self.up, self.c = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2), nn.Conv2d(6, 4, 3)
        self.prelu, self.each = nn.PReLU(), nn.PReLU(6)
        self.fc = nn.Linear(4 * 3 * 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.prelu(self.a(x)), (1, 1, 1, 1))
        x = F.channel_shuffle(self.b(x), 4)
        x = F.interpolate(self.each(self.up(F.pad(x, (1, 0, 0, 1), mode="reflect"))), size=(5, 5), mode="bilinear")
        return self.fc(self.c(x).clamp(min=0).permute(0, 2, 3, 1).reshape(len(x), -1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 6), nn.LeakyReLU(0.1), nn.Linear(6, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2, padding=1), nn.Conv2d(4, 5, 2), nn.ReLU(inplace=True),
        nn.AvgPool2d(2, padding=1), nn.Flatten(), nn.Linear(20, 6), nn.BatchNorm1d(6, affine=False), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


STREAM = "bn1 + layer1.0.bn2 + layer1.1.bn2 + layer1.2.bn2"

NETS = [
    Net("mlp", mlp, (5,), ("0", "3"), 14),
    Net("cnn", cnn, (1, 8, 8), ("0", "1", "4", "8"), 19),
    Net("functional", Functional, (4,), ("w1", "w2"), 11),
    Net("twice", Twice, (4,), ("enter + shared",), 5),
    Net("half-tied", HalfTied, (4,), ("a + b",), 6),
    Net("dense", Dense, (2, 4, 4), ("conv0", "norm1", "conv1", "norm2", "conv2"), 17),
    Net("pre-norm", PreNorm, (4, 3), ("norm1", "attention.in_proj_weight", "norm2", "fc1", "fc2"), 48),
    Net("gated", Gated, (2, 6, 6), ("conv", "squeeze", "mix"), 18),
    Net("decoder", Decoder, (2, 6, 6), ("a", "b", "up", "c"), 26),
    Net("resnet20", lambda: networks.resnet20(width=4), (3, 16, 16), ("conv1", STREAM, "layer1.0.conv1", "layer1.0.bn1"), 308),
    Net("resnet20-padding", lambda: networks.resnet20(width=4, shortcut="A"), (3, 16, 16), ("conv1",), 272),
    Net("vgg9", lambda: networks.vgg9(size=16, width=4), (3, 16, 16), ("features.0", "features.1"), 176),
    Net("keskar-c1", lambda: networks.c1(size=16, width=4), (3, 16, 16), ("conv1", "bn1", "conv2", "bn2"), 88),
]
BY_NAME = {net.name: net for net in NETS}

WITHOUT: dict[str, nn.Module] = {
    "tied": Tied(),
    "gelu": nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2)),
    "tanh": nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)),
    "sigmoid": nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 2)),
    "relu6": nn.Sequential(nn.Linear(4, 5), nn.ReLU6(), nn.Linear(5, 2)),
}
