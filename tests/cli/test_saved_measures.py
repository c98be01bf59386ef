"""Interrupted and killed `sharpness`: what was done is kept, and the finished document is an undisturbed run's."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from in_process import run
from safetensors.torch import save_file
from torch import nn

from landscape.cli.output_directory import OutputDirectory
from landscape.tasks import Recipe, train

NAMES = "lambda_max,lambda_min,adaptive_lambda_max,trace,frobenius,keskar,sam,logit_norm"
FEW = ("--samples", "48", "--measures", NAMES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Two checkpoints of one recipe: the second starts from the eigenvectors of the first."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / f"{seed}.safetensors" for seed in (0, 1)]
    for seed, path in enumerate(paths):
        train(Recipe(epochs=2, seed=seed, network_options={"widths": [6]}), out=path)
    return paths


def timeless(document):
    """A document without what the clock and the free memory decide."""
    if isinstance(document, dict):
        return {k: timeless(v) for k, v in document.items() if k not in ("seconds", "memory")}
    return [timeless(v) for v in document] if isinstance(document, list) else document


# Started with the file of a pause: each measure that was kept waits, so that kills land everywhere.
SLOW = """
import sys, time
import landscape.measures.running.saved_measures as kept
from landscape.cli import main
before = kept.Kept.keep
def keep(self, *a, **k):
    time.sleep({pause} / 2)
    before(self, *a, **k)
    time.sleep({pause} / 2)
kept.Kept.keep = keep
sys.argv = ["landscape", *sys.argv[1:]]
main()
"""


def started(arguments, pause=0.15) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW.format(pause=pause), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def records(out: Path) -> set[str]:
    return {str(p.relative_to(out)) for p in out.rglob("*.record")}


@pytest.mark.slow  # starts a process, and imports PyTorch, for every kill
def test_kills_lose_the_measure_under_way_and_change_no_bit(runs, tmp_path, capfd):
    arguments = ["sharpness", *runs, *FEW, "--json", "--out"]
    undisturbed = run(capfd, *arguments, tmp_path / "whole")
    assert undisturbed.code == 0
    expected = timeless(json.loads(undisturbed.out))
    out, random_ = tmp_path / "killed", random.Random(0)
    kills, last = 0, set()
    for _ in range(40):
        with started([*arguments, out]) as process:
            # Kill it some time after the first new measure is there, or in the middle of a start.
            target = random_.randrange(3)
            give_up = time.monotonic() + 120
            while process.poll() is None and len(records(out)) < len(last) + target and time.monotonic() < give_up:
                time.sleep(0.005)
            time.sleep(random_.uniform(0, 0.2))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            printed, told = process.communicate()
        there = records(out)
        assert there >= last, "nothing that was kept is lost"
        last = there
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, told
    assert process.returncode == 0
    assert kills >= 5
    assert timeless(json.loads(printed)) == expected
    assert timeless(json.loads((out / "sharpness.json").read_text())) == expected
    assert not list(out.rglob("directions-*")), "eigenvectors are dropped once they are of no more use"


def test_ctrl_c_prints_what_was_done_and_the_same_command_goes_on(runs, tmp_path, capfd):
    out = tmp_path / "o"
    with started(["sharpness", *runs, *FEW, "--json", "--out", out], pause=0.4) as process:
        give_up = time.monotonic() + 120
        while len(records(out)) < 3 and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        printed, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "error: interrupted" in told
    assert "the same command continues" in told
    assert "lambda_max " in told, "the table of what was done"
    assert "Traceback" not in told
    document = json.loads(printed)
    assert document["interrupted"] is True
    done = list(document["results"][0]["measures"])
    assert done == NAMES.split(",")[: len(done)]
    assert len(done) >= 3
    again = run(capfd, "sharpness", *runs, *FEW, "--json", "--out", out)
    assert again.code == 0
    assert "not computed again: " in again.err
    assert "interrupted" not in json.loads(again.out)
    whole = run(capfd, "sharpness", *runs, *FEW, "--json", "--out", tmp_path / "whole")
    assert timeless(json.loads(again.out)) == timeless(json.loads(whole.out))
    seconds = [d["results"][0]["measures"]["lambda_max"]["seconds"] for d in (document, json.loads(again.out))]
    assert seconds[0] == seconds[1], "it was not computed again"


def test_ctrl_c_without_out_prints_the_table(runs, capfd, monkeypatch):
    """Nothing is kept on a disk unasked, and nothing that was found is withheld."""
    from landscape.measures.running import measuring

    found = measuring._measured

    def measured(m, *rest):
        if m.name == "trace":
            os.kill(os.getpid(), signal.SIGINT)
        return found(m, *rest)

    monkeypatch.setattr(measuring, "_measured", measured)
    done = run(capfd, "sharpness", runs[0], *FEW)
    assert done.code == 130
    assert "adaptive_lambda_max" in done.out
    assert "trace " not in done.out
    assert "interrupted after 3 of 8 measures, in trace, of which nothing is kept" in done.err
    assert "nothing is kept on the disk without --out FOLDER" in done.err


@pytest.fixture
def interrupted_in(monkeypatch):
    """Ctrl-C as this measure begins; undone by "nothing"."""
    from landscape.measures.running import measuring

    found, at = measuring._measured, ["nothing"]

    def measured(m, *rest):
        if m.name == at[0]:
            os.kill(os.getpid(), signal.SIGINT)
        return found(m, *rest)

    monkeypatch.setattr(measuring, "_measured", measured)
    return lambda name: at.__setitem__(0, name)


def test_what_was_chosen_at_the_start_is_kept_before_the_first_measure(runs, tmp_path, capfd, interrupted_in, monkeypatch):
    """And binds nobody: the same folder takes fewer samples, as the line about a long forecast advises."""
    from landscape.objective import preparation

    trials = []
    chosen = preparation.chosen
    monkeypatch.setattr(preparation, "chosen", lambda *a: trials.append(1) or chosen(*a))
    checks, checked = [], preparation.check_engine
    monkeypatch.setattr(preparation, "check_engine", lambda *a: checks.append(1) or checked(*a))
    out = tmp_path / "o"
    command = ["sharpness", runs[0], "--measures", NAMES, "--out", out]
    interrupted_in("lambda_max")
    done = run(capfd, *command, "--samples", "48")
    assert done.code == 130
    assert "interrupted after 0 of 8 measures, in lambda_max, of which nothing is kept" in done.err
    again = f"landscape sharpness {runs[0]} --measures {NAMES} --out {out} --samples 48"
    assert f"kept in {out}: what was checked and chosen at the start; the same command continues: {again}\n" in done.err
    assert [p.name for p in out.iterdir()] == [next(out.glob("start-*.json")).name]
    assert len(trials) == 1
    interrupted_in("trace")
    done = run(capfd, *command, "--samples", "48")
    assert len(trials) == len(checks) == 1, "the choice was kept, and what was checked"
    assert f"kept in {out}: lambda_max, lambda_min, adaptive_lambda_max; the same command continues" in done.err
    assert not list(out.glob("start-*")), "it is among the measures now"
    other = tmp_path / "fewer"
    interrupted_in("lambda_max")
    command[-1] = other
    assert run(capfd, *command, "--samples", "48").code == 130
    interrupted_in("nothing")
    assert run(capfd, *command, "--samples", "32").code == 0
    assert not list(other.glob("start-*")), "that of the run that came to nothing is removed"


def test_a_run_that_fails_in_its_first_measure_leaves_no_folder(runs, tmp_path, capfd, monkeypatch):
    from landscape.errors import NumericalError
    from landscape.measures.running import measuring

    seen = []

    def failing(*_):
        seen.append([path.name[:6] for path in out.iterdir()])
        raise NumericalError("expected a finite loss, found nan")

    monkeypatch.setattr(measuring, "_measured", failing)
    out = tmp_path / "o"
    assert run(capfd, "sharpness", runs[0], *FEW, "--out", out).code == 6
    assert seen == [["start-"]]
    assert not out.exists()
    out.mkdir()
    assert run(capfd, "sharpness", *runs, *FEW, "--out", out).code == 6
    assert not list(out.iterdir()), "a folder that was there stays, and nothing in it"


def test_the_first_result_removes_starts_of_other_runs_and_none_that_are_in_use(tmp_path):
    """A second process of one sweep, and another checkpoint of one command, have starts of their own in the folder."""
    mine, beside, other = (OutputDirectory(tmp_path / "o", {"command": "sweep", "samples": n}) for n in (48, 48, 32))
    starts = [d.start({"checkpoint": i}) for i, d in enumerate((mine, beside, other))]
    assert len(set(starts)) == 3
    (tmp_path / "o").mkdir()
    for start in starts:
        start.write_text("{}")
    OutputDirectory.allow(tmp_path / "o", {"command": "sweep", "samples": 16})  # they bind nobody
    mine.json("first.json", {})
    assert [start.exists() for start in starts] == [True, True, False]


def test_a_damaged_start_is_chosen_again(runs, tmp_path, capfd, interrupted_in):
    out = tmp_path / "o"
    interrupted_in("lambda_max")
    assert run(capfd, "sharpness", runs[0], *FEW, "--out", out).code == 130
    next(out.glob("start-*.json")).write_text('{"method": {"fol')
    interrupted_in("nothing")
    again = run(capfd, "sharpness", runs[0], *FEW, "--out", out)
    assert again.code == 0
    assert "is damaged: derivatives are checked, and the method of products chosen, again" in again.err


def test_a_resumed_run_forecasts_what_is_left(runs, tmp_path, capfd, interrupted_in, monkeypatch):
    from landscape.cli.commands import sharpness
    from landscape.measures import forecast

    monkeypatch.setattr(sharpness, "_WORTH_SAYING", 0.0)
    out = tmp_path / "o"
    interrupted_in("trace")
    first = run(capfd, "sharpness", runs[0], *FEW, "--out", out)
    assert "forecast: 8 measures: " in first.err
    interrupted_in("nothing")
    second = run(capfd, "sharpness", runs[0], *FEW, "--out", out)
    assert "forecast: 5 of 8 measures to do: " in second.err
    third = run(capfd, "sharpness", runs[0], *FEW, "--out", out)
    assert "forecast:" not in third.err, "nothing is left to do"
    from landscape.tasks import load

    objective = load(runs[0]).objective(samples=48)
    whole = forecast(objective, ["lambda_max", "lambda_min", "trace"])
    # The Lanczos run of both ends is not kept with the first: the second is forecast with the whole of it.
    left = forecast(objective, ["lambda_max", "lambda_min", "trace"], kept={"lambda_max"})
    assert (list(left.seconds), left.kept) == (["lambda_min", "trace"], 1)
    assert left.spent.products == whole.spent.products
    left = forecast(objective, ["lambda_max", "lambda_min", "trace"], kept={"lambda_max", "lambda_min"})
    assert left.spent.products == forecast(objective, ["trace"]).spent.products


@pytest.fixture
def own(tmp_path):
    """A task of the user's own, and arguments that measure it into `o`."""
    torch.manual_seed(0)
    save_file(nn.Linear(4, 3).state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "t.py").write_text(
        "import torch\nfrom torch import nn\nfrom landscape import Task\nx = torch.load(__file__[:-4] + 'x.pt')\n"
        "def task():\n    return Task(nn.Linear(4, 3), nn.CrossEntropyLoss(), (x, torch.arange(30) % 3))\n"
    )
    torch.save(torch.randn(30, 4), tmp_path / "x.pt")
    named = ["sharpness", tmp_path / "net.safetensors", "--task", tmp_path / "t.py"]
    return [*named, "--measures", "trace,logit_norm", "--out", tmp_path / "o"]


@pytest.mark.parametrize("what", ["data", "weights", "seed", "dtype", "measures", "samples", "split"])
def test_a_changed_input_is_refused_by_name(what, own, tmp_path, capfd):
    assert run(capfd, *own).code == 0
    (tmp_path / "o" / "sharpness.json").unlink()
    before = {p: p.read_bytes() for p in (tmp_path / "o").rglob("*") if p.is_file()}
    told, more = what, []
    if what == "data":
        torch.save(torch.randn(30, 4), tmp_path / "x.pt")
        told = "digest of data"
    elif what == "weights":
        save_file(nn.Linear(4, 3).state_dict(), tmp_path / "net.safetensors")
        told = "sha256"
    else:
        values = {"seed": 1, "dtype": "float64", "measures": "trace", "samples": 20, "split": "test"}
        more = [f"--{what}", values[what]]
    done = run(capfd, *own, *more)
    assert done.code == 2
    assert "differ" in done.error
    assert told in done.error
    assert before == {p: p.read_bytes() for p in (tmp_path / "o").rglob("*") if p.is_file()}


def test_what_is_damaged_is_computed_again(own, tmp_path, capfd):
    whole = run(capfd, *own, "--json")
    kept = sorted((tmp_path / "o").rglob("*.record"))
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes().replace(b"value", b"valve", 1))
    kept[1].write_bytes(kept[1].read_bytes()[:-20])
    (tmp_path / "o" / "measures" / "0" / "work.json").write_text("[" * 100_000)
    again = run(capfd, *own, "--json")
    assert again.code == 0
    assert again.err.count("is damaged") == 3
    assert timeless(json.loads(again.out)) == timeless(json.loads(whole.out))
    kept[0].unlink()
    os.mkfifo(kept[0])
    again = run(capfd, *own, "--json")
    assert again.code == 0
    assert "it is a pipe, not a file" in again.err


def test_a_finished_command_given_again_computes_nothing(own, tmp_path, capfd):
    first = run(capfd, *own, "--json")
    again = run(capfd, *own, "--json")
    measures = [json.loads(d.out)["results"][0]["measures"] for d in (first, again)]
    assert measures[0] == measures[1], "times too"
    shutil.rmtree(tmp_path / "o")


def test_a_value_that_json_has_no_word_for(tmp_path):
    from landscape.measures import Kept
    from landscape.objective import Objective
    from landscape.results import Estimate, Measurement

    objective = Objective(nn.Linear(2, 2), nn.CrossEntropyLoss(), (torch.randn(4, 2), torch.tensor([0, 1, 0, 1])))
    kept = Kept(tmp_path / "k", {"a": 1})
    values = {"inf": float("inf"), "nan": float("nan"), "third": 1 / 3, "least": 5e-324}
    for name, value in values.items():
        kept.keep(objective, name, Measurement(Estimate(value, stderr=value, reason="why"), "m", (), settings={"eps": 0.1}), [])
    read = Kept(tmp_path / "k", {"a": 1}).measurements
    for name, value in values.items():
        assert repr(read[name].estimate.value) == repr(value)
        assert repr(read[name].estimate.stderr) == repr(value)
        assert read[name].settings == {"eps": 0.1}


def test_a_refused_folder_says_what_the_default_is(own, tmp_path, capfd):
    named = [word for word in own if word not in ("--measures", "trace,logit_norm")]
    assert run(capfd, *own).code == 0
    assert "measures (trace, logit_norm there, the usual ones asked)" in run(capfd, *named).error
    more = run(capfd, *own, "--samples", "20", "--model", "mlp")
    assert "model (the default there, mlp asked), samples (all there, 20 asked)" in more.error
    assert more.error.endswith("choose another --out, or delete that folder to start again")
