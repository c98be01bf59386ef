"""`landscape sweep`: every row is what `landscape sharpness` gives, and nothing is computed twice or mixed."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from in_process import landscape
from safetensors.torch import load_file, save_file
from torch import nn

from landscape.results import ORDERS, Estimate, Measurement, Sharpness, Stationarity, Sweep, Unmeasured

NAMES = "trace:probes=4,weight_curvature"
TASK = """
import torch
from landscape import Task

def task():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    data = torch.load("data.pt", weights_only=True)
    return Task(model=model, loss=torch.nn.CrossEntropyLoss(), train=(data["x"], data["y"]))
"""


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints of one small network, its task and its data."""
    generator = torch.Generator().manual_seed(0)
    for seed in (10, 2, 1):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        (tmp_path / "runs" / f"{seed}").mkdir(parents=True)
        save_file(net.state_dict(), tmp_path / "runs" / f"{seed}" / "net.safetensors")
    (tmp_path / "task.py").write_text(TASK)
    x = torch.randn(32, 3, generator=generator)
    torch.save({"x": x, "y": (x[:, 0] > 0).long()}, tmp_path / "data.pt")
    return tmp_path


def sweep(folder: Path, *more: object, code: int = 0, pattern: str = "runs/*/net.safetensors"):
    done = landscape(
        "sweep",
        pattern,
        "--task",
        "task.py",
        "--measures",
        NAMES,
        "--out",
        "o",
        "--json",
        *more,
        cwd=folder,
        code=code,
    )
    return json.loads(done.out), done


def timeless(document):
    """A document without what the clock and the free memory decide."""
    if isinstance(document, dict):
        return {k: timeless(v) for k, v in document.items() if k not in ("seconds", "memory")}
    return [timeless(v) for v in document] if isinstance(document, list) else document


def records(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (folder / "o" / "items").iterdir()}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "o" / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_row_is_what_sharpness_gives(folder):
    document, done = sweep(folder)
    paths = [f"runs/{seed}/net.safetensors" for seed in (1, 2, 10)]
    assert [r["checkpoint"] for r in document["results"]] == paths  # in natural order
    for path, row in zip(paths, document["results"], strict=True):
        alone = landscape("sharpness", path, "--task", "task.py", "--measures", NAMES, "--json", cwd=folder)
        assert timeless(row) == timeless(json.loads(alone.out)["results"][0])
        assert list(row["measures"]) == ["trace:probes=4", "weight_curvature"]
    assert json.loads((folder / "o" / "sweep.json").read_text()) == document
    rows = table(folder)
    assert [float(r["weight_curvature"]) for r in rows] == [
        r["measures"]["weight_curvature"]["value"] for r in document["results"]
    ]
    assert "not measured" not in done.err
    sorted_, _ = sweep(folder, "--sort", "loss")
    losses = [r["loss"]["value"] for r in sorted_["results"]]
    assert losses == sorted(losses, reverse=True)
    assert not list((folder / "o" / "claims").iterdir())
    assert not list((folder / "o" / "measures").iterdir())


def test_nothing_is_computed_twice_and_what_changed_is_computed_anew(folder):
    first, _ = sweep(folder)
    before = records(folder)
    again, _ = sweep(folder)
    assert again == first
    assert records(folder) == before
    path = folder / "runs" / "2" / "net.safetensors"
    os.utime(path)  # touched: read again, and found to be the same
    assert sweep(folder)[0] == first
    tensors = load_file(path)
    save_file({k: 2 * t for k, t in tensors.items()}, path)
    changed, _ = sweep(folder)
    assert [a == b for a, b in zip(changed["results"], first["results"], strict=True)] == [True, False, True]
    save_file(tensors, path)
    assert timeless(sweep(folder)[0]) == timeless(first)


def test_other_settings_and_other_data_never_mix(folder):
    first, _ = sweep(folder)
    fewer, _ = sweep(folder, "--samples", 8)
    assert {r["samples"] for r in fewer["results"]} == {8}
    before = records(folder)
    assert sweep(folder)[0] == first  # the first settings are still there
    assert records(folder) == before
    data = torch.load(folder / "data.pt", weights_only=True)
    torch.save(data | {"x": 3 * data["x"]}, folder / "data.pt")
    other, _ = sweep(folder)
    alone = landscape("sharpness", "runs/1/net.safetensors", "--task", "task.py", "--measures", NAMES, "--json", cwd=folder)
    assert timeless(other["results"][0]) == timeless(json.loads(alone.out)["results"][0])
    assert all(a["loss"]["value"] != b["loss"]["value"] for a, b in zip(other["results"], first["results"], strict=True))
    more = folder / "runs" / "3"
    shutil.copytree(folder / "runs" / "1", more)
    grown, _ = sweep(folder)
    assert [r["checkpoint"] for r in grown["results"]][2] == "runs/3/net.safetensors"
    assert grown["results"][0] == other["results"][0]


ADAPTED = """
import torch
from landscape import Task

def task():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    model.load_state_dict(torch.load("base.pt", weights_only=True))
    data = torch.load("data.pt", weights_only=True)
    return Task(model=model, loss=torch.nn.CrossEntropyLoss(), train=(data["x"], data["y"]))
"""


def test_adapters_are_measured_anew_once_their_base_changes(folder):
    (folder / "task.py").write_text(ADAPTED)
    base = load_file(folder / "runs" / "1" / "net.safetensors")
    torch.save(base, folder / "base.pt")
    config = {"peft_type": "LORA", "lora_alpha": 1, "r": 1}
    for seed in (1, 2, 10):
        torch.manual_seed(seed)
        factors = {"lora_A": torch.randn(1, 3), "lora_B": torch.randn(4, 1)}
        place = folder / "runs" / str(seed)
        save_file({f"base_model.model.0.{k}.weight": t for k, t in factors.items()}, place / "adapter_model.safetensors")
        (place / "adapter_config.json").write_text(json.dumps(config))

    def swept():
        return sweep(folder, pattern="runs/*/adapter_model.safetensors")[0]

    def measured(seed: int):
        path = f"runs/{seed}/adapter_model.safetensors"
        alone = landscape("sharpness", path, "--task", "task.py", "--measures", NAMES, "--json", cwd=folder)
        return timeless(json.loads(alone.out)["results"][0])

    first = swept()
    before = records(folder)
    assert swept() == first
    assert records(folder) == before
    torch.save({k: 2 * t for k, t in base.items()}, folder / "base.pt")
    other = swept()
    assert timeless(other["results"][1]) == measured(2)
    assert all(a["loss"]["value"] != b["loss"]["value"] for a, b in zip(other["results"], first["results"], strict=True))
    os.utime(folder / "runs" / "2" / "adapter_model.safetensors")  # touched, and the base is the former one again
    torch.save(base, folder / "base.pt")
    assert timeless(swept()) == timeless(first)
    (folder / "runs" / "2" / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 2}))
    scaled = swept()
    assert timeless(scaled["results"][1]) == measured(2)
    assert [a == b for a, b in zip(scaled["results"], swept()["results"], strict=True)] == [True] * 3
    assert scaled["results"][1]["loss"]["value"] != first["results"][1]["loss"]["value"]


def test_a_checkpoint_that_fails_is_a_row_with_its_reason(folder):
    for name in ("4", "5", "6"):
        (folder / "runs" / name).mkdir()
    (folder / "runs" / "4" / "net.safetensors").write_bytes(b"junk")
    save_file({"0.weight": torch.ones(2, 2)}, folder / "runs" / "5" / "net.safetensors")
    bad = load_file(folder / "runs" / "1" / "net.safetensors")
    bad["0.bias"][0] = float("nan")
    save_file(bad, folder / "runs" / "6" / "net.safetensors")
    document, done = sweep(folder, code=4)
    assert len(document["results"]) == 3
    assert [(f["checkpoint"], f["exit_code"]) for f in document["failed"]] == [
        ("runs/4/net.safetensors", 4), ("runs/5/net.safetensors", 5), ("runs/6/net.safetensors", 6),
    ]  # fmt: skip
    assert "found 3 that cannot, first runs/4/net.safetensors" in done.error
    rows = table(folder)
    assert [bool(r["error"]) for r in rows] == [False] * 3 + [True] * 3
    shutil.copy(folder / "runs" / "1" / "net.safetensors", folder / "runs" / "4" / "net.safetensors")
    assert len(sweep(folder, code=5)[0]["results"]) == 4
    told = landscape("report", "o", "--out", "r.html", "--json", cwd=folder)
    assert json.loads(told.out)["holds"]["sharpness"] == 4
    assert "runs/5/net.safetensors is not in the report" in told.err


def test_what_is_given_up_is_not_said_to_be_tried_again(folder):
    sweep(folder)
    path = next(p for p in (folder / "o" / "items").iterdir() if b"runs/1/net" in p.read_bytes())
    path.unlink()
    for i in range(3):
        (folder / "o" / "claims" / f"{path.stem}.lost-{i}").touch()
    document, done = sweep(folder, code=1)
    (given_up,) = document["failed"]
    assert f"delete {path.relative_to(folder)} to try again" in given_up["error"]
    assert done.error.endswith("the other rows are complete")
    (folder / "runs" / "2" / "net.safetensors").write_bytes(b"junk")
    assert "found 2 that cannot" in (told := sweep(folder, code=1)[1].error)
    assert told.endswith("the same command tries 1 of them again")
    path.unlink()
    assert len(sweep(folder, code=4)[0]["results"]) == 2


def test_errors_of_the_users_own_code_are_rows_and_are_tried_again(folder):
    data = (folder / "data.pt").rename(folder / "moved.pt")
    document, _ = sweep(folder, code=2)
    assert not document["results"]
    assert len(document["failed"]) == 3
    data.rename(folder / "data.pt")
    assert len(sweep(folder)[0]["results"]) == 3


def test_mistakes(folder):
    assert "match 'none/*', found none" in sweep_error(folder, "none/*")
    assert "--sort with a column" in sweep_error(folder, "runs/*/net.safetensors", "--sort", "sharpest")
    (folder / "o").mkdir()
    (folder / "o" / "mine.txt").touch()
    assert "mine.txt in it" in sweep_error(folder, "runs/*/net.safetensors")


def sweep_error(folder: Path, *words: str) -> str:
    return landscape("sweep", *words, "--task", "task.py", "--out", "o", cwd=folder, code=2).error


def test_a_sweep_is_a_table_that_sorts():
    rows = [Sharpness(Estimate(x), None, {}, 1, checkpoint=name) for x, name in ((1.0, "a"), (2.0, "b"))]
    table = Sweep(rows, [Unmeasured("c", "found nothing", 4)])
    assert "c: not measured: found nothing" in str(table)
    assert [r.checkpoint for r in table.sorted_by("loss").results] == ["b", "a"]
    assert Sweep.from_json(table.to_json()).to_json() == table.to_json()
    assert "checkpoint" in ORDERS
    with pytest.raises(Exception, match="a column to sort by, found 'trace'"):
        table.sorted_by("trace")


def test_the_larger_error_stands_behind_a_value_with_its_name():
    """Not `14.903 ± 3.1e-06`, the residual of the solver, where other samples would move it by 1.5."""
    top = Estimate(14.903, 3.1e-6, "residual", data_stderr=1.54)
    bottom = Estimate(-1.699, 2.2e-6, "residual", data_stderr=1.2)
    trace = Estimate(164.0, 30.0, "t", n=8, data_stderr=1.0)
    layer = {"fakeable_by": ("layer",), "unknown": ()}
    measures = {
        "lambda_max": Measurement(top, "loss", (), **layer), "lambda_min": Measurement(bottom, "loss", ("layer",), unknown=()),
        "trace": Measurement(trace, "loss", (), **layer),
    }  # fmt: skip
    saddle = Stationarity(0.1, negative_curvature=0.114)
    loss = Estimate(3.2, 0.1, "samples", n=8)
    rows = Sweep([Sharpness(loss, None, measures, 8, checkpoint="a", minimum=saddle)])
    head, cells = rows.cells().head, rows.cells().rows[0]
    told = dict(zip(head, cells, strict=True))
    assert told["lambda_max"] == "14.903 sd 1.5 (data)"
    assert told["trace"].startswith("164 ± 71")
    assert told["trace"].endswith("(method)")
    assert told["loss"] == "3.2 [3.004, 3.396] (data)"
    assert told["at a minimum"] == "no: lambda_min -11 %"
    assert "fakeable: lambda_max: layer; lambda_min: no; trace: layer" in rows.cells().after
    (record,) = rows.records()
    assert (record["lambda_max_method_low"], record["lambda_max_method_high"]) == top.interval()
    assert (record["lambda_max_data_low"], record["lambda_max_data_stderr"]) == (None, 1.54)
    assert record["loss_method_low"] is None
    assert (record["loss_data_low"], record["loss_data_high"]) == loss.interval()
    assert record["not_a_minimum"] == "lambda_min is -11 % of lambda_max"
    assert not any(key.endswith(("_low", "_high")) and "_method_" not in key and "_data_" not in key for key in record)


def test_sharpness_spectrum_and_sweep_say_alike_that_this_is_no_minimum(folder):
    """By one mechanism, from the same eigenvalues: of an untrained network."""
    common = ("--task", "task.py", "--json")
    path, names = "runs/1/net.safetensors", ("--measures", "lambda_max,lambda_min")
    alone = landscape("sharpness", path, *common, *names, cwd=folder)
    spectrum = landscape("spectrum", path, *common, "-k", 1, "--probes", 2, "--steps", 5, "--out", "s", cwd=folder)
    swept = landscape("sweep", path, *common, *names, "--out", "o", cwd=folder)
    row = json.loads(alone.out)["results"][0]
    values = [row["measures"][name]["value"] for name in ("lambda_max", "lambda_min")]
    reason = f"lambda_min is -{-100 * values[1] / values[0]:.2g} % of lambda_max"
    assert values[1] < -0.1 * values[0]
    assert all(reason in done.err and "not at a minimum" in done.err for done in (alone, spectrum))
    assert f"lambda_min -{-100 * values[1] / values[0]:.2g} %" in swept.err
    assert reason in json.loads(spectrum.out)["minimum"]["reasons"]
    assert reason in table(folder)[0]["not_a_minimum"]


def test_a_note_is_said_again_only_when_it_changes(folder):
    _, done = sweep(folder)
    assert done.err.count("note: memory: about") == 1
    assert done.err.count("note: measuring") == 3


def test_an_interrupted_sweep_says_what_it_has_and_what_it_goes_on_from(folder, monkeypatch):
    from landscape.measures.running import measuring

    found = measuring._measured
    asked = []

    def measured(m, *rest):
        asked.append(m.name)
        if len(asked) == 4:  # the second one of the second checkpoint
            os.kill(os.getpid(), signal.SIGINT)
        return found(m, *rest)

    monkeypatch.setattr(measuring, "_measured", measured)
    _, done = sweep(folder, code=130)
    assert (
        "saved in o: 1 of 3 checkpoints and 1 of 2 measures of runs/2/net.safetensors; the same command continues" in done.err
    )
    document, again = sweep(folder)
    assert "net.safetensors: kept: 1 of 2 measures, not computed again: trace:probes=4" in again.err
    assert len(document["results"]) == 3
    names = [name.partition(":")[0] for name in asked]
    assert names == ["trace", "weight_curvature"] * 2 + ["weight_curvature", "trace", "weight_curvature"]


@pytest.mark.slow  # three processes, one after another
def test_slurm_submits_an_array_of_this_command(folder):
    """Really, with submitit's processes on this machine in the place of SLURM."""
    pytest.importorskip("submitit", reason="an extra: pip install submitit")
    words = ["sweep", "runs/*/net.safetensors", "--task", "task.py", "--measures", NAMES, "--out", "o", "--json", "--slurm"]
    options = ["--workers", "2", "--slurm-option", "cluster=local", "--slurm-option=timeout_min=5"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-m", "landscape", *words, *options]
    submitted = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert submitted.returncode == 0, submitted.stderr
    assert len(json.loads(submitted.stdout)["jobs"]) == 2
    last = time.monotonic() + 120
    while not (folder / "o" / "sweep.json").exists() and time.monotonic() < last:
        time.sleep(0.2)
    logs = "".join(p.read_text() for p in sorted((folder / "o" / "slurm").rglob("*_log.*")))
    assert (folder / "o" / "sweep.json").exists(), logs
    before = records(folder)
    found, _ = sweep(folder)
    assert len(found["results"]) == 3
    assert records(folder) == before
    told = landscape(*words, "--slurm-option", "cluster=nowhere", cwd=folder, code=2)
    assert "submit 4 jobs, found ValueError" in told.error


def test_slurm_without_submitit_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    told = landscape("sweep", "runs/*/net.safetensors", "--task", "task.py", "--slurm", "--out", "o", cwd=folder, code=2)
    assert "pip install 'landscape-sharpness[slurm]'" in told.error
