"""The command line under torchrun: one document, each file once, and a clean end whatever happens to one of the processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLOW = pytest.mark.slow
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
FEW = ("--samples", "61", "--dtype", "float64", "--json")
SPECTRUM = ("spectrum", "0.safetensors", *FEW, "-k", "2", "--probes", "2", "--steps", "8")
GRID = ("surface", "0.safetensors", "--samples", "40", "--dim", "2", "--grid", "61")
LONG = ("spectrum", "0.safetensors", "--samples", "900", "--probes", "500", "--steps", "400")


def started(processes: int, *arguments: object, cwd: Path, **more: str) -> subprocess.Popen[str]:
    """The command, alone or under torchrun."""
    alone = [sys.executable, "-m", "landscape"]
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "landscape"]
    return subprocess.Popen(
        [*(alone if processes == 1 else run), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=ENVIRONMENT | more,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """What it printed; torchrun itself ends with 1 whatever its processes end with, and tells their exit codes."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
    own, _, report = err.partition("Traceback")
    assert "landscape/" not in report, "no traceback but torchrun's own"
    return out, f"{own}\n{report}"


def errors(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("error:")]


def children(process: subprocess.Popen[str], processes: int = 2) -> dict[int, int]:
    """Rank -> process id, once all are there."""
    until = time.monotonic() + 100
    found: dict[int, int] = {}
    while len(found) < processes and time.monotonic() < until:
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True).stdout
        for pid in map(int, listed.split()):
            environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
            found |= {int(e.removeprefix("RANK=")): pid for e in environment if e.startswith("RANK=")}
        time.sleep(0.05)
    return found


def until_it_says(process: subprocess.Popen[str], text: str) -> None:
    """Wait for a line; the rest is left to be read."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.communicate())


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("torchrun")
    ended(started(1, "train", "digits-mlp", "--epochs", 2, "-M", "widths=[8]", "--out", "0.safetensors", cwd=folder))
    return folder


def same(a: object, b: object, where: str = "") -> list[str]:
    """Where two documents differ by more than rounding; what is rounding, time or memory is left out."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = (a.keys() | b.keys()) - {"processes", "seconds", "residuals", "stderr", "memory", "slope_error"}
        return [text for k in sorted(keys) for text in same(a.get(k), b.get(k), f"{where}/{k}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [text for i, (x, y) in enumerate(zip(a, b, strict=True)) for text in same(x, y, f"{where}/{i}")]
    if isinstance(a, float) and isinstance(b, float):
        return [] if abs(a - b) <= 1e-10 * max(1.0, abs(a)) else [f"{where}: {a} and {b}"]
    return [] if a == b else [f"{where}: {a} and {b}"]


def test_a_spectrum_of_two_processes_is_that_of_one(place):
    one = json.loads(ended(started(1, *SPECTRUM, "--out", "one", cwd=place))[0])
    out, err = ended(started(2, *SPECTRUM, "--out", "two", cwd=place))
    two = json.loads(out)
    assert same(one, two) == []
    assert two["provenance"]["processes"] == 2
    assert "processes" not in one["provenance"]
    assert {p.name for p in (place / "one").iterdir()} == {p.name for p in (place / "two").iterdir()}
    written = [line for line in err.splitlines() if line.startswith("wrote")]
    assert len(written) == len(set(written)) == len(list((place / "two").iterdir()))
    assert err.count("train loss") == 1
    assert json.loads((place / "two" / "spectrum.json").read_text()) == two


@SLOW
def test_an_error_of_all_is_said_once(place):
    out, err = ended(started(2, "spectrum", "nothing.pt", cwd=place), 1)
    assert out == ""
    assert errors(err) == ["error: expected a checkpoint file, found nothing at nothing.pt; check the path"]
    assert "exitcode  : 2" in err


def test_a_process_that_is_killed_stops_the_others(place):
    run = started(2, *LONG, "--out", "killed", cwd=place)
    pids = children(run)
    until_it_says(run, "train loss")
    time.sleep(1)
    os.kill(pids[1], signal.SIGKILL)
    _, err = ended(run, 1)  # long before the half hour for which the others would wait for it
    assert len(errors(err)) == 1
    assert errors(err)[0].startswith("error: expected all 2 processes, found that one stopped")
    assert errors(err)[0].endswith("run the same command again: a surface resumes where it stopped")
    assert "exitcode  : 6" in err
    assert not (place / "killed").exists(), "a run that fails owns nothing"


@SLOW
def test_a_surface_goes_on_after_a_kill_to_the_same_bits(place):
    ended(started(1, *GRID, "--out", "whole", cwd=place))
    run = started(2, *GRID, "--out", "resumed", cwd=place)
    pids, journal = children(run), place / "resumed" / "points" / "journal"
    until = time.monotonic() + 100
    while sum(p.stat().st_size for p in journal.glob("*.jsonl")) < 20_000:
        assert time.monotonic() < until
        time.sleep(0.005)
    os.kill(pids[0], signal.SIGKILL)
    _, err = ended(run, 1)
    assert len(errors(err)) == 1
    _, err = ended(started(2, *GRID, "--out", "resumed", cwd=place))
    assert "continuing " in err
    for name in ("surface.csv", "surface-contour.png", "run.json"):
        assert (place / "resumed" / name).read_bytes() == (place / "whole" / name).read_bytes(), name
    assert len({p.name.split("-")[2] for p in journal.glob("*.jsonl")}) >= 3, "both took part, before and after"


@SLOW
def test_a_process_that_hangs_stops_the_others_in_time(place):
    run = started(2, *LONG, "--out", "hung", cwd=place, LANDSCAPE_TIMEOUT="15")
    pids = children(run)
    until_it_says(run, "train loss")
    time.sleep(1)
    os.kill(pids[1], signal.SIGSTOP)
    _, err = ended(run, 1)  # torchrun gives the one that hangs half a minute
    assert len(errors(err)) == 1
    assert "does not answer: Timed out waiting 15000ms" in errors(err)[0]


@SLOW
def test_torchrun_that_is_told_to_stop_stops_all(place):
    run = started(2, *LONG, "--out", "told", cwd=place)
    until_it_says(run, "train loss")
    time.sleep(1)
    run.send_signal(signal.SIGTERM)
    _, err = ended(run, 1)
    assert len(errors(err)) == 1
    assert "found that one stopped, or that torchrun was stopped" in errors(err)[0]


@SLOW
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train", "digits-mlp"), "error: expected a command that processes can share"),
        (("spectrum", "0.safetensors", "--bogus"), "error: No such option: --bogus"),
        (("spectrum", "0.safetensors", "--out", "0.safetensors"), "error: expected"),
    ],
)
def test_every_mistake_is_said_once(place, arguments, expected):
    _, err = ended(started(2, *arguments, cwd=place), 1)
    assert [text.startswith(expected) for text in errors(err)] == [True]
    assert "exitcode  : 2" in err


@SLOW
@pytest.mark.parametrize(
    ("command", "document"),
    [
        (("sharpness", "0.safetensors", *FEW, "--measures", "lambda_max,trace,keskar,sam"), "sharpness.json"),
        (("reparam", "0.safetensors", *FEW, "--measures", "trace,lambda_max"), "certificate.json"),
        (("compare", "0.safetensors", "1.safetensors", *FEW, "--measures", "trace"), "comparison.json"),
        (("surface", "0.safetensors", *FEW, "--dim", "1", "--grid", "9", "--directions", "hessian"), "surface.json"),
        (("surface", "0.safetensors", *FEW, "--path", "bezier:1.safetensors", "--steps", "20", "--grid", "9"), "surface.json"),
        (("surface", "0.safetensors", *FEW, "--dim", "1", "--budget", "3s"), "surface.json"),
    ],
)
def test_three_processes_find_what_one_finds(place, tmp_path, command, document):
    if not (place / "1.safetensors").exists():
        ended(
            started(
                1, "train", "digits-mlp", "--epochs", 2, "--seed", 1, "-M", "widths=[8]", "--out", "1.safetensors", cwd=place
            )
        )
    one = json.loads(ended(started(1, *command, "--out", tmp_path / "run", cwd=place))[0])
    (tmp_path / "run").rename(tmp_path / "one")
    three = json.loads(ended(started(3, *command, "--out", tmp_path / "run", cwd=place))[0])
    assert json.loads((tmp_path / "run" / document).read_text()) == three
    assert {p.name for p in (tmp_path / "one").iterdir()} == {p.name for p in (tmp_path / "run").iterdir()}
    if "--budget" not in command:  # what fits depends on the clock
        # A maximiser that stops where its value stalls may take more steps to it, by another way.
        free = ("gradients", "forwards", "/sam/n:", "/sam/data_stderr:")
        assert [text for text in same(one, three) if not any(word in text for word in free)] == []


LEAVES = """import os
from pathlib import Path
from landscape.machine.torchrun import joined

def of_the_group():
    return [name for task in Path("/proc/self/task").iterdir() if "gloo" in (name := (task / "comm").read_text().strip())]

with joined() as members:
    import torch._dynamo  # and with it every function of torch.distributed whose default is the group
    members.everyone(None)
    within = of_the_group()
Path(f"threads{members.rank}").write_text(f"{len(within)} {of_the_group()}")
"""


def test_no_thread_of_the_group_outlives_it(tmp_path):
    """One that does aborts the process now and then, at exit, when the last tensor of a collective is let go."""
    (tmp_path / "leaves.py").write_text(LEAVES)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "leaves.py"]
    done = subprocess.run(run, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        within, after = (tmp_path / f"threads{rank}").read_text().split(" ", 1)
        assert int(within) > 0
        assert after == "[]"
