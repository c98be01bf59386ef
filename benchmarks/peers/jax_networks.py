"""The networks that are timed once more, in plain JAX, for peers that stand on it: the weights and the data are carried over.

Images are NHWC and BatchNorm uses its running statistics, as the PyTorch networks do in eval mode. Weights keep PyTorch's names,
shapes and order, so that a vector means the same to both.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from torch import Tensor

from benchmarks.cases import Case

State = dict[str, Array]
HEADS, EPS = 3, 1e-5  # of every attention here; of every normalization


def mean_loss(case: Case) -> tuple[Callable[[Array, Array, Array], Array], Array, Array, Array]:
    """The mean cross-entropy as a function of a flat vector of weights, inputs and targets; and these three as they stand."""
    forward = FORWARD[case.name]
    shapes = {name: tuple(p.shape) for name, p in case.model.named_parameters()}
    sizes = [p.numel() for p in case.model.parameters()]
    ends = list(itertools.accumulate(sizes))
    fixed = {name: carried(b) for name, b in case.model.named_buffers()}

    def loss(w: Array, x: Array, y: Array) -> Array:
        pieces = jnp.split(w, ends[:-1])
        state = fixed | {name: piece.reshape(shape) for piece, (name, shape) in zip(pieces, shapes.items(), strict=True)}
        logits = forward(state, x)
        picked = jnp.take_along_axis(logits, y[..., None], -1)[..., 0]
        return jnp.mean(jax.nn.logsumexp(logits, -1) - picked)

    weights = jnp.concatenate([carried(p).reshape(-1) for p in case.model.parameters()])
    return loss, weights, carried(case.x.movedim(1, -1) if case.x.ndim == 4 else case.x), carried(case.y)


def carried(t: Tensor) -> Array:
    """A tensor as an array; integers of 64 bits become 32, which is JAX's own width."""
    return jnp.asarray(t.detach().contiguous().numpy())


def mlp(p: State, x: Array) -> Array:
    """64-128-64-10 with rectifiers; x is (B, 8, 8, 1)."""
    x = x.reshape(len(x), -1)
    for layer in ("fc1", "fc2"):
        x = jax.nn.relu(_linear(p, layer, x))
    return _linear(p, "fc3", x)


def resnet20(p: State, x: Array) -> Array:
    """Three stages of basic blocks; x is (B, H, W, 3)."""
    x = jax.nn.relu(_batch_norm(p, "bn1", _convolution(p["conv1.weight"], x)))
    for stage in (1, 2, 3):
        for block in itertools.takewhile(lambda b, s=stage: f"layer{s}.{b}.conv1.weight" in p, itertools.count()):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = jax.nn.relu(_batch_norm(p, f"{name}.bn1", _convolution(p[f"{name}.conv1.weight"], x, stride)))
            inner = _batch_norm(p, f"{name}.bn2", _convolution(p[f"{name}.conv2.weight"], inner))
            if stride > 1:
                x = _batch_norm(p, f"{name}.shortcut.1", _convolution(p[f"{name}.shortcut.0.weight"], x, stride))
            x = jax.nn.relu(inner + x)
    return _linear(p, "linear", x.mean((1, 2)))


def vit(p: State, x: Array) -> Array:
    """4x4 patches, transformer blocks, mean of the tokens; x is (B, 32, 32, 3)."""
    b, h, w, c = x.shape
    patches = x.reshape(b, h // 4, 4, w // 4, 4, c).transpose(0, 1, 3, 5, 2, 4).reshape(b, -1, 16 * c)
    kernel = p["patches.weight"]
    tokens = patches @ kernel.reshape(len(kernel), -1).T + p["patches.bias"] + p["position"]
    return _linear(p, "head", _layer_norm(p, "norm", _blocks(p, tokens, causal=False)).mean(1))


def gpt(p: State, x: Array) -> Array:
    """Logits (B, T, V) of the next character; x is (B, T)."""
    tokens = p["token.weight"][x] + p["position"]
    return _linear(p, "head", _layer_norm(p, "norm", _blocks(p, tokens, causal=True)))


FORWARD: dict[str, Callable[[State, Array], Array]] = {"mlp": mlp, "resnet20": resnet20, "vit": vit, "gpt": gpt}


def _linear(p: State, name: str, x: Array) -> Array:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def _convolution(kernel: Array, x: Array, stride: int = 1) -> Array:
    """A square kernel (O, I, K, K) of odd size, padded to keep height and width but for the stride."""
    pad = kernel.shape[-1] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "OIHW", "NHWC")
    )


def _batch_norm(p: State, name: str, x: Array) -> Array:
    scale = p[f"{name}.weight"] / jnp.sqrt(p[f"{name}.running_var"] + EPS)
    return x * scale + (p[f"{name}.bias"] - p[f"{name}.running_mean"] * scale)


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
