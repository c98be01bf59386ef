"""Norms and the check of products: right at every size, and for values that float32 cannot square."""

import math

import pytest
import torch

from landscape.errors import NumericalError
from landscape.linalg.products import CHUNK, PIECE, Products, norm


@pytest.mark.parametrize("length", [1, PIECE, CHUNK - 1, CHUNK, CHUNK + PIECE + 5])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e25])
def test_norm_is_that_of_float64(length, scale):
    w = torch.randn(length, generator=torch.Generator().manual_seed(length)) * scale
    true = math.sqrt(math.fsum(t**2 for t in w.tolist()))
    assert norm(w) == pytest.approx(true, rel=1e-7)
    assert norm(w.double()) == pytest.approx(true, rel=1e-13)


def test_norm_of_every_second_value():
    w = torch.randn(2 * CHUNK + 8, generator=torch.Generator().manual_seed(0))[::2]
    assert norm(w) == pytest.approx(float(w.double().norm()), rel=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 4097, 9999])
def test_one_value_that_is_not_finite_is_found_and_its_product_named(bad, place):
    def matvec(block):
        product = block.clone()
        product[1, place] = bad
        return product

    products = Products(matvec, 10_000, torch.float32, "cpu")
    with pytest.raises(NumericalError, match="product 2"):
        products(torch.ones(3, 10_000))
