"""Which matrices may mix which channels: sizes, groups, weights, and families, exactly, on networks whose answer is known."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from small_transformers import Attended, Encoder, Gpt, Llama, MultiHead, PreNorm
from symmetric_networks import SYMMETRIC, FusedAttention, LowRank, Symmetric, families
from torch import Tensor, nn
from torch.nn import functional as F

from landscape.reparam import move
from landscape.symmetry import Symmetries, find_symmetries
from landscape.symmetry.mixing.mixtures import Mixing
from landscape.tasks.torchvision_import import torchvision

Row = tuple[str, tuple[int, ...], bool, str | None]


def found(model: nn.Module, *shape: int, words: int = 0) -> Symmetries:
    x = torch.randint(words, (2, *shape)) if words else torch.randn(2, *shape)
    return find_symmetries(model.eval(), x)


def kinds(symmetries: Symmetries) -> Counter[tuple[str, int]]:
    """How many mixings of each group and size."""
    return Counter((mixing.group, mixing.size) for mixing in symmetries.mixings)


def rows(mixing: Mixing) -> list[Row]:
    """Parameter, shape, side and gain of all that a mixing changes."""
    return [(r.name, tuple(r.index.shape), r.inverse, r.gain) for r in mixing.rows]


def named(symmetries: Symmetries, *layers: str) -> list[Mixing]:
    """The mixings of exactly these parameters."""
    return [m for m in symmetries.mixings if {r.name for r in m.rows} == set(layers)]


def test_heads_of_attention() -> None:
    symmetries = found(Attended(), 4, 6)
    assert symmetries.unread == ()
    names = [
        f"attend.{pair}, channels {spread}" for pair in ("q + attend.k", "v + attend.out") for spread in ("0 to 2", "3 to 5")
    ]
    assert [mixing.name for mixing in symmetries.mixings] == names
    assert str(symmetries.mixings[0]) == "attend.q + attend.k, channels 0 to 2 (3 channels): any invertible matrix"
    assert rows(symmetries.mixings[0]) == [
        ("attend.q.weight", (6, 3), False, None),
        ("attend.q.bias", (1, 3), False, None),
        ("attend.k.weight", (6, 3), True, None),
        ("attend.k.bias", (1, 3), True, None),
    ]
    # Row j of the set is the j-th input's weights into channels 3, 4, 5 of the values; columns 3, 4, 5 of the output read them.
    values = symmetries.mixings[3]
    grid = torch.arange(36).view(6, 6)
    assert torch.equal(values.rows[0].index, grid[3:].T)
    assert torch.equal(values.rows[1].index, torch.tensor([[3, 4, 5]]))
    assert torch.equal(values.rows[2].index, grid[:, 3:])


def test_one_joint_projection() -> None:
    symmetries = found(FusedAttention(), 5, 3)
    assert kinds(symmetries) == {("general", 4): 4}
    first, _, third, _ = symmetries.mixings
    grid = torch.arange(24 * 8).view(24, 8)
    queries, keys = first.rows[:2]
    assert (queries.inverse, keys.inverse) == (False, True)
    assert torch.equal(queries.index, grid[0:4].T)
    assert torch.equal(keys.index, grid[8:12].T)
    assert torch.equal(third.rows[0].index, grid[16:20].T)
    assert [r.name for r in third.rows] == ["qkv.weight", "qkv.bias", "out.weight"]


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention_of_torch(need_weights: bool) -> None:
    """In eval mode its dropout does nothing."""
    symmetries = found(MultiHead(need_weights), 4, 6)
    assert kinds(symmetries) == {("general", 3): 4}
    assert len(named(symmetries, "attend.in_proj_weight", "attend.in_proj_bias")) == 2
    assert len(named(symmetries, "attend.in_proj_weight", "attend.in_proj_bias", "attend.out_proj.weight")) == 2
    assert symmetries.unread == ()


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer_of_torch(norm_first: bool) -> None:
    symmetries = found(Encoder(norm_first), 4, 6)
    assert kinds(symmetries) == {("general", 3): 4}
    assert symmetries.unread == ()
    normed = ("norm-out",) if norm_first else ("norm-in",)
    assert symmetries.families == ("layer", "node", "pair", *normed, "shift", "bias")


def test_queries_that_share_a_key() -> None:
    symmetries = found(Attended(8, heads=4, shared=2), 4, 8)
    assert kinds(symmetries) == {("general", 2): 4}
    weights = [r for r in symmetries.mixings[1].rows if r.name.endswith("weight")]
    assert [(r.name, r.inverse) for r in weights] == [("attend.q.weight", False)] * 2 + [("attend.k.weight", True)]
    grid = torch.arange(64).view(8, 8)
    queries = {tuple(r.index[0].tolist()): r.index for r in weights[:2]}
    assert torch.equal(queries[32, 40], grid[4:6].T)
    assert torch.equal(queries[48, 56], grid[6:8].T)
    assert torch.equal(weights[2].index, torch.arange(32).view(4, 8)[2:4].T)


@pytest.mark.parametrize("heads", [2, 4])
def test_rotary_embeddings(heads: int) -> None:
    """Two heads share one key, four share two; values are not turned."""
    symmetries = found(Llama(heads=heads, width=4 * heads), 6, words=12)
    assert kinds(symmetries) == {("orthogonal", 4 * heads): 1, ("rotary", 4): heads // 2, ("general", 4): heads // 2}
    for mixing in symmetries.mixings:
        turned = None if mixing.turned is None else mixing.turned.tolist()
        assert turned == ([[0, 2], [1, 3]] if mixing.group == "rotary" else None)
    assert len(named(symmetries, "q.weight", "k.weight")) == heads // 2
    assert symmetries.unread == ()


def test_norms_of_queries_and_keys_leave_no_pair_between_them() -> None:
    symmetries = found(Llama(norms=True), 6, words=12)
    assert kinds(symmetries) == {("orthogonal", 8): 1, ("general", 4): 1}
    assert rows(symmetries.mixings[1]) == [("v.weight", (8, 4), False, None)] + [("o.weight", (8, 4), True, None)] * 2


@pytest.mark.parametrize("build", [Llama, Gpt])
def test_a_tied_head_holds_the_stream(build: Callable[..., nn.Module]) -> None:
    tied, own = (found(build(tied=tied), 5, words=12) for tied in (True, False))
    assert [m for m in tied.mixings if m.family == "rotation"] == []
    assert own.mixings[0].family == "rotation"
    assert kinds(own) - kinds(tied) == {(own.mixings[0].group, own.mixings[0].size): 1}
    assert tied.nearly is None


def test_what_turns_with_a_stream() -> None:
    stream = found(Gpt(), 5, words=15).mixings[0]
    assert stream.group == "centred"
    assert rows(stream) == [
        ("words.weight", (15, 6), False, None),
        ("positions", (5, 6), False, None),
        ("norm1.bias", (1, 6), False, "norm1.weight"),
        ("qkv.weight", (18, 6), True, "norm1.weight"),
        ("o.weight", (6, 6), False, None),
        ("o.bias", (1, 6), False, None),
        ("norm2.bias", (1, 6), False, "norm2.weight"),
        ("mlp.0.weight", (8, 6), True, "norm2.weight"),
        ("mlp.2.weight", (8, 6), False, None),
        ("mlp.2.bias", (1, 6), False, None),
        ("norm3.bias", (1, 6), False, "norm3.weight"),
        ("head.weight", (15, 6), True, "norm3.weight"),
    ]


class Shared(nn.Module):
    """One linear map at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 4, bias=False), nn.Linear(4, 6, bias=False), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(F.gelu(self.b(self.a(x)))))


def test_one_weight_in_two_places_is_mixed_once_with_all_its_readers() -> None:
    symmetries = found(Shared(), 6)
    assert [rows(m) for m in symmetries.mixings] == [
        [("a.weight", (6, 4), False, None), ("b.weight", (6, 4), True, None), ("head.weight", (3, 4), True, None)]
    ]


def test_low_rank() -> None:
    model = LowRank()
    model.base.requires_grad_(False)
    symmetries = found(model, 6)
    assert [rows(m) for m in symmetries.mixings] == [[("down.weight", (6, 3), False, None), ("up.weight", (7, 3), True, None)]]
    assert "pair" in symmetries.families


def test_a_bottleneck_and_convolutions() -> None:
    bottleneck = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 3))
    assert [(m.name, m.size) for m in found(bottleneck, 6).mixings] == [("0 + 1, channels 0 to 1", 2)]
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.Flatten(), nn.Linear(80, 2))
    (mixing,) = found(convolutions, 3, 6, 6).mixings
    assert rows(mixing) == [
        ("0.weight", (27, 4), False, None),
        ("0.bias", (1, 4), False, None),
        ("1.weight", (5, 4), True, None),
    ]


class Plain(nn.Module):
    """Nonlinear everywhere, and no loss whose constant is ignored: outputs go through a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).tanh()).sigmoid()


def test_a_network_with_no_symmetry_says_so() -> None:
    symmetries = found(Plain(), 6)
    assert (symmetries.families, symmetries.mixings, symmetries.unread) == ((), (), ())
    assert str(symmetries).startswith("no scaling symmetry")


class Masked(Attended):
    """With a causal mask, a mask of positions, or both, and dropout of the weights."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.drop = how, nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, 3)).transpose(1, 2) for layer in (self.attend.q, self.attend.k, self.attend.v))
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        if self.how == "is_causal":
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.how == "attn_mask":
            z = F.scaled_dot_product_attention(q, k, v, attn_mask=causal)
        else:
            scores = q @ k.transpose(-1, -2) * 3**-0.5
            scores = torch.where(causal, scores, -torch.inf) if self.how == "where" else scores.masked_fill(~causal, -1e9)
            z = self.drop(scores.softmax(-1)) @ v
        return self.head(F.gelu(self.attend.out(z.transpose(1, 2).flatten(2)).mean(1)))


@pytest.mark.parametrize("how", ["is_causal", "attn_mask", "where", "masked_fill"])
def test_masks_and_dropout_change_nothing(how: str) -> None:
    masked, plain = found(Masked(how), 4, 6), found(Attended(), 4, 6)
    assert [rows(m) for m in masked.mixings] == [rows(m) for m in plain.mixings]
    assert masked.families == plain.families
    assert masked.unread == ()


def vision_transformer() -> nn.Module:
    return torchvision.models.vision_transformer.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=5)


def test_the_vision_transformer_of_torchvision() -> None:
    symmetries = found(vision_transformer(), 3, 32, 32)
    assert kinds(symmetries) == {("centred", 32): 1, ("general", 8): 16}  # 2 pairs for each of 4 heads in 2 layers
    assert symmetries.families == ("layer", "node", "pair", "rotation", "norm-out", "norm-in", "shift", "bias")
    assert symmetries.unread == ()
    token = [r.index for r in symmetries.mixings[0].rows if r.name == "class_token"]
    assert [i.tolist() for i in token] == [[list(range(32))]]  # once, for however many images


@pytest.mark.parametrize("family", ["node", "pair", "rotation", "norm-out", "norm-in", "bias"])
def test_it_moves_along_each_family(family: str) -> None:
    torch.manual_seed(0)
    model, x = vision_transformer().double().eval(), torch.randn(3, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-30
    before, after = model(x), move(model, find_symmetries(model, x), family)(x)
    assert (after - before).abs().max() < 1e-9 * before.abs().max()


@pytest.mark.parametrize("net", SYMMETRIC, ids=str)
def test_the_families_that_are_there_and_no_others(net: Symmetric) -> None:
    model, x, *_ = net.make()
    symmetries = find_symmetries(model, x)
    ignored = ("shift",) if net.loss is nn.MSELoss else ()  # a constant of all outputs, that another loss would ignore
    here = [f for f in symmetries.families if f not in ignored]
    assert here == list(families(model))


NEARLY = {
    "pre-norm": (PreNorm, (4, 9), [("embed + attend.out + mlp.2", 1)]),
    "LayerNorm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3)), (4,), [("0", 1)]),
    "GroupNorm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.Flatten(), nn.Linear(64, 3)),
        (2, 6, 6),
        [("0", 2)],
    ),
    "InstanceNorm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(64, 3)),
        (2, 6, 6),
        [("0", 4)],
    ),
    "norms of queries and keys": (lambda: Llama(norms=True), (6,), [("words + o + down", 1), ("q", 2), ("k", 1)]),
}


@pytest.mark.parametrize("name", NEARLY)
def test_scales_that_hold_but_for_an_eps(name: str) -> None:
    """A stream has one, GroupNorm one a group, InstanceNorm one a channel, and norms of heads one a head."""
    build, shape, units = NEARLY[name]
    symmetries = found(build(), *shape, words=12 if len(shape) == 1 and shape != (4,) else 0)
    assert [(unit.name, len(unit.neurons)) for unit in symmetries.nearly.units] == units
    assert "norm-in" in symmetries.families
    assert "scales that a normalization takes away but for its eps" in str(symmetries)
