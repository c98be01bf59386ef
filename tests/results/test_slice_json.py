"""A slice through JSON: everything comes back, and nothing that JSON has no word for goes in."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from landscape.results import (
    DONE,
    FAILED,
    MISSING,
    NOT_FINITE,
    Barrier,
    Derivatives,
    MergeTree,
    Minimum,
    NormRatios,
    Slice,
    SliceCheck,
    Track,
)


def surface() -> Slice:
    """3 x 4 points with everything that a slice can hold."""
    rng = np.random.default_rng(0)
    values = {"loss": rng.random((3, 4)), "test_accuracy": rng.random((3, 4)), "lambda_max": rng.random((3, 4)) / 3}
    status = {q: np.full((3, 4), DONE, np.int8) for q in values}
    status["loss"][0, 3], values["loss"][0, 3] = MISSING, np.nan
    status["loss"][2, 1], values["loss"][2, 1] = FAILED, np.nan
    status["loss"][1, 1], values["loss"][1, 1] = NOT_FINITE, np.inf
    minima = (
        Minimum((1, 2), (0.1, 0.2), 0.01, None, math.inf, None),
        Minimum((0, 0), (-1.0, -2.0), 0.02, (1, 1), 0.5, 0, 0.003),
    )
    track = Track("run", ("a", "b"), np.array([[0.1, 0.2], [math.nan, 1 / 3]]), np.array([1.5, math.inf]), 0.9, path=False)
    surface_has, products = {"11": 1 / 3, "12": -0.1, "22": 2.0}, {"11": 1 / 3, "12": -0.2, "22": 2.0}
    ratios = (NormRatios("filter", 0.5, 2.0, 12, 3, True), None)
    derivatives = Derivatives(surface_has, products, {"11": 0.3}, 0.125, 1e-5, 100, ", so", "because")
    check = SliceCheck(0.25, ratios, False, 0.125, True, derivatives, own_value=0.12, recomputed=1e-9)
    return Slice(
        axes=("u", "v"),
        coordinates=(np.array([-1.0, 0.1, 1.0]), np.linspace(-2, 2, 4) / 3),
        values=values,
        stderr={q: v / 7 for q, v in values.items()},
        check=check,
        title="a surface",
        provenance={"seed": 3, "span": (-1, 1), "lost": math.nan},
        barriers={"loss": Barrier(math.inf, None, 0.5, 0.25)},
        paired={"loss": values["loss"] / 11},
        status=status,
        tracks=(track,),
        merge_tree=MergeTree("loss", minima, 0.05),
    )


def through(piece: Slice) -> Slice:
    return Slice.from_json(json.loads(json.dumps(piece.to_json(), allow_nan=False)))


def test_everything_comes_back():
    piece, back = surface(), through(surface())
    assert (back.axes, back.title, back.check, back.merge_tree, back.barriers) == (
        piece.axes, piece.title, piece.check, piece.merge_tree, piece.barriers,
    )  # fmt: skip
    assert back.provenance == {"seed": 3, "span": [-1, 1], "lost": None}
    for a, b in zip(back.coordinates, piece.coordinates, strict=True):
        assert a.tobytes() == b.tobytes()
    for kind in ("values", "stderr", "paired"):
        here, there = getattr(piece, kind), getattr(back, kind)
        assert list(here) == list(there)
        for q in here:
            finite = np.isfinite(here[q])
            assert np.array_equal(there[q][finite], here[q][finite])
            assert np.isnan(there[q][~finite]).all()
    for q, codes in piece.status.items():
        assert np.array_equal(back.status[q], codes)
        assert back.status[q].dtype == np.int8
    (mine,), (its,) = piece.tracks, back.tracks
    assert (its.label, its.names, its.explained, its.path) == (mine.label, mine.names, mine.explained, mine.path)
    assert np.array_equal(its.coordinates, mine.coordinates, equal_nan=True)
    assert its.distances[0] == 1.5
    assert back.to_json() == piece.to_json()


def test_infinities_and_gaps_are_told_apart_afterwards():
    back = through(surface())
    assert back.status["loss"][1, 1] == NOT_FINITE
    known = back.known("loss")
    assert known.mask.sum() == 2
    assert known.mask[0, 3]
    assert known.mask[2, 1]
    assert (back.count(MISSING), back.count(FAILED), back.count(NOT_FINITE)) == (1, 1, 1)
    assert not back.complete


def test_status_is_written_where_none_was_given():
    values = np.ma.MaskedArray([1.0, 2.0, np.inf], mask=[False, True, False])
    piece = Slice(("a",), (np.arange(3.0),), {"loss": values}, {}, None, "", {})
    assert piece.status["loss"].tolist() == [DONE, MISSING, NOT_FINITE]
    back = through(piece)
    assert back.status["loss"].tolist() == [DONE, MISSING, NOT_FINITE]
    assert back.values["loss"][0] == 1.0
    assert np.isnan(back.values["loss"][1])


def test_an_old_document_without_the_new_keys_is_read():
    data = through(surface()).to_json()
    for key in ("barriers", "merge_tree", "tracks", "paired", "status"):
        del data[key]
    back = Slice.from_json(data)
    assert (back.tracks, back.merge_tree, back.paired, back.barriers) == ((), None, {}, {})
    assert back.status["test_accuracy"].tolist() == [[DONE] * 4] * 3


def test_a_check_of_numbers_that_are_not_finite_is_read_and_fails():
    ratios, derivatives = NormRatios("filter", math.nan, 1.0, 3), Derivatives({"11": math.nan}, {"11": 1.0})
    check = replace(surface().check, norm_ratio=(ratios, None), centre_value=math.inf, derivatives=derivatives)
    back = through(replace(surface(), check=check)).check
    assert math.isnan(back.norm_ratio[0].smallest)
    assert back.norm_ratio[0].largest == 1.0
    assert not back.passed
    assert any("nan" in line for line in back.lines())


@pytest.mark.parametrize("field", sorted(SliceCheck.__dataclass_fields__))
def test_no_field_of_the_check_is_lost(field):
    assert getattr(through(surface()).check, field) == getattr(surface().check, field)


def test_what_the_caller_gave_is_left_as_it_was():
    status: dict[str, np.ndarray] = {}
    piece = Slice(("a",), (np.arange(2.0),), {"loss": np.array([1.0, np.inf])}, {}, None, "", {}, status=status)
    assert status == {}
    assert piece.status["loss"].tolist() == [DONE, NOT_FINITE]
