"""Slices in other tools' formats, read back by those tools: xarray, scipy, VTK and Python's csv module."""

import csv
import io
import json
import sys
from dataclasses import replace
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import netcdf_file

from landscape.errors import UsageError
from landscape.measures import chosen
from landscape.report import export_slice, slice_csv
from landscape.report.exports.exported_variables import meaning, variables
from landscape.report.exports.netcdf import dataset, netcdf
from landscape.report.exports.vtk import vtk
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

xarray = pytest.importorskip("xarray", reason="the reader of NetCDF is an extra")

HOSTILE = '=cmd()|"<script>]]>&\x1b[31m\x00\n\u202eü\ud800λ'
PROVENANCE = {
    "checkpoint": "runs/größe/final.pt", "seed": 7, "span": [-1.0, 1.0], "lr": 0.1, "frozen": True, "weights": 3_000_000_000,
    "key": 2**60 + 1, "nothing": None, "lost": float("nan"), "share": np.float32(0.5),
}  # fmt: skip


def f(x, y):
    """Another function than f(y, x), f(-x, y) and f(x, -y)."""
    return 0.3 + x**2 + 7 * y**2 + x * y**2 + 0.1 * y


def surface() -> Slice:
    """4 x 5 points: one missing, one failed, one infinite, one not a number, the rest from a formula."""
    x, y = np.array([-1.0, -1 / 3, 0.2, 1.0]), np.array([-0.7, -0.1, 0.0, 0.3, 1.1])
    loss = f(x[:, None], y[None, :])
    status = np.full((4, 5), DONE, np.int8)
    for place, state, value in (
        ((0, 1), MISSING, 99.0), ((3, 2), FAILED, np.nan), ((2, 4), NOT_FINITE, np.inf), ((1, 0), NOT_FINITE, np.nan)
    ):  # fmt: skip
        loss[place], status[place] = value, state
    values = {"loss": loss, "test_accuracy": np.exp(-f(x[:, None], y[None, :])), "lambda_max": 2 * loss - 1}
    errors = {q: 0.01 * np.abs(values[q]) for q in ("loss", "test_accuracy", "lambda_max")}
    tree = MergeTree("loss", (Minimum((2, 2), (0.2, 0.0), 0.34, None, np.inf, None),), 0.1)
    curvature = {"11": 2.0, "12": 0.0, "22": 14.0}
    ratios = NormRatios("filter", 0.9, 1.1, 26), None
    check = SliceCheck(0.01, ratios, None, 0.3, False, Derivatives(curvature, curvature, loss=0.3))
    places, names = np.array([[0.5, 1.5], [0.25, 0.1], [0.0, 0.0]]), ("epoch 1", "", "épôque 3")
    track = Track("traïning", names, places, np.array([3.0, 1.0, 0.0]), 0.75)
    return Slice(
        ("random, seed 7, filter norm", "towards gröber.pt"), (x, y), values, errors, check, "Loss surface", PROVENANCE,
        {"loss": Barrier(np.inf, None, 0.5, 1.0)}, {"loss": 0.001 * np.abs(loss)}, {"loss": status, "lambda_max": status},
        (track,), tree,
    )  # fmt: skip


def path() -> Slice:
    a = np.linspace(0, 1, 7)
    loss = np.ma.MaskedArray(a * (1 - a), mask=a == 0.5)
    return Slice(
        ("from 0 to 1",), (a,), {"loss": loss, "accuracy": 1 - loss}, {}, None, "", {}, {"loss": Barrier(0.2, 0.1, 0.5, 0)}
    )


def expected(piece: Slice, quantity: str) -> np.ndarray:
    """A quantity with nan where it is not known."""
    return np.where(np.isin(piece.status[quantity], (MISSING, FAILED)), np.nan, np.ma.getdata(piece.values[quantity]))


def opened(content: bytes, folder) -> "xarray.Dataset":
    file = folder / "slice.nc"
    file.write_bytes(content)
    return xarray.load_dataset(file, engine="scipy")


def same(a, b) -> bool:
    """Equal to the bit."""
    a, b = np.ascontiguousarray(a, "<f8"), np.ascontiguousarray(b, "<f8")
    return a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("make", [surface, path])
def test_xarray_opens_what_to_xarray_makes(make, tmp_path):
    piece = make()
    found = opened(netcdf(piece), tmp_path)
    xarray.testing.assert_identical(found, piece.to_xarray())
    for i, at in enumerate(piece.coordinates, 1):
        assert same(found[f"axis_{i}"], at)
        assert found[f"axis_{i}"].attrs["units"] == "1"
        assert found[f"axis_{i}"].attrs["long_name"] == piece.axes[i - 1]
    for quantity in piece.values:
        assert found[quantity].dims == tuple(f"axis_{i}" for i in range(1, piece.dim + 1))
        assert same(found[quantity], expected(piece, quantity))
        assert np.array_equal(found[f"{quantity}_status"], piece.status[quantity])
        assert found[f"{quantity}_status"].dtype == np.int8


def test_a_value_is_where_its_coordinates_say(tmp_path):
    found = opened(netcdf(surface()), tmp_path)
    assert found.sizes["axis_1"] == 4
    assert found.sizes["axis_2"] == 5
    for x, y in ((-1.0, 1.1), (1.0, -0.7), (0.2, 0.3)):
        assert float(found.loss.sel(axis_1=x, axis_2=y)) == pytest.approx(f(x, y), rel=1e-15)


def test_missing_failed_and_not_finite_stay_apart(tmp_path):
    found = opened(netcdf(surface()), tmp_path)
    for quantity in ("loss", "loss_stderr", "loss_paired_stderr"):
        assert np.isnan(found[quantity].values[0, 1])
        assert np.isnan(found[quantity].values[3, 2])
        assert np.isposinf(found[quantity].values[2, 4])
    words = found.loss_status.attrs["flag_meanings"].split()
    codes = found.loss_status.attrs["flag_values"]
    known = ("missing", "done", "not_finite", "failed", "not_converged", "interpolated")
    assert dict(zip(words, codes, strict=True)) == dict(zip(known, range(6), strict=True))
    named = [words[int(found.loss_status[i])] for i in ((0, 1), (3, 2), (2, 4), (1, 0), (0, 0))]
    assert named == ["missing", "failed", "not_finite", "not_finite", "done"]
    masked = opened(netcdf(path()), tmp_path)
    assert np.isnan(masked.accuracy.values[3])
    assert masked.accuracy_status.values.tolist() == [1, 1, 1, 0, 1, 1, 1]


def test_a_status_never_contradicts_its_value():
    a = np.arange(3.0)
    piece = Slice(("a",), (a,), {"loss": np.array([1.0, np.inf, 2.0])}, {}, None, "", {}, status={"loss": np.ones(3, np.int8)})
    assert dataset(piece).loss_status.values.tolist() == [DONE, NOT_FINITE, DONE]


def test_units_and_meanings(tmp_path):
    found = opened(netcdf(surface()), tmp_path)
    units = {"loss": "1", "test_accuracy": "1", "lambda_max": "loss / weight^2", "track_1_distance": "weight"}
    for name, unit in units.items():
        assert found[name].attrs["units"] == unit
    for name in ("loss_stderr", "loss_paired_stderr", "lambda_max_stderr"):
        assert found[name].attrs["units"] == units[name.split("_stderr")[0].removesuffix("_paired")]
    assert "fraction" in found.test_accuracy.attrs["long_name"]
    assert found.loss_stderr.attrs["long_name"] == "standard error over samples of the loss, mean per sample"
    assert found.loss_paired_stderr.attrs["long_name"].startswith("standard error over samples of the difference to the centre")
    assert found.lambda_max_stderr.attrs["long_name"].startswith("residual")
    assert found.loss.attrs["ancillary_variables"] == "loss_stderr loss_paired_stderr loss_status"
    for variable in found.data_vars.values():
        assert all(linked in found for linked in variable.attrs.get("ancillary_variables", "").split())


@pytest.mark.parametrize("quantity", ["lambda_max", "lambda_min"])
def test_units_are_those_of_the_measures(quantity):
    (measure,) = chosen(quantity)
    assert meaning(quantity)[1] == measure.unit


def test_provenance_and_evidence(tmp_path):
    piece, found = surface(), opened(netcdf(surface()), tmp_path)
    assert found.attrs["Conventions"] == "CF-1.8"
    assert found.attrs["title"] == "Loss surface"
    whole = json.loads(found.attrs["provenance"])
    assert whole == {**PROVENANCE, "lost": None, "share": 0.5}
    flat = {k.removeprefix("provenance_"): v for k, v in found.attrs.items() if k.startswith("provenance_")}
    assert set(flat) == set(PROVENANCE) - {"span", "nothing"}
    assert flat["checkpoint"] == PROVENANCE["checkpoint"]
    for key in ("seed", "lr", "weights", "frozen", "share"):
        assert float(flat[key]) == float(PROVENANCE[key]), key  # as Python's floats: numpy would compare in float32
    assert flat["key"] == str(2**60 + 1)
    assert np.isnan(flat["lost"])
    assert SliceCheck.from_json(json.loads(found.attrs["check"])) == piece.check
    assert not found.attrs["check_passed"]
    assert Barrier.from_json(json.loads(found.attrs["barriers"])["loss"]) == piece.barriers["loss"]
    assert MergeTree.from_json(json.loads(found.attrs["merge_tree"])) == piece.merge_tree
    assert Track.from_json(json.loads(found.attrs["tracks"])[0]).names == piece.tracks[0].names


def test_tracks_are_variables(tmp_path):
    (track,), found = surface().tracks, opened(netcdf(surface()), tmp_path)
    assert tuple(found.track_1_name.values) == track.names
    for i in (0, 1):
        assert same(found[f"track_1_axis_{i + 1}"], track.coordinates[:, i])
    assert same(found.track_1_distance, track.distances)
    assert found.track_1_name.attrs["explained_share"] == 0.75
    assert found.track_1_name.attrs["is_path"] == 1
    empty = Track("none", (), np.zeros((0, 2)), np.zeros(0), None)
    assert not [v for v in opened(netcdf(replace(surface(), tracks=(empty,))), tmp_path) if v.startswith("track")]


def test_scipy_opens_it():
    piece = surface()
    with netcdf_file(BytesIO(netcdf(piece)), "r") as file:
        assert file.version_byte == 2
        assert file.dimensions["axis_1"] == 4
        assert file.dimensions["axis_2"] == 5
        assert same(file.variables["loss"].data, expected(piece, "loss"))
        assert file.variables["loss"].dimensions == ("axis_1", "axis_2")
        assert file.provenance_checkpoint.decode() == PROVENANCE["checkpoint"]


def read(piece: Slice):
    """What VTK's own reader makes of the file; it must not complain."""
    library = pytest.importorskip("vtk", reason="the reader of .vtr is a development extra")
    complaints: list[str] = []
    reader = library.vtkXMLRectilinearGridReader()
    reader.AddObserver("ErrorEvent", lambda *_: complaints.append("error"))
    reader.AddObserver("WarningEvent", lambda *_: complaints.append("warning"))
    reader.ReadFromInputStringOn()
    reader.SetInputString(vtk(piece).decode("ascii"))
    reader.Update()
    assert complaints == []
    return library, reader.GetOutput()


def array(grid, name: str) -> np.ndarray:
    """Point data, indexed [axis 1, axis 2]."""
    from vtk.util.numpy_support import vtk_to_numpy

    n1, n2, _ = grid.GetDimensions()
    return vtk_to_numpy(grid.GetPointData().GetArray(name)).reshape(n2, n1).T


@pytest.mark.parametrize("make", [surface, path])
def test_vtk_reads_every_array_to_the_bit(make):
    from vtk.util.numpy_support import vtk_to_numpy

    piece = make()
    library, grid = read(piece)
    found, shape = variables(piece), tuple(len(c) for c in piece.coordinates)
    assert grid.GetDimensions() == (*shape, 1, 1)[:3]
    assert same(vtk_to_numpy(grid.GetXCoordinates()), piece.coordinates[0])
    assert same(vtk_to_numpy(grid.GetYCoordinates()), piece.coordinates[1] if piece.dim == 2 else [0.0])
    assert same(vtk_to_numpy(grid.GetZCoordinates()), [0.0])
    data = grid.GetPointData()
    assert [data.GetArrayName(i) for i in range(data.GetNumberOfArrays())] == [v.name for v in found.quantities] + [
        "vtkGhostType"
    ]
    assert data.GetScalars().GetName() == "loss"
    for quantity in piece.values:
        values = array(grid, quantity).reshape(shape)
        assert same(values, expected(piece, quantity))
        assert np.array_equal(array(grid, f"{quantity}_status").reshape(shape), piece.status[quantity])
    for v in found.quantities:
        assert np.array_equal(array(grid, v.name).reshape(shape), v.values, equal_nan=True)
        information = data.GetArray(v.name).GetInformation()
        assert information.Get(library.vtkDataArray.UNITS_LABEL()) == v.attributes.get("units")


def test_vtk_puts_values_at_their_points():
    _, grid = read(surface())
    loss = grid.GetPointData().GetArray("loss")
    for i in range(grid.GetNumberOfPoints()):
        x, y, z = grid.GetPoint(i)
        assert z == 0
        if np.isfinite(loss.GetValue(i)):
            assert loss.GetValue(i) == pytest.approx(f(x, y), rel=1e-14)


def test_points_without_a_loss_are_hidden_in_vtk():
    library, grid = read(surface())
    hidden = {(0, 1), (3, 2)}
    for i in range(4):
        for j in range(5):
            assert bool(grid.IsPointVisible(i + 4 * j)) == ((i, j) not in hidden)
    warp = library.vtkWarpScalar()
    warp.SetInputData(grid)
    warp.SetInputArrayToProcess(0, 0, 0, 0, "loss")
    drawn = library.vtkGeometryFilter()  # what ParaView draws a grid with
    for source in (library.vtkTrivialProducer(), warp):
        if source is not warp:
            source.SetOutput(grid)
        drawn.SetInputConnection(source.GetOutputPort())
        drawn.Update()
        # 3 x 4 cells; a point on the left edge takes two of them away, one on the right edge another two
        assert drawn.GetOutput().GetNumberOfCells() == 12 - 4
    _, whole = read(replace(surface(), status={"loss": np.full((4, 5), DONE, np.int8)}))
    assert not whole.HasAnyBlankPoints()


def test_warp_by_scalar_makes_heights():
    library, grid = read(surface())
    warp = library.vtkWarpScalar()
    warp.SetInputData(grid)
    warp.SetInputArrayToProcess(0, 0, 0, 0, "test_accuracy")
    warp.Update()
    heights, accuracy = warp.GetOutput(), grid.GetPointData().GetArray("test_accuracy")
    for i in range(20):
        assert heights.GetPoint(i)[2] == pytest.approx(accuracy.GetValue(i), abs=1e-6)  # points are float32 there


def test_vtk_carries_what_the_file_is():
    _, grid = read(surface())
    data = grid.GetFieldData()

    def text(name, i=0):
        return data.GetAbstractArray(name).GetValue(i)

    assert text("title") == "Loss surface"
    assert text("provenance_checkpoint") == PROVENANCE["checkpoint"]
    assert json.loads(text("provenance"))["seed"] == 7
    assert [text("track_1_name", i) for i in range(3)] == list(surface().tracks[0].names)
    assert [data.GetArray("track_1_axis_2").GetValue(i) for i in range(3)] == surface().tracks[0].coordinates[:, 1].tolist()
    assert data.GetArray("provenance_lr").GetValue(0) == 0.1
    assert data.GetArray("check_passed").GetValue(0) == 0


@pytest.mark.parametrize("make", [surface, path])
def test_csv_reads_back_exactly(make):
    piece = make()
    rows = list(csv.DictReader(io.StringIO(slice_csv(piece), newline="")))
    names = [f"axis_{i}" for i in range(1, piece.dim + 1)]
    assert list(rows[0]) == [
        *(f"index_{i}" for i in range(1, piece.dim + 1)),
        *names,
        *(v.name for v in variables(piece).quantities),
    ]
    assert len(rows) == np.prod([len(c) for c in piece.coordinates])
    words = ("missing", "done", "not finite", "failed")
    found = variables(piece)
    for row, index in zip(rows, np.ndindex(*(len(c) for c in piece.coordinates)), strict=True):
        assert tuple(int(row[f"index_{i}"]) for i in range(1, piece.dim + 1)) == index
        assert [float(row[n]) for n in names] == [c[i] for c, i in zip(piece.coordinates, index, strict=True)]
        for quantity in piece.values:
            assert float(row[quantity]) == pytest.approx(expected(piece, quantity)[index], rel=0, abs=0, nan_ok=True)
            assert row[f"{quantity}_status"] == words[piece.status[quantity][index]]
        for v in found.quantities:
            if v.name.endswith("stderr"):
                assert same(float(row[v.name]), v.values[index])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_floats_survive_every_format(data):
    shape = data.draw(st.sampled_from([(1,), (5,), (1, 3), (3, 2)]))
    values = data.draw(hnp.arrays(np.float64, shape, elements=st.floats(width=64)))
    piece = Slice(("a", "b")[: len(shape)], tuple(np.arange(float(n)) for n in shape), {"loss": values}, {}, None, "t", {})
    with netcdf_file(BytesIO(netcdf(piece)), "r", mmap=False) as file:
        assert np.array_equal(file.variables["loss"].data, values, equal_nan=True)
    rows = list(csv.DictReader(io.StringIO(slice_csv(piece), newline="")))
    assert np.array_equal([float(r["loss"]) for r in rows], values.ravel(), equal_nan=True)
    _, grid = read(piece)
    assert np.array_equal(array(grid, "loss").reshape(shape), values, equal_nan=True)


def test_equal_slices_give_equal_bytes_and_stay_as_they_are():
    piece = surface()
    before = [a.tobytes() for d in (piece.values, piece.stderr, piece.paired, piece.status) for a in d.values()]
    for made in (netcdf, vtk, slice_csv):
        assert made(piece) == made(surface())
    assert [a.tobytes() for d in (piece.values, piece.stderr, piece.paired, piece.status) for a in d.values()] == before


def test_hostile_names(tmp_path):
    a = np.arange(3.0)
    values = {HOSTILE: a, "1/2": a + 1, "1:2": a + 2, "axis_1": a + 3, "loss": a, "loss_status": a + 4}
    values |= {"track_1_point": a + 5, "track_1_name_length": a + 6, "vtkGhostType": a + 7}
    track = Track(HOSTILE, (HOSTILE, "b"), np.zeros((2, 1)), np.zeros(2), None)
    piece = Slice((HOSTILE,), (a,), values, {}, None, HOSTILE, {HOSTILE: HOSTILE, "a": {HOSTILE: [1]}}, tracks=(track,))
    names = [v.name for v in variables(piece).quantities]
    assert len(set(names)) == len(names) == 18
    assert all(n.isascii() and n.isidentifier() for n in names)
    assert "axis_1" not in names
    found = opened(netcdf(piece), tmp_path)
    xarray.testing.assert_identical(found, piece.to_xarray())
    assert [float(v[0]) for v in found.data_vars.values() if v.dtype == float and v.dims == ("axis_1",)] == [
        *(0, 1, 2, 3, 0, 4, 5, 6, 7)
    ]
    texts = [found.attrs["title"], found.axis_1.attrs["long_name"], found.track_1_name.values[0], found.attrs["provenance"]]
    assert all(t.isprintable() for t in texts)
    assert "\\x1b[31m\\x00\\n\\u202eü\\ud800λ" in found.attrs["title"]
    assert json.loads(found.attrs["provenance"]) == piece.provenance
    ElementTree.fromstring(vtk(piece))
    _, grid = read(piece)
    assert grid.GetFieldData().GetAbstractArray("title").GetValue(0) == found.attrs["title"]
    assert [grid.GetPointData().GetArrayName(i) for i in range(18)] == names
    assert slice_csv(piece).splitlines()[0].split(",")[2:] == names


def test_without_xarray_the_file_is_still_written(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(UsageError, match=r"expected xarray .*, found none; pip install 'landscape-sharpness\[xarray\]'"):
        surface().to_xarray()
    assert netcdf(surface())[:4] == b"CDF\x02"


def test_export_writes_whole_files(tmp_path):
    piece = surface()
    files = export_slice(piece, tmp_path, "surface.v2")
    assert [p.name for p in files[:3]] == ["surface.v2.nc", "surface.v2.vtr", "surface.v2.csv"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert [p.read_bytes() for p in files[:3]] == [netcdf(piece), vtk(piece), slice_csv(piece).encode()]
    assert export_slice(piece, tmp_path, "surface.v2") == files
    for stem in ("../a", ""):
        with pytest.raises(UsageError, match="expected"):
            export_slice(piece, tmp_path, stem)
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(p.is_file() for p in export_slice(piece, tmp_path / "new", "a"))


def test_what_cannot_be_exported():
    a = np.arange(2.0)
    with pytest.raises(UsageError, match="at least one quantity, found none"):
        netcdf(Slice(("a",), (a,), {}, {}, None, "", {}))
    with pytest.raises(UsageError, match="at most three axes, found 4"):
        vtk(Slice(tuple("abcd"), (a,) * 4, {"loss": np.zeros((2,) * 4)}, {}, None, "", {}))
