"""Every result prints as a table, in a notebook as HTML with escaped names, and gives its numbers as a DataFrame."""

import sys

import numpy as np
import pytest

import landscape as ls
from landscape import results
from landscape.errors import UsageError
from landscape.results import (
    Block,
    Breakdown,
    Certificate,
    CertificateRow,
    Check,
    Eigenpairs,
    Estimate,
    FoundSymmetries,
    Information,
    LayerInformation,
    Measurement,
    MemorizationSignal,
    MutualInformation,
    Sharpness,
    Slice,
    SpectralDensity,
    WatchHistory,
)
from landscape.results.printed import Printed

EVIL = "<script>alert(1)</script>"


def density():
    grid, nodes = np.linspace(-1, 5, 40), np.array([[-1.0, 1.0, 4.0], [-0.5, 2.0, 4.5]])
    one = np.exp(-(grid**2))
    return SpectralDensity(grid, one, 0.5 * one, 2 * one, nodes, np.full((2, 3), 1 / 3), 0.1 * one, "linear", None, 900, 6)


def measured(name=EVIL):
    spot = {name: Measurement(Estimate(2.0, 0.1, "t", 8), "loss", ()), "trace": Measurement(Estimate(3.0), "loss", ())}
    return Sharpness(Estimate(0.1), None, spot, 10)


def blocks():
    whole, top = Estimate(3.0, 0.2, "t", 8), Estimate(1.5, 1e-3, "residual", 20)
    return Breakdown([Block(EVIL, None, 10, whole, top), Block(EVIL, 0, 5, whole, top)])


RESULTS = {
    "sharpness": (measured(), 2, {"measure", "value", "method_low", "data_high", "data_stderr", "unit"}),
    "eigenpairs": (
        Eigenpairs(np.array([3.0, 1.0]), np.zeros((2, 2)), np.array([1e-3, 1e-2]), np.array([True, False]), 9, "largest"),
        2,
        {"eigenvalue", "residual", "converged", "end"},
    ),
    "density": (density(), 40, {"eigenvalue", "density", "lower", "upper", "sigma"}),
    "breakdown": (blocks(), 2, {"layer", "filter", "trace", "lambda_max"}),
    "slice": (
        Slice((EVIL, "v"), (np.arange(2.0), np.arange(3.0)), {"loss": np.arange(6.0).reshape(2, 3)}, {}, None, EVIL, {}),
        6,
        {"a", "b", "loss"},
    ),
    "information": (
        Information((LayerInformation(EVIL, 3, "binned", MutualInformation(1.0), MutualInformation(0.9)),), 8, None, {}),
        1,
        {"layer", "inputs", "labels"},
    ),
    "comparison": (
        ls.compare({"a": [measured(), measured()], "b": [measured(), measured()]}), 6, {"quantity", "group", "median"},
    ),
    "certificate": (
        Certificate((CertificateRow(EVIL, Estimate(1.0), Estimate(4.0), False, "moved"),), "layer", 0.0, 1.0, True, 8, {}),
        1,
        {"measure", "before", "after", "ratio"},
    ),
    "alarm": (
        MemorizationSignal(np.arange(4), np.array([np.nan, 0.0, 0.4, 0.8]), 0.5, 1, 3, (EVIL,), counted="epoch"),
        4,
        {"epoch", "sum"},
    ),
    "symmetries": (FoundSymmetries({EVIL: 2}, across={"pair": 1}), 2, {"family", "found", "across"}),
    "history": (
        WatchHistory(
            tuple(Check(k, 0.5, {EVIL: Estimate(2.0, 0.1, "t", 8)}, {EVIL: 3.0}) for k in range(4)),
            remarks=(EVIL,),
            memorization=MemorizationSignal(np.arange(4), np.zeros(4), 0.5, 1, None, (EVIL,)),
        ),
        4,
        {"step", "loss", EVIL, f"{EVIL}_error", f"{EVIL}_edge"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("result", "rows", "columns"), RESULTS.values(), ids=RESULTS)
def test_a_result_prints_shortly_and_gives_its_numbers(result, rows, columns):
    assert len(str(result).splitlines()) < 20
    assert "array(" not in str(result) + repr(result)[:2000]
    html = result._repr_html_()
    assert "<table>" in html
    assert "<script" not in html
    pytest.importorskip("pandas")
    table = result.to_dataframe()
    assert len(table) == rows
    assert columns <= set(table.columns)


# What has no picture of its own, and why.
WITHOUT_PICTURE = {"FoundSymmetries", "Sweep"}  # counts of families; a table of any number of checkpoints


def test_every_result_that_prints_is_here():
    printed = {n for n in results.__all__ if isinstance(k := getattr(results, n), type) and issubclass(k, Printed)}
    elsewhere = {"CertificateTable", "MinibatchSpectra", "SampleScores", "Sweep"}  # in the tests of their own files
    assert {type(r).__name__ for r, _, _ in RESULTS.values()} | elsewhere == printed
    assert all(hasattr(getattr(results, n), "plot") for n in printed - WITHOUT_PICTURE)


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_a_misspelt_option_of_a_drawing_is_answered_with_its_name(name):
    if (result := RESULTS[name][0]).__class__.__name__ not in WITHOUT_PICTURE:
        with pytest.raises(TypeError, match=r"plot got an unexpected keyword argument 'captoin'; did you mean caption\?$"):
            result.plot(captoin=True)


@pytest.mark.parametrize("name", ["sharpness", "comparison", "certificate", "information", "alarm"])
def test_a_result_draws_itself_with_and_without_a_caption(name):
    result = RESULTS[name][0]
    for caption in (False, True):
        found = result.plot(caption=caption)
        axes = found if isinstance(found, list) else [found]
        assert sum(len(ax.lines) + len(ax.collections) + len(ax.patches) for ax in axes) > 0
        assert all(ax.figure is axes[0].figure for ax in axes)
    with pytest.raises(UsageError, match="expected caption=True without ax"):
        result.plot(found, caption=True)


def test_the_picture_of_one_network_has_its_values():
    axes = measured("sam").plot(measures=["sam"])
    drawn = [y for ax in axes for line in ax.lines for y in np.atleast_1d(line.get_ydata())]
    assert 2.0 in drawn
    certificate = RESULTS["certificate"][0].plot()
    assert any(4.0 in np.atleast_1d(line.get_xdata()) for line in certificate.lines)


def test_the_table_of_a_plane_keeps_the_order_of_its_axes():
    pytest.importorskip("pandas")
    table = RESULTS["slice"][0].to_dataframe()
    assert table.loc[(table.a == 1) & (table.b == 2), "loss"].item() == 5.0


def test_a_density_says_its_ends():
    text = str(density())
    assert "900 eigenvalues" in text
    assert "-1 " in text
    assert "4.5 " in text


def test_a_result_of_measures_is_a_dictionary():
    assert dict(measured("sam")) == {"sam": Estimate(2.0, 0.1, "t", 8), "trace": Estimate(3.0)}
    assert list(measured("sam")) == ["sam", "trace"]


@pytest.mark.parametrize("name", ["eigenpairs", "density", "breakdown"])
def test_a_spectrum_has_a_picture(name):
    assert RESULTS[name][0].plot().get_figure() is not None
    assert RESULTS[name][0].plot(caption=True).get_figure() is not None


def test_without_pandas_the_refusal_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"pip install 'landscape-sharpness\[pandas\]'"):
        density().to_dataframe()


@pytest.mark.parametrize("runs", [[object()], object()], ids=["a list of networks", "a network"])
def test_networks_that_are_not_measured_cannot_be_compared(runs):
    with pytest.raises(UsageError, match=r"expected .*runs.* in group a, found object"):
        ls.compare({"a": runs, "b": [measured("sam")]})
