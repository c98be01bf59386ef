"""Crops and flips against a plain loop, and the same draws for the same seed."""

import pytest
import torch

from landscape.tasks.data.augmentation import Draws, crop_and_flip


@pytest.mark.parametrize("flip", [False, True])
def test_against_a_loop(flip):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, 6, 6, generator=g)
    draws = Draws.make(40, 2, flip, g, torch.device("cpu"))
    rows = torch.tensor([5, 0, 39, 17])
    out = crop_and_flip(x[rows], draws, rows, 2)
    for place, n in enumerate(rows.tolist()):
        padded = torch.zeros(3, 10, 10)
        padded[:, 2:8, 2:8] = x[n]
        expected = padded[:, draws.top[n] : draws.top[n] + 6, draws.left[n] : draws.left[n] + 6]
        if draws.flip[n]:
            expected = expected.flip(2)
        assert torch.equal(out[place], expected)


def test_draws():
    a, b = (Draws.make(4000, 1, True, torch.Generator().manual_seed(1), torch.device("cpu")) for _ in range(2))
    assert torch.equal(a.top, b.top)
    assert sorted(a.left.unique().tolist()) == [0, 1, 2]
    assert abs(a.flip.float().mean().item() - 0.5) < 0.04
    assert not bool(Draws.make(100, 1, False, torch.Generator(), torch.device("cpu")).flip.any())
