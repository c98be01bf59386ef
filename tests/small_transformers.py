"""Small transformers as they are written by hand: GPT-like, Llama-like, and a pre-norm block; for tests of what is found."""

import torch
from symmetric_networks import Attention, heads_of, turned
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-30  # what a normalization takes away, it takes away exactly


class Attend(Attention):
    """Attention between projections of its own width, without embedding and head."""

    def __init__(self, width: int, *, heads: int = 2, shared: int = 1, bias: bool = True) -> None:
        nn.Module.__init__(self)
        self.heads, self.shared, self.rotary, self.h = heads, shared, False, width // heads
        self.q, self.out = nn.Linear(width, width, bias), nn.Linear(width, width, bias)
        self.k, self.v = (nn.Linear(width, width // shared, bias) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


class PreNorm(nn.Module):
    """Linear, one pre-norm block with LayerNorm and GELU, mean over tokens, head."""

    def __init__(self, inputs: int = 9, width: int = 6) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(inputs, width), nn.Linear(width, 4)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width, EPS) for _ in range(3))
        self.attend = Attend(width)
        self.mlp = nn.Sequential(nn.Linear(width, 10), nn.GELU(), nn.Linear(10, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attend(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm3(x).mean(1))


class HandWrittenRMS(nn.Module):
    """RMSNorm as Llama has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS))


class Llama(nn.Module):
    """One block with hand-written RMSNorm, grouped queries, rotary embeddings and SwiGLU; all words' outputs.

    Args:
        rotary: whether queries and keys are turned.
        tied: whether the head is the embedding.
        norms: whether queries and keys have norms of their own (QK-norm).
    """

    def __init__(
        self, *, words: int = 12, width: int = 8, heads: int = 2, rotary: bool = True, tied: bool = False, norms: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.rotary, self.h = heads, rotary, width // heads
        self.words, self.head = nn.Embedding(words, width), nn.Linear(width, words, bias=False)
        self.norm1, self.norm2, self.norm3 = (HandWrittenRMS(width) for _ in range(3))
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, width // 2, bias=False) for _ in range(2))
        self.gate, self.up, self.down = (nn.Linear(*io, bias=False) for io in ((width, 10), (width, 10), (10, width)))
        self.q_norm, self.k_norm = (HandWrittenRMS(self.h) if norms else nn.Identity() for _ in range(2))
        if tied:
            self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        z = self.norm1(x)
        q, k, v = heads_of(self.q(z), self.heads), *(heads_of(p(z), self.heads // 2) for p in (self.k, self.v))
        q, k = self.q_norm(q), self.k_norm(k)
        q, k = (turned(q), turned(k)) if self.rotary else (q, k)
        k, v = (y[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for y in (k, v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        z = self.norm2(x)
        x = x + self.down(F.silu(self.gate(z)) * self.up(z))
        return self.head(self.norm3(x))


class Gpt(nn.Module):
    """One block with positions, a fused projection, `einsum` and a causal mask; all words' outputs."""

    def __init__(self, *, words: int = 15, width: int = 6, tokens: int = 5, tied: bool = False) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Parameter(torch.randn(tokens, width))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width, EPS) for _ in range(3))
        self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width))
        self.head = nn.Linear(width, words, bias=not tied)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.positions
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mask = torch.full((x.shape[1],) * 2, -1e9, dtype=x.dtype).triu(1)
        weights = (torch.einsum("bhtd,bhsd->bhts", q, k) / q.shape[-1] ** 0.5 + mask).softmax(-1)
        x = x + self.o(torch.einsum("bhts,bhsd->bthd", weights, v).flatten(2))
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm3(x))


class Encoder(nn.Module):
    """`nn.TransformerEncoderLayer`, GELU, head."""

    def __init__(self, norm_first: bool, width: int = 6) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            width, 2, 8, 0.1, "gelu", layer_norm_eps=EPS, batch_first=True, norm_first=norm_first
        )
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.layer(x).mean(1)))


class MultiHead(nn.Module):
    """`nn.MultiheadAttention`, GELU, head."""

    def __init__(self, need_weights: bool = False, width: int = 6) -> None:
        super().__init__()
        self.need_weights = need_weights
        self.attend, self.head = nn.MultiheadAttention(width, 2, 0.1, batch_first=True), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.attend(x, x, x, need_weights=self.need_weights)[0].mean(1)))


class Attended(nn.Module):
    """Attention alone, GELU, head."""

    def __init__(self, width: int = 6, *, heads: int = 2, shared: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.attend = Attend(width, heads=heads, shared=shared, bias=bias)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.attend(x).mean(1)))
