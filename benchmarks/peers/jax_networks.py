"""The networks that are timed once more, in plain JAX, for peers that stand on it: the weights and the data are carried over.

BatchNorm uses its running statistics, as the PyTorch networks do in eval mode. Weights keep PyTorch's names, shapes and order,
so that a vector means the same to both.
"""

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import torch
from jax import Array, lax
from torch import Tensor

from benchmarks.cases import Case

State = dict[str, Array]
HEADS, EPS = 3, 1e-5  # of every attention here; of every normalization


class Point(NamedTuple):
    """What a loss is a function of: the weights as one vector, what is fixed in the network, inputs and targets."""

    weights: Array
    fixed: State
    x: Array
    y: Array


@dataclass(frozen=True)
class Network:
    """A network by its name and shapes, which what is compiled is kept by.

    Attributes:
        name: of the case.
        shapes: of the weights, by name, in their order.
        channels_last: how ResNet-20 stores its images; in the other networks there is no choice.
    """

    name: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    channels_last: bool

    @classmethod
    def of(cls, case: Case) -> tuple["Network", Point]:
        """The network of a case, in its memory format, and the point where the case stands."""
        shapes = tuple((name, tuple(p.shape)) for name, p in case.model.named_parameters())
        last = case.name == "resnet20" and case.x.is_contiguous(memory_format=torch.channels_last)
        weights = torch.cat([p.detach().reshape(-1) for p in case.model.parameters()])
        fixed = {name: carried(b) for name, b in case.model.named_buffers()}
        return cls(case.name, shapes, last), Point(carried(weights), fixed, carried(case.x), carried(case.y))

    @property
    def convolves(self) -> bool:
        """Whether it has convolutions of many images."""
        return self.name == "resnet20"

    def outputs(self, weights: Array, fixed: State, x: Array) -> Array:
        """Logits with the classes last."""
        ends = list(itertools.accumulate(math.prod(shape) for _, shape in self.shapes))
        pieces = jnp.split(weights, ends[:-1])
        p = fixed | {name: piece.reshape(shape) for piece, (name, shape) in zip(pieces, self.shapes, strict=True)}
        if self.name == "resnet20":
            return resnet20(p, x, self.channels_last)
        return {"mlp": mlp, "vit": vit, "gpt": gpt}[self.name](p, x)

    def loss(self, weights: Array, point: Point) -> Array:
        """The mean cross-entropy at other weights than the point's."""
        logits = self.outputs(weights, point.fixed, point.x)
        picked = jnp.take_along_axis(logits, point.y[..., None], -1)[..., 0]
        return jnp.mean(jax.nn.logsumexp(logits, -1) - picked)


def carried(t: Tensor) -> Array:
    """A tensor as an array; integers of 64 bits become 32, which is JAX's own width."""
    t = t.detach().contiguous()
    return jnp.asarray((t if t.is_floating_point() else t.int()).numpy())


def mlp(p: State, x: Array) -> Array:
    """64-128-64-10 with rectifiers; x is (B, 1, 8, 8)."""
    x = x.reshape(len(x), -1)
    for layer in ("fc1", "fc2"):
        x = jax.nn.relu(_linear(p, layer, x))
    return _linear(p, "fc3", x)


def resnet20(p: State, x: Array, channels_last: bool) -> Array:
    """Three stages of basic blocks; x is (B, C, H, W)."""
    axis = 3 if channels_last else 1

    def layer(kernel: str, norm: str, x: Array, stride: int = 1) -> Array:
        return _batch_norm(p, norm, _convolution(p[f"{kernel}.weight"], x, stride, channels_last), axis)

    x = jax.nn.relu(layer("conv1", "bn1", x.transpose(0, 2, 3, 1) if channels_last else x))
    for stage in (1, 2, 3):
        for block in itertools.takewhile(lambda b, s=stage: f"layer{s}.{b}.conv1.weight" in p, itertools.count()):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = jax.nn.relu(layer(f"{name}.conv1", f"{name}.bn1", x, stride))
            inner = layer(f"{name}.conv2", f"{name}.bn2", inner)
            if stride > 1:
                x = layer(f"{name}.shortcut.0", f"{name}.shortcut.1", x, stride)
            x = jax.nn.relu(inner + x)
    return _linear(p, "linear", x.mean((1, 2) if channels_last else (2, 3)))


def vit(p: State, x: Array) -> Array:
    """4x4 patches, transformer blocks, mean of the tokens; x is (B, 3, 32, 32)."""
    b, c, h, w = x.shape
    patches = x.reshape(b, c, h // 4, 4, w // 4, 4).transpose(0, 2, 4, 1, 3, 5).reshape(b, -1, 16 * c)
    kernel = p["patches.weight"]
    tokens = patches @ kernel.reshape(len(kernel), -1).T + p["patches.bias"] + p["position"]
    return _linear(p, "head", _layer_norm(p, "norm", _blocks(p, tokens, causal=False)).mean(1))


def gpt(p: State, x: Array) -> Array:
    """Logits of the next character; x is (B, T)."""
    tokens = p["token.weight"][x] + p["position"]
    return _linear(p, "head", _layer_norm(p, "norm", _blocks(p, tokens, causal=True)))


def _linear(p: State, name: str, x: Array) -> Array:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def _convolution(kernel: Array, x: Array, stride: int, channels_last: bool) -> Array:
    """A square kernel (O, I, K, K) of odd size, padded to keep height and width but for the stride."""
    pad, images = kernel.shape[-1] // 2, "NHWC" if channels_last else "NCHW"
    numbers = (images, "OIHW", images)
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=numbers)


def _batch_norm(p: State, name: str, x: Array, axis: int) -> Array:
    scale = p[f"{name}.weight"] / jnp.sqrt(p[f"{name}.running_var"] + EPS)
    shift = p[f"{name}.bias"] - p[f"{name}.running_mean"] * scale
    shape = [-1 if i == axis else 1 for i in range(4)]
    return x * scale.reshape(shape) + shift.reshape(shape)


def _layer_norm(p: State, name: str, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scale = lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPS)
    return centred * scale * p[f"{name}.weight"] + p[f"{name}.bias"]


def _blocks(p: State, x: Array, causal: bool) -> Array:
    """Pre-norm transformer blocks."""
    for i in itertools.takewhile(lambda i: f"blocks.{i}.up.weight" in p, itertools.count()):
        name = f"blocks.{i}"
        x = x + _attention(p, f"{name}.attention", _layer_norm(p, f"{name}.norm1", x), causal)
        up = jax.nn.gelu(_linear(p, f"{name}.up", _layer_norm(p, f"{name}.norm2", x)), approximate=False)
        x = x + _linear(p, f"{name}.down", up)
    return x


def _attention(p: State, name: str, x: Array, causal: bool) -> Array:
    b, t, c = x.shape
    q, k, v = _linear(p, f"{name}.inputs", x).reshape(b, t, 3, HEADS, c // HEADS).transpose(2, 0, 3, 1, 4)
    scores = q @ k.swapaxes(-1, -2) / (c // HEADS) ** 0.5
    if causal:
        scores = jnp.where(jnp.tri(t, dtype=bool), scores, -jnp.inf)
    mixed = jax.nn.softmax(scores) @ v
    return _linear(p, f"{name}.output", mixed.transpose(0, 2, 1, 3).reshape(b, t, c))
