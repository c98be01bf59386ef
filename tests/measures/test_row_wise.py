"""The row-wise measures against dense float64 Hessians, along the orbits that move every elementwise measure."""

from functools import cache

import numpy as np
import pytest
import torch
from cases import CASES
from paired_networks import CHANNELS, HEADS, HIDDEN, WIDTH, classified, made, moved, pairs
from reference import dense_hessian
from torch import nn

from landscape.measures import adaptive_lambda_max, adaptive_trace, measure_all, row_lambda_max, row_trace
from landscape.measures.hessian.row_wise import in_rows, row_groups
from landscape.measures.registry import NotDefined
from landscape.measures.running.shared_computations import coordinates_of, eigenvalue_of, operator, trace_of
from landscape.network.parameters import Layout
from landscape.objective import Objective
from landscape.symmetry.mixing.mixtures import Mixing, Rows


def by_hand(model: nn.Module) -> np.ndarray:
    """(P, groups) B of `GroupedAttention`, from the shapes of its weights alone."""
    columns, start, total = [], 0, sum(p.numel() for p in model.parameters())

    def add(places: np.ndarray, values: np.ndarray) -> None:
        column = np.zeros(total)
        column[places] = values
        columns.append(column)

    for name, p in model.named_parameters():
        w, places = p.detach().numpy(), start + np.arange(p.numel()).reshape(p.shape)
        layer = name.partition(".")[0]
        if layer in "qkv":
            for head in range(len(w) // CHANNELS):
                part = slice(head * CHANNELS, (head + 1) * CHANNELS)
                for c in range(WIDTH if w.ndim == 2 else 1):
                    add(places[part].reshape(CHANNELS, -1)[:, c], w[part].reshape(CHANNELS, -1)[:, c])
        elif name == "o.weight":
            for c in range(WIDTH):
                for head in range(HEADS):
                    part = slice(head * CHANNELS, (head + 1) * CHANNELS)
                    add(places[c, part], w[c, part])
        else:
            for place, value in zip(places.ravel(), w.ravel(), strict=True):
                add(np.array([place]), np.array([value]))
        start += p.numel()
    return np.stack(columns, 1)


def dense(model: nn.Module) -> np.ndarray:
    """B^T H B from the whole Hessian."""
    _, loss, (x, y) = classified(model).plain()
    b = by_hand(model)
    return b.T @ dense_hessian(model, loss, x, y) @ b


@cache
def at_start() -> tuple[nn.Module, Objective, np.ndarray]:
    """A network, its objective, and its dense matrix."""
    model = made()
    return model, classified(model), dense(model)


def test_the_matrix_is_that_of_the_whole_hessian() -> None:
    model, objective, truth = at_start()
    units = coordinates_of(objective, in_rows(objective, pairs()))
    assert (
        units.dim
        == len(truth)
        == 2 * (WIDTH + 1) + HEADS * (WIDTH + 1) + HEADS * WIDTH + WIDTH + 2 * WIDTH + (HIDDEN * (WIDTH + 1) + 3 * (HIDDEN + 1))
    )
    found = operator(objective, units)(torch.eye(units.dim, dtype=torch.float64)).numpy()
    # The groups may be numbered differently: a sum over each row of |B|'s pattern orders both alike.
    ids = row_groups(objective.layout, pairs()).numpy()
    order = [int(ids[np.flatnonzero(column)[0]]) for column in by_hand(model).T]
    assert sorted(order) == list(range(units.dim))
    np.testing.assert_allclose(found[np.ix_(order, order)], truth, rtol=1e-9, atol=1e-11 * np.abs(truth).max())


def test_values_are_those_of_the_whole_hessian() -> None:
    model = made(1)
    objective, truth = classified(model), dense(model)
    rows = in_rows(objective, pairs())
    estimate = trace_of(objective, 2000, None, rows)
    low, high = estimate.interval(0.9999)
    assert low <= np.trace(truth) <= high
    assert high - low < 0.2 * abs(np.trace(truth))
    assert estimate.data_stderr > 0
    top = eigenvalue_of(objective, 0, None, rows)
    assert top.value == pytest.approx(np.linalg.eigvalsh(truth)[-1], rel=1e-9)
    assert top.data_stderr > 0


@pytest.mark.parametrize("orbit", ["pair", "node", "both"])
def test_nothing_moves_them_where_elementwise_measures_move(orbit: str) -> None:
    model, here, before = at_start()
    other = moved(model)[orbit]
    there = classified(other)
    torch.testing.assert_close(there.outputs(), here.outputs(), rtol=1e-11, atol=1e-11)
    after = dense(other)
    np.testing.assert_allclose(after, before, rtol=1e-8, atol=1e-10 * np.abs(before).max())
    a, b = (trace_of(o, 8, None, in_rows(o, pairs())) for o in (here, there))
    assert b.value == pytest.approx(a.value, rel=1e-8)
    assert b.stderr == pytest.approx(a.stderr, rel=1e-8)
    assert b.data_stderr == pytest.approx(a.data_stderr, rel=1e-8)
    a, b = (eigenvalue_of(o, 0, None, in_rows(o, pairs())) for o in (here, there))
    assert b.value == pytest.approx(a.value, rel=1e-8)
    elementwise = [
        (adaptive_trace(there).value, adaptive_trace(here).value),
        (adaptive_lambda_max(there).value, adaptive_lambda_max(here).value),
    ]
    for after, before in elementwise:
        if orbit == "node":
            assert after == pytest.approx(before, rel=1e-8)
        else:
            assert after > 2 * before > 0


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_without_a_pair_they_are_the_elementwise_measures(case) -> None:
    model, loss, x, y = case.make(0)
    objective = Objective(model, loss, (x, y), dtype="float64")
    assert torch.equal(in_rows(objective, ()), objective.theta.abs())
    names = ["adaptive_trace", "row_trace", "adaptive_lambda_max", "row_lambda_max"]
    found = measure_all(objective, names, seed=4)
    for plain, rows in (names[:2], names[2:]):
        a, b = found[plain].estimate, found[rows].estimate
        assert (a.value, a.stderr, a.n, a.kind) == (b.value, b.stderr, b.n, b.kind)
        assert a.data_stderr == b.data_stderr
        assert found[rows].matvecs == 0 < found[plain].matvecs  # the products are shared


def test_a_pair_of_one_channel_is_elementwise() -> None:
    objective = classified(made())
    alone = Mixing("scalar", 1, "general", (Rows("k.bias", torch.tensor([[0], [1]]), False),))
    assert row_groups(objective.layout, [alone]) is None
    rotation = Mixing("stream", CHANNELS, "orthogonal", (Rows("k.bias", torch.tensor([[0, 1, 2]]), False),))
    assert row_groups(objective.layout, [rotation]) is None


def test_rows_that_share_a_weight_are_one_group() -> None:
    """Three linear layers: the middle one reads one pair and writes the next, and is moved from both sides."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4, bias=False), nn.Linear(4, 3))
    middle = torch.arange(8).reshape(4, 2)
    first = Mixing("0 and 1", 2, "general", (Rows("0.weight", torch.arange(6).reshape(2, 3).T, False),
        Rows("0.bias", torch.arange(2)[None], False), Rows("1.weight", middle, True)))  # fmt: skip
    second = Mixing("1 and 2", 4, "general", (Rows("1.weight", middle.T, False),
        Rows("2.weight", torch.arange(12).reshape(3, 4), True)))  # fmt: skip
    groups = row_groups(Layout.of(model), (first, second))
    sizes = sorted(torch.bincount(groups).tolist())
    assert sizes == [1] * 3 + [2] * 4 + [4] * 3 + [8]
    assert len(set(groups[8:16].tolist())) == 1


def test_weights_that_are_fixed_leave_their_groups() -> None:
    objective = classified(made()).only("q.*", "a.*")
    units = in_rows(objective, pairs())
    assert units.dim == HEADS * (WIDTH + 1) + HIDDEN * (WIDTH + 1)
    assert torch.equal(classified(made()).only("a.*").theta.abs(), in_rows(classified(made()).only("a.*"), pairs()))


def test_a_network_that_cannot_be_traced_has_no_row_wise_measure() -> None:
    class Branches(nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else -super().forward(x)

    torch.manual_seed(0)
    objective = Objective(Branches(3, 2), nn.CrossEntropyLoss(), (torch.rand(4, 3), torch.tensor([0, 1, 0, 1])))
    for function in (row_trace, row_lambda_max):
        with pytest.raises(NotDefined, match=r"torch\.export can trace"):
            function(objective)


def test_the_pairs_that_are_found_are_those_written_down() -> None:
    """The measures as registered, on a network whose pairs its graph shows: the same as with pairs by hand."""
    model = made()
    for objective in (classified(model), classified(moved(model)["both"])):
        found, rows = measure_all(objective, ["row_trace", "row_lambda_max"], seed=0), in_rows(objective, pairs())
        generator = torch.Generator().manual_seed(0)
        assert found["row_trace"].estimate.value == pytest.approx(trace_of(objective, 64, generator, rows).value, rel=1e-10)
        top = eigenvalue_of(objective, 0, torch.Generator().manual_seed(0), rows)
        assert found["row_lambda_max"].estimate.value == pytest.approx(top.value, rel=1e-10)
