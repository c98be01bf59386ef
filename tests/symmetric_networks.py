"""Small networks with every family of symmetries, and for each network the moves along them, by hand from the algebra alone.

A network's method of a family's name (`pair`, `norm_out`, ...) changes its weights in place; `node` is also `layer`, with one
factor for all neurons of a layer. `families` lists what a network has; `moved` is a moved copy.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.symmetry.families import FAMILIES, Family

EPS = 1e-12  # of the normalizations: a factor before one is then taken away to 1e-12
TOKENS, WORDS, CLASSES, WIDTH = 5, 11, 3, 8
ALL = slice(None)


@dataclass(frozen=True)
class Draw:
    """Random changes of the weights; `alike`: one factor for all neurons of a layer."""

    generator: torch.Generator
    alike: bool = False

    def vector(self, n: int) -> Tensor:
        return torch.randn(n, generator=self.generator, dtype=torch.float64)

    def scale(self, n: int) -> Tensor:
        """Factors that are never near 1 for all."""
        draw = self.vector(1 if self.alike else n)
        return torch.exp(draw.sign() * (0.5 + draw.abs())).expand(n)

    def orthogonal(self, n: int) -> Tensor:
        return torch.linalg.qr(torch.randn(n, n, generator=self.generator, dtype=torch.float64))[0]

    def invertible(self, n: int) -> Tensor:
        """Singular values from 1/4 to 4."""
        return self.orthogonal(n) * torch.logspace(-2, 2, n, 2.0, dtype=torch.float64) @ self.orthogonal(n)

    def centred(self, n: int) -> Tensor:
        """Orthogonal, and (1, ..., 1) stays."""
        basis = torch.linalg.qr(torch.cat([torch.ones(n, 1).double(), torch.eye(n, n - 1).double()], 1))[0]
        inner = torch.block_diag(torch.ones(1, 1).double(), self.orthogonal(n - 1))
        return basis @ inner @ basis.T

    def rotary(self, n: int) -> Tensor:
        """A factor and a rotation for each pair of channels i and i + n/2."""
        real, imaginary = (torch.diag(1.5 * self.vector(n // 2)) for _ in range(2))
        return torch.cat([torch.cat([real, -imaginary], 1), torch.cat([imaginary, real], 1)])


class InProjection:
    """The joint projection of `nn.MultiheadAttention`, or of a layer of its kind, as a layer."""

    def __init__(self, module: nn.MultiheadAttention) -> None:
        self.weight, self.bias = module.in_proj_weight, module.in_proj_bias


def write(layer: nn.Linear | InProjection, a: Tensor, rows: slice = ALL) -> None:
    """The channels that these rows write become A times them."""
    layer.weight[rows] = a @ layer.weight[rows]
    if layer.bias is not None:
        layer.bias[rows] = a @ layer.bias[rows]


def read(layer: nn.Linear | InProjection, a: Tensor, columns: slice = ALL) -> None:
    """These columns read A times the channels, and give what they gave."""
    layer.weight[:, columns] = layer.weight[:, columns] @ torch.linalg.inv(a)


def rescale(s: Tensor, written: list[nn.Module], *readers: nn.Linear | InProjection) -> None:
    """Outputs of layers or norms times s, what reads them divided by it."""
    for layer in written:
        for p in layer.parameters():
            p *= s if p.ndim == 1 else s[:, None]
    for layer in readers:
        layer.weight /= s


def trade(d: Tensor, bias: Tensor, *readers: nn.Linear | InProjection) -> None:
    """d more in a bias, and what reads it takes it away in its own."""
    bias += d
    for layer in readers:
        layer.bias -= layer.weight @ d


def turn(norm: nn.LayerNorm | nn.RMSNorm, r: Tensor, *readers: nn.Linear) -> None:
    """What a norm reads is turned by R; its gain stays, so that R acts in units of it on what reads the norm."""
    in_units = norm.weight[:, None] * r / norm.weight
    for layer in readers:
        read(layer, in_units)
    if isinstance(norm, nn.LayerNorm):
        norm.bias.copy_(in_units @ norm.bias)


def shift_logits(head: nn.Linear, draw: Draw) -> None:
    """All classes' weights and biases by the same."""
    head.weight += draw.vector(head.in_features)
    if head.bias is not None:
        head.bias += draw.vector(1)


def heads_of(x: Tensor, heads: int) -> Tensor:
    """(B, T, heads h) as (B, heads, T, h)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def turned(x: Tensor) -> Tensor:
    """Rotary embedding: at position t the channels i and i + h/2 are turned by the angle t / 10^i."""
    t, h = x.shape[-2], x.shape[-1]
    angle = torch.arange(t, dtype=x.dtype)[:, None] / 10.0 ** torch.arange(h // 2, dtype=x.dtype)
    first, second = x.chunk(2, -1)
    return x * angle.cos().repeat(1, 2) + torch.cat([-second, first], -1) * angle.sin().repeat(1, 2)


class Attention(nn.Module):
    """Attention over five tokens: rectified layer -> q, k, v -> out, mean -> rectifier -> head.

    Args:
        bias: whether the projections have biases.
        heads, shared: of the queries, and how many queries share a key and a value.
        rotary: whether a rotary embedding turns queries and keys.
    """

    def __init__(self, *, bias: bool = True, heads: int = 2, shared: int = 1, rotary: bool = False) -> None:
        super().__init__()
        self.heads, self.shared, self.rotary, self.h = heads, shared, rotary, WIDTH // heads
        self.embed, self.head = nn.Linear(3, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.q, self.out = nn.Linear(WIDTH, WIDTH, bias), nn.Linear(WIDTH, WIDTH, bias)
        self.k, self.v = (nn.Linear(WIDTH, WIDTH // shared, bias) for _ in range(2))

    def attention(self, x: Tensor) -> Tensor:
        """By single products and a softmax."""
        q, k, v = heads_of(self.q(x), self.heads), *(heads_of(p(x), self.heads // self.shared) for p in (self.k, self.v))
        k, v = (z.repeat_interleave(self.shared, 1) for z in (k, v))
        q, k = (turned(q), turned(k)) if self.rotary else (q, k)
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.h), -1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.attention(F.relu(self.embed(x))).mean(1)))

    def projections(self) -> list[tuple[nn.Linear, int]]:
        """Queries, keys and values: the layer, and its first row."""
        return [(self.q, 0), (self.k, 0), (self.v, 0)]

    def columns(self) -> list[nn.Linear]:
        return list(dict.fromkeys(layer for layer, _ in self.projections()))

    def rows(self, start: int, i: int) -> slice:
        return slice(start + i * self.h, start + (i + 1) * self.h)

    def of_key(self, i: int) -> list[slice]:
        """The channels of the queries that share the i-th key."""
        return [self.rows(0, i * self.shared + j) for j in range(self.shared)]

    def node(self, draw: Draw) -> None:
        rescale(draw.scale(WIDTH), [self.embed], *self.columns())
        rescale(draw.scale(WIDTH), [self.out], self.head)

    def pair(self, draw: Draw) -> None:
        (q, q0), (k, k0), (v, v0) = self.projections()
        for i in range(self.heads // self.shared):
            a, b = draw.rotary(self.h) if self.rotary else draw.invertible(self.h), draw.invertible(self.h)
            write(k, torch.linalg.inv(a).T, self.rows(k0, i))
            write(v, b, self.rows(v0, i))
            for part in self.of_key(i):
                write(q, a, slice(q0 + part.start, q0 + part.stop))
                read(self.out, b, part)

    def shift(self, draw: Draw) -> None:
        shift_logits(self.head, draw)
        k, k0 = self.projections()[1]
        if k.bias is not None and not self.rotary:  # the same for all keys, unless it is turned
            k.bias[k0 : k0 + WIDTH // self.shared] += draw.vector(WIDTH // self.shared)


class BiasedAttention(Attention):
    """With the trade of the values' biases, which attention passes on whole: its weights sum to 1."""

    def bias(self, draw: Draw) -> None:
        v, v0 = self.projections()[2]
        for i in range(self.heads // self.shared):
            d = draw.vector(self.h)
            v.bias[self.rows(v0, i)] += d
            for part in self.of_key(i):
                self.out.bias -= self.out.weight[:, part] @ d


class FusedAttention(BiasedAttention):
    """One joint projection, and PyTorch's fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        del self.q, self.k, self.v

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = (heads_of(z, self.heads) for z in self.qkv(x).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def projections(self) -> list[tuple[nn.Linear, int]]:
        return [(self.qkv, i * WIDTH) for i in range(3)]


class MultiheadAttention(BiasedAttention):
    """`nn.MultiheadAttention`."""

    def __init__(self) -> None:
        super().__init__()
        self.multi = nn.MultiheadAttention(WIDTH, self.heads, batch_first=True)
        del self.q, self.k, self.v
        self.out = self.multi.out_proj

    def attention(self, x: Tensor) -> Tensor:
        return self.multi(x, x, x, need_weights=False)[0]

    def projections(self) -> list[tuple[nn.Linear | InProjection, int]]:
        joint = InProjection(self.multi)
        return [(joint, i * WIDTH) for i in range(3)]


class LowRank(nn.Module):
    """A layer and a low-rank adapter beside it, as LoRA's."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.head = nn.Linear(6, 7), nn.Linear(7, CLASSES)
        self.down, self.up = nn.Linear(6, 3, bias=False), nn.Linear(3, 7, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.base(x) + 2.0 * self.up(self.down(x))))

    def node(self, draw: Draw) -> None:
        rescale(draw.scale(7), [self.base, self.up], self.head)

    def pair(self, draw: Draw) -> None:
        a = draw.invertible(3)
        write(self.down, a)
        read(self.up, a)

    def shift(self, draw: Draw) -> None:
        shift_logits(self.head, draw)


class Stacked(nn.Module):
    """Linear layers with nothing between them, then a rectified one; for a loss that no constant leaves alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = nn.Linear(5, 4), nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.c(self.b(self.a(x)))))

    def node(self, draw: Draw) -> None:
        rescale(draw.scale(6), [self.c], self.head)

    def pair(self, draw: Draw) -> None:
        for first, second in ((self.a, self.b), (self.b, self.c)):
            a = draw.invertible(second.in_features)
            write(first, a)
            read(second, a)

    def bias(self, draw: Draw) -> None:
        trade(draw.vector(4), self.a.bias, self.b)
        trade(draw.vector(6), self.b.bias, self.c)


class Normed(nn.Module):
    """Linear -> LayerNorm -> Linear -> rectifier -> Linear, all with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b, self.head = nn.Linear(4, 6), nn.LayerNorm(6, EPS), nn.Linear(6, 7), nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.b(self.norm(self.a(x)))))

    def node(self, draw: Draw) -> None:
        rescale(draw.scale(7), [self.b], self.head)

    def norm_out(self, draw: Draw) -> None:
        rescale(draw.scale(6), [self.norm], self.b)

    def norm_in(self, draw: Draw) -> None:
        rescale(draw.scale(1), [self.a])

    def rotation(self, draw: Draw) -> None:
        r = draw.centred(6)
        write(self.a, r)
        turn(self.norm, r, self.b)

    def shift(self, draw: Draw) -> None:
        shift_logits(self.head, draw)
        self.a.weight += draw.vector(4)  # the same for every output
        self.a.bias += draw.vector(1)

    def bias(self, draw: Draw) -> None:
        trade(draw.vector(6), self.norm.bias, self.b)


class TiedStream(nn.Module):
    """A pre-norm transformer block on tokens whose head is the embedding of the words; RMSNorm, no biases; the last word."""

    def __init__(self, norm: type[nn.Module] = nn.RMSNorm, *, bias: bool = False) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(WORDS, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.norm1, self.norm2, self.norm3 = (norm(WIDTH, EPS) for _ in range(3))
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH, bias) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(WIDTH, 12, bias), nn.Linear(12, WIDTH, bias)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.positions(torch.arange(tokens.shape[1]))
        z = self.norm1(x)
        q, k, v = (heads_of(layer(z), 2) for layer in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        x = x + self.fc2(F.relu(self.fc1(self.norm2(x))))
        return self.head(self.read_out(self.norm3(x)))

    def read_out(self, x: Tensor) -> Tensor:
        return x[:, -1]

    def node(self, draw: Draw) -> None:
        rescale(draw.scale(12), [self.fc1], self.fc2)

    def pair(self, draw: Draw) -> None:
        for rows in (slice(0, 4), slice(4, 8)):
            a, b = draw.invertible(4), draw.invertible(4)
            write(self.q, a, rows)
            write(self.k, torch.linalg.inv(a).T, rows)
            write(self.v, b, rows)
            read(self.out, b, rows)

    def norm_out(self, draw: Draw) -> None:
        rescale(draw.scale(WIDTH), [self.norm1], self.q, self.k, self.v)
        rescale(draw.scale(WIDTH), [self.norm2], self.fc1)

    def trade_words(self, draw: Draw) -> None:
        """Words against positions."""
        d = draw.vector(WIDTH)
        self.words.weight += d
        self.positions.weight -= d

    def shift(self, draw: Draw) -> None:
        """The words are the head: all logits of a token move by the same."""
        self.trade_words(draw)


class Stream(TiedStream):
    """With a head of its own: the last norm's gain, and the stream's scale and axes, are free."""

    def __init__(self, norm: type[nn.Module] = nn.RMSNorm, *, bias: bool = False) -> None:
        super().__init__(norm, bias=bias)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)

    def writers(self) -> list[nn.Module]:
        """All that writes to the stream."""
        return [self.words, self.positions, self.out, self.fc2]

    def norm_out(self, draw: Draw) -> None:
        super().norm_out(draw)
        rescale(draw.scale(WIDTH), [self.norm3], self.head)

    def norm_in(self, draw: Draw) -> None:
        rescale(draw.scale(1), self.writers())

    def shift(self, draw: Draw) -> None:
        """Also words against positions, between which nothing is curved."""
        shift_logits(self.head, draw)
        self.trade_words(draw)

    def axes(self, draw: Draw) -> Tensor:
        """The matrices that commute with the normalization."""
        return draw.orthogonal(WIDTH)

    def rotation(self, draw: Draw) -> None:
        """The stream becomes R times itself."""
        r = self.axes(draw)
        for layer in self.writers():
            if isinstance(layer, nn.Embedding):
                layer.weight.copy_(layer.weight @ r.T)
            else:
                write(layer, r)
        for norm, readers in ((self.norm1, [self.q, self.k, self.v]), (self.norm2, [self.fc1]), (self.norm3, [self.head])):
            turn(norm, r, *readers)


class LayerNormStream(Stream):
    """With LayerNorm and biases, except in the head; outputs (B, T, C) for all words."""

    def __init__(self) -> None:
        super().__init__(nn.LayerNorm, bias=True)

    def read_out(self, x: Tensor) -> Tensor:
        return x

    def axes(self, draw: Draw) -> Tensor:
        return draw.centred(WIDTH)

    def shift(self, draw: Draw) -> None:
        """Also the mean of every row that writes to the stream, and the keys' biases."""
        super().shift(draw)
        for table in (self.words, self.positions):
            table.weight += draw.vector(len(table.weight))[:, None]
        for layer in (self.out, self.fc2):
            layer.weight += draw.vector(layer.in_features)
            layer.bias += draw.vector(1)
        self.k.bias += draw.vector(WIDTH)

    def bias(self, draw: Draw) -> None:
        trade(draw.vector(WIDTH), self.norm1.bias, self.q, self.k, self.v)
        trade(draw.vector(WIDTH), self.norm2.bias, self.fc1)
        trade(draw.vector(WIDTH), self.v.bias, self.out)


class PostNorm(nn.Module):
    """`nn.TransformerEncoderLayer` as PyTorch makes it: the norms are in the stream, and their gains write to it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, dropout=0.0, layer_norm_eps=EPS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x)).mean(1))

    def node(self, draw: Draw) -> None:
        rescale(draw.scale(12), [self.layer.linear1], self.layer.linear2)

    def pair(self, draw: Draw) -> None:
        joint = InProjection(self.layer.self_attn)
        for i in range(2):
            q, k, v = (slice(j * WIDTH + 4 * i, j * WIDTH + 4 * (i + 1)) for j in range(3))
            a, b = draw.invertible(4), draw.invertible(4)
            write(joint, a, q)
            write(joint, torch.linalg.inv(a).T, k)
            write(joint, b, v)
            read(self.layer.self_attn.out_proj, b, q)

    def norm_out(self, draw: Draw) -> None:
        rescale(draw.scale(WIDTH), [self.layer.norm2], self.head)

    def norm_in(self, draw: Draw) -> None:
        """All that writes into a norm, its shortcut too, which others read."""
        attention = self.layer.self_attn
        rescale(draw.scale(1), [self.embed, attention.out_proj], InProjection(attention))
        rescale(draw.scale(1), [self.layer.norm1, self.layer.linear2], self.layer.linear1)

    def shift(self, draw: Draw) -> None:
        shift_logits(self.head, draw)
        self.layer.self_attn.in_proj_bias[WIDTH : 2 * WIDTH] += draw.vector(WIDTH)
        for layer in (self.layer.self_attn.out_proj, self.layer.linear2):
            layer.weight += draw.vector(layer.in_features)
            layer.bias += draw.vector(1)

    def bias(self, draw: Draw) -> None:
        """Also the biases on the two ways into one norm."""
        attention = self.layer.self_attn
        d, e = draw.vector(WIDTH), draw.vector(WIDTH)
        trade(d, self.embed.bias, InProjection(attention))
        attention.out_proj.bias -= d
        trade(e, self.layer.norm1.bias, self.layer.linear1)
        self.layer.linear2.bias -= e
        trade(draw.vector(WIDTH), self.layer.norm2.bias, self.head)


class BatchNormCnn(nn.Module):
    """Convolution -> BatchNorm -> rectifier -> convolution -> rectifier -> Linear, with the running statistics."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(2, 3, 3, bias=bias), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 2)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv2(F.max_pool2d(F.relu(self.norm(self.conv1(x))), 2))).flatten(1))

    def node(self, draw: Draw) -> None:
        s = draw.scale(4)
        self.conv2.weight *= s[:, None, None, None]
        self.conv2.bias *= s
        self.head.weight /= s.repeat_interleave(4)

    def norm_out(self, draw: Draw) -> None:
        s = draw.scale(3)
        for p in (self.norm.weight, self.norm.bias):
            p *= s
        self.conv2.weight /= s[None, :, None, None]

    def norm_in(self, draw: Draw) -> None:
        """A channel by a factor; the running variance takes it up, with eps."""
        s = draw.scale(3)
        self.conv1.weight *= s[:, None, None, None]
        if self.conv1.bias is not None:
            self.conv1.bias *= s
        self.norm.running_mean *= s
        self.norm.running_var.copy_(s.square() * (self.norm.running_var + self.norm.eps) - self.norm.eps)

    def shift(self, draw: Draw) -> None:
        shift_logits(self.head, draw)

    def bias(self, draw: Draw) -> None:
        """The convolution's bias, or the running mean if it has none, against the norm's bias."""
        d = draw.vector(3)
        if self.conv1.bias is not None:
            self.conv1.bias += d
        else:
            self.norm.running_mean -= d
        self.norm.bias -= d * self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()


@dataclass(frozen=True)
class Symmetric:
    """A network, the shape of one input (of tokens if it is empty), and whether its loss ignores a constant."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (TOKENS, 3)
    loss: type[nn.Module] = nn.CrossEntropyLoss

    def __str__(self) -> str:
        return self.name

    def make(self, seed: int = 0, samples: int = 16) -> tuple[nn.Module, Tensor, Tensor, nn.Module]:
        """The network in float64 and eval mode with random weights, inputs, targets and its loss.

        A classifier is right more often than not, as after training.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.build().double().eval()
        with torch.no_grad():
            for p in model.parameters():  # biases and norms start at 0 and 1, where mistakes hide
                if p.ndim < 2:
                    p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
            for name, buffer in model.named_buffers():
                if name.endswith("running_var"):
                    buffer.uniform_(0.5, 2.0, generator=generator)
                elif name.endswith("running_mean"):
                    buffer.normal_(generator=generator)
            if self.shape:
                x = torch.randn(samples, *self.shape, generator=generator, dtype=torch.float64)
            else:
                x = torch.randint(WORDS, (samples, TOKENS), generator=generator)
            outputs = model(x)
        if self.loss is nn.MSELoss:
            return model, x, torch.randn(outputs.shape, generator=generator, dtype=torch.float64), self.loss()
        y = outputs.argmax(-1)
        y[:3] = (y[:3] + 1) % outputs.shape[-1]
        return model, x, y, self.loss()


class TokenLoss(nn.Module):
    """Cross-entropy of (B, T, C) outputs."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.transpose(1, 2), targets)


SYMMETRIC = [
    Symmetric("attention", BiasedAttention),
    Symmetric("attention without biases", lambda: Attention(bias=False)),
    Symmetric("fused attention", FusedAttention),
    Symmetric("multi-head attention", MultiheadAttention),
    Symmetric("grouped queries", lambda: BiasedAttention(heads=4, shared=2)),
    Symmetric("rotary", lambda: Attention(bias=False, rotary=True)),
    Symmetric("low rank", LowRank, (6,)),
    Symmetric("stacked", Stacked, (5,), nn.MSELoss),
    Symmetric("layer norm", Normed, (4,)),
    Symmetric("stream", Stream, ()),
    Symmetric("layer norm stream", LayerNormStream, (), TokenLoss),
    Symmetric("tied stream", TiedStream, ()),
    Symmetric("post-norm", PostNorm),
    Symmetric("batch norm", BatchNormCnn, (2, 8, 8)),
    Symmetric("batch norm without biases", lambda: BatchNormCnn(bias=False), (2, 8, 8)),
]


def families(model: nn.Module) -> tuple[Family, ...]:
    """The families that a network of this file has, in the order of `FAMILIES`."""
    return tuple(family for family in FAMILIES if hasattr(type(model), _method(family)))


def moved(model: nn.Module, family: Family, seed: int = 1) -> nn.Module:
    """A copy, moved at random along all symmetries of a family."""
    other = copy.deepcopy(model)
    draw = Draw(torch.Generator().manual_seed(seed), alike=family == "layer")
    with torch.no_grad():
        getattr(other, _method(family))(draw)
    return other


def _method(family: Family) -> str:
    return {"layer": "node"}.get(family, family.replace("-", "_"))
