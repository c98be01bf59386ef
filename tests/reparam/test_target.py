"""Factors that bring a measure to a wanted value, against values known in closed form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rescalable import BY_NAME
from torch import nn

from landscape.errors import NumericalError, UsageError
from landscape.reparam import TraceBlocks, find_symmetries, solve_alpha, trace_blocks

positive = st.floats(1e-6, 1e6)


@given(positive, positive, st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_each_root_reaches_the_target(up: float, down: float, rest: float, alpha: float) -> None:
    blocks = TraceBlocks(up, down, rest)
    target = blocks.at(alpha)
    roots = blocks.roots(target)
    size = up / alpha**2 + down * alpha**2 + abs(rest)
    for root in roots:
        assert abs(blocks.at(root) - target) <= 1e-6 * size
    if target > blocks.bound + 1e-6 * size:  # away from the double root
        assert len(roots) == 2
        assert min(abs(math.log(r / alpha)) for r in roots) < 1e-3
        assert blocks.solve(target) in roots
        assert roots[0] <= blocks.flattest <= roots[1]


def test_the_nearer_root_is_taken() -> None:
    blocks = TraceBlocks(multiplied=4.0, divided=1.0, rest=0.0)  # u + 4/u: flattest at u = 2
    assert blocks.roots(5.0) == (1.0, 2.0)
    assert blocks.solve(5.0) == 1.0
    assert blocks.solve(8.5) == pytest.approx(0.5**0.5)  # u = 1/2 or 8
    assert TraceBlocks(1.0, 4.0, 0.0).solve(8.5) == pytest.approx(2**0.5)
    assert TraceBlocks(1.0, 1.0, 0.0).solve(1e6) > 1  # of two equally near ones the larger


def test_the_flattening_bound_is_named() -> None:
    blocks = TraceBlocks(multiplied=4.0, divided=9.0, rest=1.0)
    assert blocks.bound == 13.0
    assert blocks.at(blocks.flattest) == pytest.approx(13.0)
    with pytest.raises(
        UsageError, match=r"expected a target trace above the flattening bound 13 \(at alpha = 0\.8165\), found 12\.9; choose"
    ):
        blocks.solve(12.9)


def test_blocks_that_batchnorm_leaves_one_sided() -> None:
    blocks = TraceBlocks(multiplied=4.0, divided=0.0, rest=1.0)
    assert blocks.solve(401.0) == pytest.approx(0.1)
    assert blocks.solve(1.04) == pytest.approx(10.0)
    with pytest.raises(UsageError, match=r"above the flattening bound 1 \(in the limit\), found 1"):
        blocks.solve(1.0)
    with pytest.raises(UsageError, match="expected a trace that this rescaling changes, found 3 at every alpha"):
        TraceBlocks(0.0, 0.0, 3.0).solve(5.0)


def test_negative_blocks() -> None:
    blocks = TraceBlocks(multiplied=-4.0, divided=9.0, rest=0.0)
    assert blocks.bound == -math.inf
    assert blocks.at(blocks.solve(-100.0)) == pytest.approx(-100.0)
    assert blocks.at(blocks.solve(100.0)) == pytest.approx(100.0)
    with pytest.raises(UsageError, match="expected a target of at most -11, found 0"):
        TraceBlocks(-4.0, -9.0, 1.0).solve(0.0)
    with pytest.raises(UsageError, match="expected a finite target, found nan"):
        blocks.solve(math.nan)


def test_traces_are_sorted_by_what_the_unit_does_to_them() -> None:
    model, x = BY_NAME["mlp"].make()
    symmetries = find_symmetries(model, x)
    traces = {"0.weight": 1.0, "0.bias": 10.0, "3.weight": 100.0, "3.bias": 1000.0, "5.weight": 1e4, "5.bias": 1e5}
    assert trace_blocks(symmetries, symmetries["0"], traces) == TraceBlocks(11.0, 100.0, 111000.0)
    assert trace_blocks(symmetries, symmetries["3"], traces) == TraceBlocks(1100.0, 1e4, 100011.0)


def test_a_partly_scaled_parameter_needs_its_diagonal() -> None:
    model, x = BY_NAME["dense"].make()
    symmetries = find_symmetries(model, x)
    unit = symmetries["conv1"]
    with pytest.raises(
        UsageError, match=r"expected the Hessian's diagonal for fc\.weight, of which conv1 scales only a part, found its trace"
    ):
        trace_blocks(symmetries, unit, {"fc.weight": 1.0})
    diagonal = torch.arange(27.0).view(3, 9)
    blocks = trace_blocks(symmetries, unit, {"fc.weight": diagonal, "conv1.bias": 7.0})
    assert (blocks.multiplied, blocks.divided, blocks.rest) == (
        7.0,
        float(diagonal[:, 3:5].sum()),
        float(diagonal.sum() - diagonal[:, 3:5].sum()),
    )
    with pytest.raises(UsageError, match=r"expected a diagonal of shape \(3, 9\) for fc\.weight, found \(9, 3\)"):
        trace_blocks(symmetries, unit, {"fc.weight": diagonal.T})


VALLEYS = {
    "lambda_max": lambda a: max(5 / a**2, 0.2 * a**2, 1.0),
    "trace": lambda a: 5 / a**2 + 0.2 * a**2 + 1,
    "one-sided": lambda a: 5 / a**2,
    "keskar": lambda a: math.expm1(min(0.3 / a + 0.1 * a, 700)),
    "overflow": lambda a: 2.0 if a < 20 else math.inf if a > 40 else 2 + (a - 20) ** 2,
}


@pytest.mark.parametrize("name", VALLEYS)
@pytest.mark.parametrize("target", [30.0, 4.0, 3.1])
def test_search_reaches_the_target(name: str, target: float) -> None:
    solution = solve_alpha(VALLEYS[name], target)
    assert solution.value == pytest.approx(target, rel=1e-3)
    assert VALLEYS[name](solution.alpha) == solution.value
    assert solution.evaluations <= 30


def test_search_finds_a_target_in_the_valley() -> None:
    """The steps away from 1 jump over it."""
    narrow = lambda a: 1 + 50 * abs(math.log(a / 1.37))  # noqa: E731  # one line says what it is
    assert solve_alpha(narrow, 1.2, rtol=1e-2).alpha == pytest.approx(1.37, rel=0.01)


def test_search_refuses_what_cannot_be_reached() -> None:
    with pytest.raises(UsageError, match=r"in \[0\.0001, 1e\+04\] reaches, found 2, and 3 at alpha = 2\.236 as the nearest"):
        solve_alpha(VALLEYS["trace"], 2.0)
    with pytest.raises(UsageError, match=r"found 1e\+06, and 10000 at alpha = 1e\+04 as the nearest value; choose a target"):
        solve_alpha(lambda a: a, 1e6)
    with pytest.raises(UsageError, match="expected a finite target, found inf"):
        solve_alpha(lambda a: a, math.inf)
    with pytest.raises(NumericalError, match="expected a finite value at alpha = 1, found none"):
        solve_alpha(lambda a: math.nan, 3.0)
    with pytest.raises(NumericalError, match="is continuous in alpha, found a jump, and"):
        solve_alpha(lambda a: 1.0 if a < 3 else 9.0, 5.0)
    with pytest.raises(NumericalError, match="expected the search to converge within 4 evaluations, found"):
        solve_alpha(VALLEYS["trace"], 1e4, max_evaluations=4)
    with pytest.raises(UsageError, match="expected a range with 0 < low <= 1 <= high, found 2 to 3"):
        solve_alpha(lambda a: a, 2.5, low=2.0, high=3.0)


def test_search_keeps_to_its_range() -> None:
    seen: list[float] = []

    def measure(alpha: float) -> float:
        seen.append(alpha)
        return alpha**2

    solve_alpha(measure, 30.0, low=0.9, high=10.0)
    assert min(seen) >= 0.9 - 1e-12
    assert max(seen) <= 10.0 + 1e-12


def test_search_on_a_network() -> None:
    from landscape.measures import lambda_max
    from landscape.objective import Objective
    from landscape.reparam import apply

    model, x = BY_NAME["mlp"].make()
    y = torch.arange(len(x)) % 3
    symmetries = find_symmetries(model, x)

    def measure(alpha: float) -> float:
        other = apply(model, symmetries, symmetries.layerwise({"0": alpha}))
        return lambda_max(Objective(other, nn.CrossEntropyLoss(), (x, y), dtype="float64")).value

    solution = solve_alpha(measure, 20.0)
    assert solution.value == pytest.approx(20.0, rel=1e-3)
    assert measure(solution.alpha) == pytest.approx(solution.value)
