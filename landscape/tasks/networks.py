"""Built-in networks, by name: `build("resnet20", classes=10)`.

Every network is composed of `nn.Module`s that `torch.fx` and `torch.export` can trace; rectifiers are not in place.
Initialization: weights of convolutions and hidden linear layers are He normal, N(0, 2 / fan_in), or N(0, 1 / fan_in) in a
network with tanh; the last linear layer is N(0, 1 / fan_in); biases are 0; BatchNorm has weight 1 and bias 0. All random
numbers come from the seed; the global generator is not changed.
"""

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.errors import UsageError
from landscape.tasks.seeds import stream

# The options come from checkpoints, so they are bounded: a malicious one must not exhaust memory or time.
_LARGEST = {"width": 4096, "channels": 1024, "classes": 100_000, "size": 1024, "blocks": 100, "inputs": 1_000_000}
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def mlp(
    inputs: int = 64,
    widths: Sequence[int] = (128, 64),
    classes: int = 10,
    dropout: float = 0.0,
    batchnorm: bool = False,
    activation: str = "relu",
) -> nn.Module:
    """Fully connected network inputs-widths-classes with biases; images are flattened. 64-128-64-10 has 17,226 weights.

    Each hidden layer is a linear map, BatchNorm (if asked), the activation, dropout (if asked).

    Args:
        inputs: input dimension (channels x height x width).
        widths: numbers of hidden units; their number is the number of hidden layers.
        classes: number of outputs.
        dropout: dropout probability of hidden units, after every activation.
        batchnorm: BatchNorm before every activation.
        activation: "relu" or "tanh".
    """
    if len(widths) > 100:
        raise UsageError(f"expected at most 100 hidden layers, found {len(widths)}")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    last = inputs
    for i, width in enumerate(widths, 1):
        layers[f"fc{i}"] = nn.Linear(last, _bounded("width", width))
        if batchnorm:
            layers[f"bn{i}"] = nn.BatchNorm1d(width)
        layers[f"{activation}{i}"] = _ACTIVATIONS[activation]()
        if dropout:
            layers[f"dropout{i}"] = nn.Dropout(dropout)
        last = width
    layers[f"fc{len(widths) + 1}"] = nn.Linear(last, classes)
    return nn.Sequential(layers)


def digits_cnn(channels: int = 1, size: int = 8, classes: int = 10, width: int = 16, dropout: float = 0.0) -> nn.Module:
    """Two 3x3 convolutions (width, 2 width), each with BatchNorm, ReLU, 2x2 max pooling; one linear layer. 6,138 weights.

    Args:
        channels, size, classes: channels, side and number of classes of the images.
        width: channels of the first convolution.
        dropout: dropout probability before the linear layer.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (a, b) in enumerate(((channels, width), (width, 2 * width)), 1):
        layers[f"conv{i}"] = nn.Conv2d(a, b, 3, padding=1, bias=False)
        layers[f"bn{i}"] = nn.BatchNorm2d(b)
        layers[f"relu{i}"] = nn.ReLU()
        layers[f"pool{i}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["fc"] = nn.Linear(2 * width * _positive(size // 4, "size", 4) ** 2, classes)
    return nn.Sequential(layers)


class PadShortcut(nn.Module):
    """Shortcut A of He et al.: every second pixel, with new channels zero; it has no weights."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.before = channels // 2
        self.after = channels - self.before
        self.stride = stride

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, plus the shortcut, then ReLU."""

    def __init__(self, a: int, b: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(b)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(b, b, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(b)
        self.shortcut: nn.Module = nn.Identity()
        if a != b or stride != 1:
            if shortcut == "A":
                self.shortcut = PadShortcut(b - a, stride)
            else:
                self.shortcut = nn.Sequential(nn.Conv2d(a, b, 1, stride=stride, bias=False), nn.BatchNorm2d(b))
        self.relu2 = nn.ReLU()

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(out + self.shortcut(x))


def resnet20(
    channels: int = 3, classes: int = 10, width: int = 16, blocks: int = 3, shortcut: str = "B", dropout: float = 0.0
) -> nn.Module:
    """Residual network for small images with 6 blocks + 2 layers: 20 for blocks=3. 272,474 weights (269,722 with shortcut="A").

    Parameters are named conv1, bn1, layer1.0.conv1, ..., linear, as in the most common public CIFAR ResNets.

    Args:
        channels, classes: channels and number of classes of the images.
        width: channels of the first stage (16); the next have 2 and 4 times as many.
        blocks: residual blocks per stage: 3 gives ResNet-20, 5 ResNet-32, 7 -44, 9 -56, 18 -110.
        shortcut: shortcut where the shape changes: "B" is a 1x1 convolution with BatchNorm, "A" the one without weights of the
            paper's CIFAR experiments. B is the default, because each stage then has its own scaling symmetry for the
            reparameterization checks. A ties the scales of the stages together.
        dropout: dropout probability before the linear layer.

    Reference: He, Zhang, Ren, Sun 2015, arXiv:1512.03385, section 4.2.
    """
    if shortcut not in ("A", "B"):
        raise UsageError(f"expected shortcut A or B, found {shortcut!r}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    layers["bn1"] = nn.BatchNorm2d(width)
    layers["relu"] = nn.ReLU()
    last = width
    for stage, out in enumerate((width, 2 * width, 4 * width), 1):
        strides = [1 if stage == 1 else 2] + [1] * (blocks - 1)
        stack = []
        for stride in strides:
            stack.append(BasicBlock(last, out, stride, shortcut))
            last = out
        layers[f"layer{stage}"] = nn.Sequential(*stack)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["linear"] = nn.Linear(last, classes)
    return nn.Sequential(layers)


def vgg9(channels: int = 3, size: int = 32, classes: int = 10, width: int = 64, dropout: float = 0.0) -> nn.Module:
    """VGG-9: the first 7 convolutions of VGG-16 and 2 linear layers. 2,789,706 weights.

    3x3 convolutions with biases of 64, 64, pool, 128, 128, pool, 256, 256, 256 channels, pool (2x2 maximum); then linear 256
    and linear `classes`. BatchNorm and ReLU after every layer but the last.

    Args:
        channels, size, classes: channels, side (a multiple of 8) and number of classes of the images.
        width: channels of the first convolutions (64); the others scale with it.
        dropout: dropout probability before the last layer.

    Reference: Li, Xu, Taylor, Studer, Goldstein 2018, arXiv:1712.09913; layers as in their published code.
    """
    features: list[nn.Module] = []
    last = channels
    for factor, count in ((1, 2), (2, 2), (4, 3)):
        for _ in range(count):
            features += [nn.Conv2d(last, factor * width, 3, padding=1), nn.BatchNorm2d(factor * width), nn.ReLU()]
            last = factor * width
        features.append(nn.MaxPool2d(2))
    layers: OrderedDict[str, nn.Module] = OrderedDict(features=nn.Sequential(*features), flatten=nn.Flatten())
    units = last * _positive(size // 8, "size", 8) ** 2
    layers["fc"] = nn.Sequential(nn.Linear(units, last), nn.BatchNorm1d(last), nn.ReLU())
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["classifier"] = nn.Linear(last, classes)
    return nn.Sequential(layers)


def c1(channels: int = 3, size: int = 32, classes: int = 10, width: int = 64, dropout: float = 0.5) -> nn.Module:
    """Network like Keskar's C1: two 5x5 convolutions of 64 channels, then 384 and 192 units. 1,757,834 weights.

    Each convolution (stride 1, zero padding 2) is followed by BatchNorm, ReLU and 3x3 max pooling of stride 2; each hidden
    linear layer by BatchNorm, ReLU and dropout. All with biases.

    Args:
        channels, size, classes: channels, side (a multiple of 4) and number of classes of the images.
        width: channels of the convolutions; the hidden layers have 6 and 3 times as many units.
        dropout: dropout probability after both hidden linear layers.

    Reference: Keskar, Mudigere, Nocedal, Smelyanskiy, Tang 2016, arXiv:1609.04836, network C1; layers as in the published code.
    Deviation: BatchNorm uses running statistics at test time, theirs those of the batch.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, a in enumerate((channels, width), 1):
        layers[f"conv{i}"] = nn.Conv2d(a, width, 5, padding=2)
        layers[f"bn{i}"] = nn.BatchNorm2d(width)
        layers[f"relu{i}"] = nn.ReLU()
        layers[f"pool{i}"] = nn.MaxPool2d(3, stride=2, padding=1)
    layers["flatten"] = nn.Flatten()
    last = width * _positive(size // 4, "size", 4) ** 2
    for i, units in enumerate((6 * width, 3 * width), 3):
        layers[f"fc{i}"] = nn.Linear(last, units)
        layers[f"bn{i}"] = nn.BatchNorm1d(units)
        layers[f"relu{i}"] = nn.ReLU()
        if dropout:
            layers[f"dropout{i}"] = nn.Dropout(dropout)
        last = units
    layers["fc5"] = nn.Linear(last, classes)
    return nn.Sequential(layers)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "digits-cnn": digits_cnn,
    "resnet20": resnet20,
    "vgg9": vgg9,
    "c1": c1,
}


def build(name: str, *, seed: int = 0, device: str = "cpu", **options: Any) -> nn.Module:
    """A built-in network with random weights drawn from `seed`.

    Args:
        name: one of `NETWORKS`.
        seed: seed of the initialization; it gives the same weights on every machine.
        device: device of the weights; "meta" gives shapes only and allocates nothing.
        options: options of the network, see its function.

    Raises:
        UsageError: an unknown network, an unknown option, or a value out of range.

    Example:
        >>> sum(p.numel() for p in build("mlp").parameters())
        17226
    """
    maker = NETWORKS.get(name)
    if maker is None:
        raise UsageError(f"expected a built-in network ({', '.join(NETWORKS)}), found {name!r}")
    known = inspect.signature(maker).parameters
    for key, value in options.items():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            fix = f"did you mean {near[0]}?" if near else None
            raise UsageError(f"expected options of {name} ({', '.join(known)}), found {key!r}", fix=fix)
        _check(name, key, value)
    # Layers draw default weights from the global generator, whose state is restored; `_initialise` replaces these weights.
    with torch.random.fork_rng(devices=[]), torch.device("meta" if device == "meta" else "cpu"):
        model = maker(**options)
    if device == "meta":
        return model
    _initialise(model, stream(seed, "init"))
    return model.to(device)


def accepted(name: str) -> tuple[str, ...]:
    """The options of a built-in network."""
    return tuple(inspect.signature(NETWORKS[name]).parameters)


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Initialize all weights in the order of the modules."""
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    hidden = 1.0 if any(isinstance(m, nn.Tanh) for m in model.modules()) else 2.0
    with torch.no_grad():
        for layer in layers:
            gain = 1.0 if layer is layers[-1] else hidden
            layer.weight.normal_(0, math.sqrt(gain / layer.weight[0].numel()), generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()


def _check(network: str, key: str, value: Any) -> None:
    """Raise UsageError for an option of the wrong type or out of range."""
    if key == "dropout":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise UsageError(f"expected dropout of {network} in [0, 1), found {value!r}")
    elif key == "batchnorm":
        if not isinstance(value, bool):
            raise UsageError(f"expected batchnorm of {network} as true or false, found {value!r}")
    elif key == "activation":
        if value not in tuple(_ACTIVATIONS):
            raise UsageError(f"expected activation of {network} as {' or '.join(_ACTIVATIONS)}, found {value!r}")
    elif key == "widths":
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"expected widths of {network} as a list such as [128, 64], found {value!r}")
    elif key in _LARGEST:
        _bounded(key, value)


def _bounded(key: str, value: Any) -> int:
    """`value`, after checking that it is an integer from 1 to the largest allowed one."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST[key]:
        raise UsageError(f"expected {key} between 1 and {_LARGEST[key]}, found {value!r}")
    return value


def _positive(cells: int, key: str, least: int) -> int:
    """`cells`, the side after pooling, after checking that it is at least one."""
    if cells < 1:
        raise UsageError(f"expected {key} of at least {least}, found a smaller one")
    return cells
