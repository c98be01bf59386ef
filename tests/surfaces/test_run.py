"""The directory of a surface: what differs is refused by name, what is lost or damaged is done again, failures are said."""

import json
import os
import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import scipy
import torch
from torch import Tensor, nn

from landscape.curvature import footprint
from landscape.errors import MalformedError, NumericalError, UsageError
from landscape.objective import Objective
from landscape.results import DONE, FAILED, MISSING, NOT_FINITE, Slice
from landscape.surfaces import agreed, line, plane, random_direction, store_directions, stored_directions
from landscape.surfaces.axes.directions import Direction
from landscape.surfaces.running import run_directory as run_module
from landscape.surfaces.running.journal import Journal
from landscape.surfaces.running.run_directory import Run


def network(seed: int = 0, batchnorm: bool = False) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(4, 5), *([nn.BatchNorm1d(5)] if batchnorm else []), nn.Tanh(), nn.Linear(5, 3)]
        return nn.Sequential(*layers)


def data(seed: int = 0, n: int = 20) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=g), torch.randint(0, 3, (n,), generator=g)


@dataclass(frozen=True)
class Recipe:
    """A surface, told by what may be changed about it."""

    weights: int = 0
    data: int = 0
    test: int | None = 1
    samples: int = 20
    dtype: str = "float64"
    batch_size: int | None = None
    has_batchnorm: bool = False
    batchnorm: str = "eval"
    span: tuple[float, float] = (-1.0, 1.0)
    grid: int = 5
    seed: int = 0
    curvature: bool = False
    metric: bool = False

    def made(self, run: Path | None = None, **more) -> Slice:
        options = {"dtype": self.dtype} | ({} if self.batch_size is None else {"batch_size": self.batch_size})
        if self.metric:
            options["metric"] = largest
        model = network(self.weights, self.has_batchnorm)
        objective = Objective(model, nn.CrossEntropyLoss(), data(self.data, self.samples), **options)
        test = None if self.test is None else Objective(model, nn.CrossEntropyLoss(), data(self.test), **options)
        return line(
            objective, span=self.span, grid=self.grid, seed=self.seed, test=test, batchnorm=self.batchnorm,
            curvature=self.curvature, run=run, **more,
        )  # fmt: skip


def largest(output: Tensor, target: Tensor) -> Tensor:
    return output.max(-1).values


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def same(a: Slice, b: Slice) -> bool:
    return json.dumps(a.to_json()) == json.dumps(b.to_json())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights": 1}, ["weights (", "axis 1 ("]),
        ({"data": 5}, ["data ("]),
        ({"samples": 12}, ["data (", "samples (20 there, 12 asked)"]),
        ({"test": 5}, ["test data ("]),
        ({"test": None}, ["test data (", "the default asked", "test samples (20 there, the default asked)"]),
        ({"dtype": "float32"}, ["dtype (torch.float64 there, torch.float32 asked)"]),
        ({"has_batchnorm": True}, ["network (", "buffers ("]),
        ({"span": (-1.0, 2.0)}, ["span ([-1.0, 1.0] there, [-1.0, 2.0] asked)"]),
        ({"grid": 7}, ["grid (5 there, 7 asked)"]),
        ({"seed": 3}, ["axis 1 ("]),
        ({"curvature": True}, ["curvature (no there, yes asked)"]),
        ({"metric": True}, ["metric ("]),
    ],
)
def test_what_differs_is_refused_by_its_name_and_nothing_is_overwritten(tmp_path, change, named):
    Recipe().made(tmp_path / "run")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"expected the inputs of the surface in .*, found other inputs: ") as refused:
        replace(Recipe(), **change).made(tmp_path / "run")
    assert refused.value.exit_code == 2
    for text in named:
        assert text in str(refused.value)
    assert "choose another directory, or undo the change" in str(refused.value)
    assert contents(tmp_path) == before


def test_other_batches_are_refused_where_a_network_is_not_so_small_that_they_go_together(tmp_path, monkeypatch):
    whole = Recipe().made(tmp_path / "run")
    assert same(replace(Recipe(), batch_size=7).made(tmp_path / "run"), whole)
    monkeypatch.setattr(footprint, "_JOINED", 0)
    with pytest.raises(UsageError, match=r"micro-batches \(\[20\] there, \[7, 7, 6\] asked\)"):
        replace(Recipe(), batch_size=7).made(tmp_path / "run")


def test_another_way_with_batchnorm_is_refused(tmp_path):
    recipe = Recipe(has_batchnorm=True)
    recipe.made(tmp_path / "run")
    with pytest.raises(UsageError, match=r"batchnorm \(eval there, recalibrate asked\)"):
        replace(recipe, batchnorm="recalibrate").made(tmp_path / "run")


@pytest.mark.parametrize(("library", "name"), [(torch, "torch"), (np, "numpy"), (scipy, "scipy")])
def test_another_version_is_refused(tmp_path, monkeypatch, library, name):
    Recipe().made(tmp_path / "run")
    here = library.__version__
    monkeypatch.setattr(library, "__version__", "1.0")
    with pytest.raises(UsageError, match=rf"{name} \({here.replace('+', '.')} there, 1.0 asked\)".replace("+", ".")):
        Recipe().made(tmp_path / "run")


def test_another_python_is_refused(tmp_path, monkeypatch):
    """Functions are told apart by their bytecode, which each version writes in its own way: the reason is named."""
    Recipe().made(tmp_path / "run")
    here = ".".join(map(str, sys.version_info[:2]))
    monkeypatch.setattr(platform, "python_version_tuple", lambda: ("4", "0", "7"))
    with pytest.raises(UsageError, match=rf"python \({here} there, 4.0 asked\)"):
        Recipe().made(tmp_path / "run")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_kind_of_gpu_is_in_the_manifest(tmp_path):
    manifest = Run(tmp_path, {"device": "cuda"}).manifest
    assert manifest["GPU"] == torch.cuda.get_device_name()
    assert manifest["CUDA"] == torch.version.cuda
    assert manifest["cuDNN"] == torch.backends.cudnn.version()


def scaled(factor: float):
    """A mean squared error, as it is written in a task file that is edited."""
    space = {"F": nn.functional}
    exec(f"def loss(output, target):\n    return {factor} * F.mse_loss(output, target)", space)
    return space["loss"]


def parabola(factor: float = 1.0, loss=None) -> Objective:
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    return Objective(net, loss or scaled(factor), (torch.ones(2, 1), torch.zeros(2, 1)), dtype="float64")


def test_a_loss_that_was_edited_is_refused(tmp_path):
    first = along(parabola(), tmp_path)
    assert same(along(parabola(), tmp_path), first), "the same text is the same loss"
    with pytest.raises(UsageError, match=r"found other inputs: loss \(\w{8}… there, \w{8}… asked\)"):
        along(parabola(5.0), tmp_path)


def outside(output: Tensor, target: Tensor) -> Tensor:
    """A loss with a setting that nobody can see from outside."""
    return float(os.environ["SCALE"]) * nn.functional.mse_loss(output, target)


@pytest.mark.parametrize("points", [2, 9])
def test_a_change_that_nobody_can_see_is_found_by_a_point(tmp_path, monkeypatch, points):
    """Also where the surface is done, and would only be exported again."""
    monkeypatch.setenv("SCALE", "1")
    with monkeypatch.context() as patched:
        stop_after(patched, points)
        with pytest.raises(Interrupted):
            along(parabola(loss=outside), tmp_path)
    before = contents(tmp_path)
    monkeypatch.setenv("SCALE", "5")
    with pytest.raises(
        UsageError, match=r"expected the loss at point \d to equal the journal.s, loss \[.*\], found loss \[.*\]: "
        r"the network, the data or the code changed, or the machine computes differently; choose another directory",
    ):  # fmt: skip
        along(parabola(loss=outside), tmp_path)
    assert contents(tmp_path) == before
    monkeypatch.setenv("SCALE", "1")
    assert along(parabola(loss=outside), tmp_path).complete


def test_going_on_costs_one_point(tmp_path):
    def spent(run: Path) -> int:
        objective = parabola()
        objective.preflight()
        along(objective, run)
        return objective.spent.forwards

    whole, again = spent(tmp_path), spent(tmp_path)
    assert whole - again == 9 - 1 - 1  # of nine points the centre is known, and one is computed again


def test_another_processor_is_refused(tmp_path, monkeypatch):
    Recipe().made(tmp_path / "run")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER")
    with pytest.raises(UsageError, match=r"processor \(\w+ there, OTHER asked\)"):
        Recipe().made(tmp_path / "run")


def test_the_threads_it_was_begun_with_are_taken_and_given_back(tmp_path):
    """The last bits depend on them, so whoever goes on uses as many as the first."""
    own = torch.get_num_threads()
    torch.set_num_threads(own + 1)
    try:
        first = Run(tmp_path / "run", {"a": 1})
    finally:
        torch.set_num_threads(own)
    later = Run(tmp_path / "run", {"a": 1})
    assert later.manifest["threads"] == own + 1
    assert later.digest == first.digest
    with later.computing():
        assert torch.get_num_threads() == own + 1
    assert torch.get_num_threads() == own
    with pytest.raises(ZeroDivisionError), later.computing():
        raise ZeroDivisionError
    assert torch.get_num_threads() == own


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"threads": 0}', b'{"threads": "many"}', b'{"threads": 1e30}', b"[" * 100_000],
)
def test_a_damaged_manifest_is_told(tmp_path, content):
    Recipe().made(tmp_path / "run")
    (tmp_path / "run" / "manifest.json").write_bytes(content)
    before = contents(tmp_path)
    with pytest.raises(MalformedError, match=r"expected the manifest of a surface in .*, found a damaged one; delete"):
        Recipe().made(tmp_path / "run")
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"expected to write .*, found: Not a directory"):
        Recipe().made(tmp_path / "file" / "run")
    with pytest.raises(UsageError, match=r"expected to write .*, found: File exists"):
        Recipe().made(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_killed_processes_left_is_swept_and_what_is_new_stays(tmp_path):
    Recipe().made(tmp_path / "run")
    old, new, mine = (tmp_path / "run" / n for n in (".manifest.json.123-0123abcd", ".manifest.json.124-0123abcd", ".mine"))
    for path in (old, new, mine):
        path.write_text("half")
    for path in (old, mine):
        os.utime(path, (0, 0))
    Recipe().made(tmp_path / "run")
    assert not old.exists()
    assert new.exists()
    assert mine.exists()


def test_without_hard_links_the_first_manifest_still_counts(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    first = Recipe().made(tmp_path / "run")
    assert same(first, Recipe().made(tmp_path / "run"))
    with pytest.raises(UsageError, match="grid"):
        replace(Recipe(), grid=7).made(tmp_path / "run")


def test_of_two_that_settle_at_once_one_wins_for_both(tmp_path):
    def settle_slowly():
        assert agreed(tmp_path, "plan", lambda: {"grid": 7}) == {"grid": 7}  # another process, in between
        return {"grid": 51}

    assert agreed(tmp_path, "plan", settle_slowly) == {"grid": 7}
    assert agreed(tmp_path, "plan", lambda: {"grid": 9}) == {"grid": 7}
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"], "and no part stays"
    (tmp_path / "plan.json").write_text("[")
    with pytest.raises(MalformedError, match="expected stored settings in"):
        agreed(tmp_path, "plan", dict)


def test_directions_come_back_to_the_bit_and_the_first_ones_stay(tmp_path):
    objective = Objective(network(batchnorm=True), nn.CrossEntropyLoss(), data(), dtype="float64")
    assert stored_directions(tmp_path, objective.theta) is None
    one, two = (random_direction(objective, seed=s) for s in (0, 1))
    one = replace(one, buffers={"1.running_mean": torch.arange(5.0, dtype=torch.float64)})
    store_directions(tmp_path, (one, two))
    store_directions(tmp_path, (two, one))
    back = stored_directions(tmp_path, objective.theta)
    for a, b in zip(back, (one, two), strict=True):
        assert (a.name, a.norm) == (b.name, b.norm)
        assert torch.equal(a.vector, b.vector)
    assert torch.equal(back[0].buffers["1.running_mean"], one.buffers["1.running_mean"])
    assert back[1].buffers is None
    path = tmp_path / "directions.safetensors"
    whole = path.read_bytes()
    for damaged in (b"", whole[:40], whole[:-8], b"x" * 200):
        path.write_bytes(damaged)
        with pytest.raises(
            MalformedError, match=r"expected the directions of a surface in .*, found a damaged file; delete it"
        ):
            stored_directions(tmp_path, objective.theta)


class Interrupted(BaseException):
    """Stands for the signal that ends a process."""


def stop_after(monkeypatch, points: int) -> None:
    """Let a run end right after so many points are in its journal."""
    real = Journal.write
    written = []

    def write(self, records):
        real(self, records)
        written.extend(records)
        if len(written) >= points:
            raise Interrupted

    monkeypatch.setattr(Journal, "write", write)


@pytest.mark.parametrize("loss", ["nothing", "all", "middle", "damaged", "truncated"])
def test_lost_eigenvectors_are_computed_again_to_the_same_bits(tmp_path, monkeypatch, loss):
    recipe = Recipe(grid=9, curvature=True)
    whole = recipe.made()
    with monkeypatch.context() as patched:
        stop_after(patched, 9 + 6)
        with pytest.raises(Interrupted):
            recipe.made(tmp_path)
    kept = sorted((tmp_path / "vectors").glob("*.safetensors"))
    assert kept
    for path in kept if loss != "middle" else kept[:1]:
        if loss in ("all", "middle"):
            path.unlink()
        elif loss == "damaged":
            path.write_bytes(b"\xff" * 300)
        elif loss == "truncated":
            path.write_bytes(path.read_bytes()[:-8])
    assert same(recipe.made(tmp_path), whole)
    assert not list((tmp_path / "vectors").iterdir()), "none is kept of what is done"


def test_a_kill_between_two_points_loses_no_eigenvectors(tmp_path, monkeypatch):
    """The vectors that a point started from may only go once it is in the journal: else a whole row would be done again."""
    recipe = Recipe(grid=9, curvature=True)
    whole = recipe.made()
    solved = []
    real = run_module.Run.keep_vectors
    monkeypatch.setattr(run_module.Run, "keep_vectors", lambda self, k, v: (solved.append(k), real(self, k, v)))
    for stop in (2, 5, 8):
        with monkeypatch.context() as patched:
            real_write = Journal.write
            written = []

            def write(self, records, write=real_write, written=written, stop=stop):
                mapped = [key for key in records if key.startswith("curvature")]
                if len(written) == stop and mapped:
                    raise Interrupted  # measured, and not yet written
                written.extend(mapped)
                write(self, records)

            patched.setattr(Journal, "write", write)
            with pytest.raises(Interrupted):
                recipe.made(tmp_path / str(stop))
        solved.clear()
        assert same(recipe.made(tmp_path / str(stop)), whole)
        assert len(solved) <= 9 - stop, "only the points that were missing"
        assert len(set(solved)) == len(solved)


class Fragile(nn.Module):
    """A network that cannot be computed where a weight is large: it raises, as a solver inside a layer may."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0]))
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if float(self.w.detach()) > float(os.environ.get("MEMORY", "1.5")):
            raise self.error(f"no solution at {float(self.w.detach()):g}\nand a second line")
        return self.w * x


def fragile(error: type[Exception] = RuntimeError) -> Objective:
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
    return Objective(Fragile(error), nn.MSELoss(), (x, torch.zeros_like(x)), dtype="float64")


def along(objective: Objective, run: Path | None, **options) -> Slice:
    direction = Direction("up", torch.ones_like(objective.theta), "none")
    return line(objective, direction, **({"span": (-1.0, 1.0), "grid": 9, "run": run} | options))


@pytest.mark.parametrize("error", [RuntimeError, ValueError, ZeroDivisionError, IndexError, MemoryError])
def test_points_that_fail_are_said_and_the_others_are_done(tmp_path, error):
    found = along(fragile(error), tmp_path)
    status = found.status["loss"]
    assert status.tolist() == [DONE] * 7 + [FAILED] * 2
    assert found.count(FAILED) == 2
    assert np.isnan(found.values["loss"][7:]).all()
    w = 1 + np.linspace(-1, 1, 9)[:7]
    assert found.values["loss"][:7] == pytest.approx(w**2 * float((torch.linspace(-1, 1, 8, dtype=torch.float64) ** 2).mean()))
    text = "".join(p.read_text() for p in (tmp_path / "journal").glob("*.jsonl"))
    assert f"{error.__name__}: no solution at 1.75" in text
    assert "second line" not in text


def test_points_that_failed_are_tried_again_and_no_others(tmp_path, monkeypatch):
    failed = along(fragile(), tmp_path)
    before = len((tmp_path / "journal").glob("*.jsonl").__next__().read_text().splitlines())
    again = along(fragile(), tmp_path)
    assert same(failed, again)
    monkeypatch.setenv("MEMORY", "10")  # as when there is more of it
    mended = along(fragile(), tmp_path)
    assert mended.complete
    assert mended.status["loss"].tolist() == [DONE] * 9
    assert same(mended, along(fragile(), None))
    segments = [s.read_text() for s in sorted((tmp_path / "journal").glob("*.jsonl"))]
    assert [s.count('"record"') for s in segments] == [9, 2, 2]
    assert before == len(segments[0].splitlines())


def test_no_point_at_all_is_an_error_with_its_reason(tmp_path):
    with pytest.raises(NumericalError, match="found that all failed: RuntimeError: no solution at 2"):
        along(fragile(), tmp_path, span=(1.0, 2.0))


def test_values_that_are_not_finite_are_kept_as_they_are(tmp_path):
    x = torch.ones(4, 1)
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    objective = Objective(model, nn.MSELoss(), (x, torch.zeros(4, 1)))
    direction = Direction("up", torch.ones_like(objective.theta), "none")
    found = [line(objective, direction, span=(-1e30, 1e30), grid=5, run=tmp_path) for _ in range(2)]
    for piece in found:
        assert piece.values["loss"].tolist()[0] == np.inf
        assert piece.status["loss"].tolist() == [NOT_FINITE, NOT_FINITE, DONE, NOT_FINITE, NOT_FINITE]
    assert found[0].to_json() == found[1].to_json()
    assert "Infinity" not in json.dumps(found[0].to_json(), allow_nan=False)
    segments = list((tmp_path / "journal").glob("*.jsonl"))
    assert len(segments) == 1, "and not computed a second time"


def test_what_is_unfinished_can_be_looked_at(monkeypatch):
    monkeypatch.setattr("landscape.surfaces.slice_values._SHOW", 0.0)
    monkeypatch.setattr("landscape.surfaces.slice_values._rarely", lambda show: show)
    objective = Objective(network(), nn.CrossEntropyLoss(), data(), dtype="float64")
    pieces: list[Slice] = []
    whole = plane(objective, grid=(9, 9), curvature=True, seen=pieces.append)
    assert len(pieces) > 3
    assert pieces[0].count(MISSING) > 0
    assert not pieces[0].complete
    for piece in pieces:
        assert piece.check is None
        json.dumps(piece.to_json(), allow_nan=False)
        for name, state in piece.status.items():
            assert np.array_equal(piece.values[name][state == DONE], whole.values[name][state == DONE]), (
                "what is there is final"
            )
            assert np.isnan(piece.values[name][state == MISSING]).all()
    known = [int((p.status["loss"] == DONE).sum()) for p in pieces]
    assert known == sorted(known)
    first = next(p for p in pieces if (p.status["loss"] == DONE).sum() >= 9)
    assert (first.status["loss"] == DONE)[0, 0], "from coarse to fine: the corners are among the first"


def test_what_cannot_be_kept_fails_no_point(tmp_path):
    """A point is not to blame for the disk: the run ends, and goes on once the disk is mended."""
    recipe = Recipe(grid=5, curvature=True)
    (tmp_path / "vectors").write_text("in the way")
    with pytest.raises(UsageError, match=r"expected to write .*vectors', found: File exists"):
        recipe.made(tmp_path)
    assert "failed" not in "".join(p.read_text() for p in (tmp_path / "journal").glob("*.jsonl"))
    (tmp_path / "vectors").unlink()
    assert same(recipe.made(tmp_path), recipe.made())
