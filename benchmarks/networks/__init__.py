"""The networks that are timed, trained: their weights lie beside this file, `python -m benchmarks.train` makes them again.

Curvature depends on the weights: a fresh network has another spectrum than a trained one, and an eigensolver another job.
"""

import codecs
import contextlib
import io
import math
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.tasks import build

FOLDER = Path(__file__).resolve().parent
CONTEXT = 32  # characters that the GPT sees
_STRIDE = 3  # characters between the starts of two of its samples


class Attention(nn.Module):
    """Multi-head self-attention through PyTorch's scaled dot product."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        b, t, c = x.shape
        q, k, v = self.inputs(x).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.output(mixed.transpose(1, 2).reshape(b, t, c))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then two linear layers with a GELU, each added to its input."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, causal)
        self.norm2, self.up, self.gelu, self.down = (
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width),
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """Vision transformer for 32x32 colour images: 64 patches of 4x4, mean of the tokens, 10 classes. 90,826 weights.

    Reference: Dosovitskiy et al. 2021, arXiv:2010.11929; the mean instead of a class token.
    """

    def __init__(self, width: int = 48, depth: int = 3, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.position = nn.Parameter(torch.zeros(64, width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=False) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Float[Tensor, "B 3 32 32"]) -> Float[Tensor, "B 10"]:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class GPT(nn.Module):
    """Decoder-only transformer that predicts the next character; logits are (B, V, T), as cross-entropy takes them.

    90,813 weights.

    Reference: Radford et al. 2019, "Language models are unsupervised multitask learners".
    """

    def __init__(self, characters: int, width: int = 48, depth: int = 3, heads: int = 3) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(characters, width), nn.Parameter(torch.zeros(CONTEXT, width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)

    def forward(self, x: Int[Tensor, "B T"]) -> Float[Tensor, "B V T"]:
        return self.head(self.norm(self.blocks(self.token(x) + self.position))).transpose(1, 2)


def zen() -> str:
    """The Zen of Python, 856 characters of text that ship with every Python."""
    with contextlib.redirect_stdout(io.StringIO()):
        import this
    return codecs.decode(this.s, "rot13")


def characters() -> tuple[Int[Tensor, "N T"], Int[Tensor, "N T"]]:
    """Windows of the text and the characters that follow, as numbers of the sorted alphabet."""
    text = zen()
    alphabet = {c: i for i, c in enumerate(sorted(set(text)))}
    codes = torch.tensor([alphabet[c] for c in text])
    windows = codes.unfold(0, CONTEXT + 1, _STRIDE)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def digits(size: int, channels: int) -> tuple[Float[Tensor, "N C H W"], Int[Tensor, " N"]]:
    """scikit-learn's 1,797 handwritten digits, standardized, enlarged from 8x8 and repeated over the channels."""
    found = load_digits()
    x = torch.from_numpy(found.images).float().unsqueeze(1)
    x = (x - x.mean()) / x.std()
    if size != 8:
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return x.expand(-1, channels, -1, -1).contiguous(), torch.from_numpy(found.target)


def initialised(maker: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A transformer with fresh weights: N(0, 0.02^2), the projections back into the stream smaller by the number of them."""
    with torch.random.fork_rng(devices=[]):
        model = maker()
    g = torch.Generator().manual_seed(seed)
    inner = 2 * sum(isinstance(m, Block) for m in model.modules())
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                p.normal_(0, 0.02 / (math.sqrt(inner) if ".output." in name or ".down." in name else 1), generator=g)
            elif name.endswith("bias"):
                p.zero_()
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]]]] = {
    "mlp": (lambda: build("mlp", seed=0), lambda: digits(8, 1)),
    "resnet20": (lambda: build("resnet20", seed=0), lambda: digits(32, 3)),
    "vit": (lambda: initialised(ViT), lambda: digits(32, 3)),
    "gpt": (lambda: initialised(lambda: GPT(len(set(zen())))), characters),
}
TITLES = {"mlp": "digits MLP", "resnet20": "ResNet-20", "vit": "small ViT", "gpt": "small GPT"}


def trained(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network with its trained weights in eval mode, and all of its training data."""
    maker, data = NETWORKS[name]
    model = maker()
    model.load_state_dict(load_file(FOLDER / f"{name}.safetensors"))
    return model.eval(), *data()
