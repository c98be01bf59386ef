"""`landscape surface` as it meets the world: killed, interrupted, started twice, on a full disk, with other inputs."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import landscape

from landscape.checkpoints import save

SLOW = pytest.mark.slow
FEW = ("--samples", "40")
GRID = ("--grid", "31", *FEW)  # a second of work: time to be killed in


def started(*arguments: object, cwd: Path, **more) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "landscape", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, **more,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == (code != 0)
    return out, err.replace("\n", " ")  # what a terminal wraps is one line


def surface(cwd: Path, out: str, *arguments: object, code: int = 0, **more) -> tuple[str, str]:
    """A surface to its end: in this process, unless one of its own is asked for by what makes it."""
    command = ("surface", "0.safetensors", *arguments, "--out", out)
    if more:
        return ended(started(*command, cwd=cwd, **more), code)
    done = landscape(*command, cwd=cwd, code=code)
    return done.out, done.err.replace("\n", " ")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the user's: what is exported, and the record of the run."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")}


def in_the_middle(process: subprocess.Popen[str], folder: Path, size: int = 80_000) -> None:
    """Wait until the journal has so many bytes: more than a hundred points are there, and some hundred are not."""
    until = time.monotonic() + 200
    while sum(p.stat().st_size for p in (folder / "points" / "journal").glob("*.jsonl")) < size:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def records(folder: Path) -> int:
    return sum(p.read_bytes().count(b'"record"') for p in (folder / "points" / "journal").glob("*.jsonl"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A trained network, and in `whole` its surface as nobody disturbed it."""
    folder = tmp_path_factory.mktemp("runs")
    landscape("train", "digits-mlp", "--epochs", 2, "--seed", 0, "-M", "widths=[8]", "--out", "0.safetensors", cwd=folder)
    surface(folder, "whole", *GRID)
    assert {p.rpartition(".")[2] for p in contents(folder / "whole")} == {"json", "nc", "vtr", "csv", "png", "pdf"}
    return folder


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(place):
    process = started("surface", "0.safetensors", *GRID, "--out", "killed", cwd=place)
    in_the_middle(process, place / "killed")
    process.kill()
    process.communicate()
    there = records(place / "killed")
    assert 50 < there < 31 * 31
    _, err = surface(place, "killed", *GRID)
    assert "continuing " in err
    assert records(place / "killed") == 31 * 31, "no point was done twice"
    assert contents(place / "killed") == contents(place / "whole")


def test_two_at_once_share_the_work(place):
    processes = [started("surface", "0.safetensors", *GRID, "--out", "shared", cwd=place) for _ in range(2)]
    for process in processes:
        ended(process)
    assert contents(place / "shared") == contents(place / "whole")
    assert 31 * 31 <= records(place / "shared") <= 1.3 * 31 * 31


@pytest.mark.parametrize(
    ("signals", "name"),
    [([signal.SIGINT, signal.SIGINT], "twice"), pytest.param([signal.SIGTERM], "told", marks=SLOW)],
)
def test_told_to_stop_it_says_how_to_go_on_and_does(place, signals, name):
    longer = ("--grid", "49", *FEW)  # so that a machine that is slow to send the signals is still in time
    process = started("surface", "0.safetensors", *longer, "--out", name, cwd=place)
    in_the_middle(process, place / name)
    for s in signals:
        process.send_signal(s)
    _, err = ended(process, 130)
    assert "interrupted" in err
    assert f"finished points are saved in {name}: the same command continues" in err or len(signals) == 2
    surface(place, name, *longer)
    surface(place, f"{name}-whole", *longer)
    assert contents(place / name) == contents(place / f"{name}-whole")


def test_a_full_disk_is_said_and_no_end(place):
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    _, err = surface(place, "full", *GRID, code=2, preexec_fn=small)
    assert "disk that is full" in err or "File too large" in err
    assert "free some space and run the same command again" in err
    assert not list((place / "full").rglob(".*")), "no half of a file stays"
    surface(place, "full", *GRID)
    assert contents(place / "full") == contents(place / "whole")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--grid", 33, *FEW), "grid (31 there, 33 asked)"),
        pytest.param((*GRID, "--seed", 1), "seed (0 there, 1 asked)", marks=SLOW),
        pytest.param((*GRID, "--dtype", "float64"), "dtype (float32 there, float64 asked)", marks=SLOW),
        pytest.param((*GRID, "--span", -2, 2), "span (", marks=SLOW),
        pytest.param(("--grid", 31, "--samples", 50), "samples (40 there, 50 asked)", marks=SLOW),
        pytest.param((*GRID, "--dim", 1), "dim (the default there, 1 asked)", marks=SLOW),
        pytest.param((*GRID, "--directions", "hessian"), "directions (random there, hessian asked)", marks=SLOW),
        pytest.param((*GRID, "--norm", "layer"), "norm (filter there, layer asked)", marks=SLOW),
        pytest.param((*GRID, "--curvature"), "curvature (no there, yes asked)", marks=SLOW),
        pytest.param((*GRID, "--no-test"), "test_samples (40 there, none asked)", marks=SLOW),
        pytest.param((*GRID, "--split", "test"), "split (train there, test asked)", marks=SLOW),
        pytest.param((*GRID, "--budget", "1h"), "budget (none there, 1h asked)", marks=SLOW),
    ],
)
def test_another_option_is_refused_by_its_name(place, change, named):
    before = contents(place / "whole")
    _, err = surface(place, "whole", *change, code=2)
    assert "found another run there" in err
    assert named in err
    assert contents(place / "whole") == before


@SLOW
def test_another_checkpoint_is_refused(place):
    landscape("train", "digits-mlp", "--epochs", 1, "--seed", 1, "-M", "widths=[8]", "--out", "1.safetensors", cwd=place)
    before = contents(place / "whole")
    done = landscape("surface", "1.safetensors", *GRID, "--out", "whole", cwd=place, code=2)
    assert "sha256 (" in done.err
    assert contents(place / "whole") == before


def test_a_place_that_is_not_ours_is_left_alone(place):
    (place / "theirs").mkdir()
    (place / "theirs" / "thesis.tex").write_text("years of work")
    _, err = surface(place, "theirs", "--grid", 3, *FEW, code=2)
    assert "found theirs with thesis.tex in it" in err
    assert contents(place / "theirs") == {"thesis.tex": b"years of work"}


@SLOW
def test_a_place_that_cannot_be_written_is_told(place):
    (place / "file").write_text("mine")
    for out in ("file", "file/below"):
        _, err = surface(place, out, "--grid", 3, *FEW, code=2)
        assert "expected" in err
    assert (place / "file").read_text() == "mine"
    (place / "closed").mkdir(mode=0o500)
    if os.geteuid() != 0:  # root may write anywhere
        surface(place, "closed", "--grid", 3, *FEW, code=2)
        assert not list((place / "closed").iterdir())


def test_what_a_killed_command_left_half_written_is_in_nobodys_way(place):
    """It dies before its record has its name: the same command begins anew in that folder."""
    (place / "early").mkdir()
    half = place / "early" / ".run.json.4194000-0123abcd"
    half.write_text('{"comm')
    os.utime(half, (0, 0))
    surface(place, "early", "--dim", 1, "--grid", 3, "--no-test", *FEW)
    assert not half.exists()
    assert (place / "early" / "surface.json").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--grid", 0), "expected a grid of at least 2 points on each axis, found 0"),
        pytest.param(("--grid", 1), "expected a grid of at least 2 points on each axis, found 1", marks=SLOW),
        (("--grid", 10**9), "expected at most 1,000,000 points, found 1,000,000,000,000,000,000"),
        pytest.param(("--grid", 10**9, "--dim", 1), "expected at most 1,000,000 points, found 1,000,000,000", marks=SLOW),
        pytest.param(("--span", "nan", 1), "expected a --span within ±1e+30, found nan to 1", marks=SLOW),
        pytest.param(("--span", -1, "inf"), "expected a --span within ±1e+30, found -1 to inf", marks=SLOW),
        pytest.param(("--span", 1, -1), "expected a span of two increasing finite numbers, found 1 to -1", marks=SLOW),
        pytest.param(("--span", 0, 0), "expected a span of two increasing finite numbers, found 0 to 0", marks=SLOW),
        pytest.param(("--budget", "soon"), "expected a time such as 90s, 10m or 2h, found --budget soon", marks=SLOW),
        pytest.param(("--budget", "0"), "expected a time such as 90s, 10m or 2h, found --budget 0", marks=SLOW),
    ],
)
def test_no_grid_at_all_is_refused_before_any_work(place, arguments, text):
    _, err = surface(place, "none", *arguments, code=2)
    assert text in err
    assert not (place / "none").exists()


def test_what_a_budget_chose_is_remembered(place):
    """The machine may be slower or faster the next time: the surface is the one that was begun."""
    arguments = ("--dim", 1, "--budget", "2m", "--no-test", *FEW)
    out, _ = surface(place, "budget", *arguments)
    plan = place / "budget" / "points" / "plan.json"
    chosen = json.loads(plan.read_text())
    assert chosen == {"grid": 101, "samples": 40}
    assert "budget: 101 points, all 40 samples" in out
    assert len(json.loads((place / "budget" / "surface.json").read_text())["coordinates"][0]) == 101


@SLOW
def test_a_plan_is_followed_whatever_the_machine_does(place):
    arguments = ("--dim", 1, "--budget", "2m", "--no-test", *FEW)
    process = started("surface", "0.safetensors", *arguments, "--out", "planned", cwd=place)
    until = time.monotonic() + 100
    while not (place / "planned" / "points" / "plan.json").exists():
        assert time.monotonic() < until
        time.sleep(0.002)
    process.kill()
    process.communicate()
    points = place / "planned" / "points"
    for path in points.rglob("*"):
        if path.is_file() and path.name != "plan.json":
            path.unlink()
    (points / "plan.json").write_text('{"grid": 13, "samples": 20}')
    out, _ = surface(place, "planned", *arguments)
    assert "budget: 13 points, the first 20 samples" in out
    document = json.loads((place / "planned" / "surface.json").read_text())
    assert len(document["coordinates"][0]) == 13
    (points / "plan.json").write_text('{"grid": "many"}')
    out, err = surface(place, "planned", *arguments, code=4)
    assert "expected grid and samples in" in err


@SLOW
def test_curvature_and_curves_killed_again_and_again(place):
    """Every kill somewhere else, and the exports are those of a run that nobody disturbed."""
    landscape("train", "digits-mlp", "--epochs", 2, "--seed", 2, "-M", "widths=[8]", "--out", "2.safetensors", cwd=place)
    for name, arguments in (
        ("curved", ("--grid", 9, "--curvature", "--directions", "hessian", *FEW)),
        ("curve", ("--path", "bezier:2.safetensors", "--steps", 20, "--grid", 301, *FEW)),
    ):
        surface(place, f"{name}-whole", *arguments)
        for i in range(6):
            process = started("surface", "0.safetensors", *arguments, "--out", name, cwd=place)
            time.sleep(2.0 + 0.7 * i)
            process.kill()
            process.communicate()
        surface(place, name, *arguments)
        assert contents(place / name) == contents(place / f"{name}-whole")


TASK = """
import torch
from landscape import Task
from torch.nn import functional as F

def loss(output, target):
    return 1.0 * F.mse_loss(output, target)

def task():
    torch.manual_seed(0)
    x = torch.randn(20, 3)
    return Task(torch.nn.Linear(3, 2), loss, (x, x[:, :2]))
"""


def test_an_edited_task_is_refused(tmp_path):
    """The loss of the task file is another one: neither the directory's record nor the points may be gone on with."""
    save(tmp_path / "0.safetensors", {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, recipe={})
    (tmp_path / "task.py").write_text(TASK)
    command = ("--task", "task.py", "--dim", 1, "--grid", 3)
    surface(tmp_path, "out", *command)
    before = contents(tmp_path / "out")
    assert "task file" in json.loads(before["run.json"])
    _, err = surface(tmp_path, "out", *command)
    assert "continuing " in err
    assert contents(tmp_path / "out") == before
    (tmp_path / "task.py").write_text(TASK.replace("1.0 *", "5.0 *"))
    _, err = surface(tmp_path, "out", *command, code=2)
    assert "found another run there: it differs in task file (" in err
    record = json.loads(before["run.json"])
    record["task file"] = hashlib.sha256((tmp_path / "task.py").read_bytes()).hexdigest()
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    _, err = surface(tmp_path, "out", *command, code=2)
    assert "expected the inputs of the surface in out/points, found other inputs: loss (" in err


def test_a_curve_says_how_it_was_trained_and_what_it_goes_round(place):
    landscape("train", "digits-mlp", "--epochs", 2, "--seed", 3, "-M", "widths=[8]", "--out", "3.safetensors", cwd=place)
    arguments = ("--path", "polygon:3.safetensors", "--steps", 5, "--bends", 2, "--grid", 5, *FEW)
    out, err = surface(place, "round", *arguments)
    assert "curve: polygon of length" in out
    assert "loss on the straight line: " in out
    assert "before them training the curve about" in err
    document = json.loads((place / "round" / "surface.json").read_text())
    made = document["provenance"]
    assert (made["curve"]["steps"], made["curve"]["bends"], made["curve"]["seed"]) == (5, 2, 0)
    assert made["straight_line"]["loss"]["ends"] == pytest.approx(document["barriers"]["loss"]["ends"])
    assert {"sha256", "task", "split", "torch", "landscape", "files"} <= set(made)
    assert document["check"] is not None
    assert {"surface-line.png", "surface.nc", "surface.vtr", "surface.csv", "curve.safetensors"} <= set(
        contents(place / "round")
    )


def test_a_plane_of_three_minima_names_them_and_has_a_computed_point_at_each(place):
    for seed in (4, 5):
        landscape("train", "digits-mlp", "--epochs", 2, "--seed", seed, "-M", "widths=[8]", "--out", f"{seed}.pt", cwd=place)
    surface(place, "three", "--directions", "to:4.pt,to:5.pt", "--grid", 7, "--no-test", *FEW)
    found = json.loads((place / "three" / "surface.json").read_text())
    assert found["title"] == "Loss on a plane through 0, 4 and 5"
    assert found["provenance"]["through"] == ["0.safetensors", "4.pt", "5.pt"]
    assert [len(c) for c in found["coordinates"]] == [7, 7]
    first, second = (c.index(1.0) for c in found["coordinates"])
    middle = found["coordinates"][0].index(0.0)
    at = found["values"]["loss"]
    (track,) = found["tracks"]
    np.testing.assert_allclose(track["losses"], [at[first][middle], at[middle][second]], rtol=1e-5)
    assert min(found["coordinates"][0]) <= -0.25
    assert max(found["coordinates"][1]) >= 1.25


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--path", "line:0.safetensors", "--dim", 2), "expected options that --path can use, found --dim 2"),
        (("--path", "line:0.safetensors", "--orthogonal"), "found --orthogonal"),
        (("--path", "line:0.safetensors", "--steps", 5), "found --steps"),
        (("--path", "bezier:0.safetensors", "--span", -1, 2), "expected a --span inside 0 1"),
        (("--dim", 1, "--persistence", 0.1), "found --persistence"),
        (("--directions", "hessian", "--norm", "layer"), "expected options that these axes can use, found --norm"),
        (("--directions", "to:0.safetensors", "--dim", 1), "found the same ones (to 0.safetensors)"),
        (("--budget", "soon"), "expected a time such as 90s, 10m or 2h, found --budget soon"),
    ],
)
def test_options_that_would_do_nothing_are_refused(place, arguments, words):
    _, err = surface(place, "refused", *arguments, *FEW, code=2)
    assert words in err
