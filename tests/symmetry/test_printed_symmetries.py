"""How symmetries are listed: what is alike once with its number, and what the families are without rectifiers."""

import torch
from torch import nn
from torch.nn import functional as F

from landscape.results import FoundSymmetries
from landscape.symmetry.finding import find_symmetries


class Attention(nn.Module):
    def __init__(self, norm: bool):
        super().__init__()
        self.norm = nn.LayerNorm(12) if norm else nn.Identity()
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (3, 4)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def printed(norm: bool) -> list[str]:
    torch.manual_seed(0)
    return str(find_symmetries(Attention(norm), torch.randn(2, 5, 12))).splitlines()


def test_what_all_heads_have_is_one_line_with_its_number():
    lines = printed(True)
    assert len(lines) == len(set(lines))
    assert "pair, rotation: channels that a matrix may mix: 6" in lines
    assert "  qkv (4 channels): any invertible matrix, × 3, the first: channels 0 to 3 and 12 to 15" in lines
    assert "  qkv.bias to out.bias, × 3" in lines


def test_layers_that_are_gains_of_normalizations_are_said():
    words = "families layer, node and norm-out: 1 of 2 are the gain and shift of a normalization"
    assert sum(words in line for line in printed(True)) == 1
    assert not any("families layer" in line for line in printed(False))
    some = FoundSymmetries({"layer": 6, "node": 9, "norm-out": 4}).line()
    assert some.endswith("layer (6; 4 of normalizations), node (9), norm-out (4)")
    assert "layer (2; all of normalizations)" in FoundSymmetries({"layer": 2, "norm-out": 2}).line()
