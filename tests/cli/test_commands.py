"""The command line as a person or a program meets it: real commands on a real network trained here."""

import csv
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from in_process import landscape
from torch import nn

from landscape import checkpoints
from landscape.cli.command import idle_options

COMMANDS = [
    "inspect", "sharpness", "spectrum", "information", "surface", "samples", "reparam", "compare", "train", "watch", "report",
    "demo", "init", "doctor",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two networks of one recipe, stopped early."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        landscape(
            "train", "digits-mlp", "--epochs", 3, "--seed", seed, "-M", "widths=[8]", "--out", folder / f"{seed}.safetensors"
        )
    return folder


def test_help_of_every_command_shows_an_example():
    top = landscape("--help").out
    for name in COMMANDS:
        assert name in top
        text = landscape(name, "--help").out
        assert "Example: landscape" in text
        idle = {option.replace("_", "-") for option in idle_options(import_module(f"landscape.cli.commands.{name}"))}
        for option in {"json", "seed", "device", "dtype", "samples", "batch-size", "out"} - idle:
            assert f"--{option}" in text, name
        assert not [option for option in idle if f"--{option} " in text], name


def test_a_checkpoint_starts_from_the_eigenvectors_of_the_one_before(runs):
    """Of the same layout; the numbers are those of a run of its own."""
    names = ("--measures", "lambda_max,adaptive_lambda_max", "--samples", 64, "--json")
    both = json.loads(landscape("sharpness", runs / "0.safetensors", runs / "1.safetensors", *names).out)["results"]
    alone = json.loads(landscape("sharpness", runs / "1.safetensors", *names).out)["results"][0]
    assert "start" not in both[0]["provenance"]
    assert both[1]["provenance"]["start"] == "eigenvectors of a similar checkpoint"
    for name, one in alone["measures"].items():
        other = both[1]["measures"][name]
        assert other["converged"]
        assert abs(one["value"] - other["value"]) <= 1.1 * (one["stderr"] + other["stderr"])


def test_sharpness_json_is_one_document(runs, tmp_path):
    done = landscape(
        "sharpness",
        runs / "0.safetensors",
        runs / "1.safetensors",
        "--json",
        "--out",
        tmp_path / "o",
        "--measures",
        "lambda_max,trace",
    )
    document = json.loads(done.out)
    assert document["schema"] == 1
    first = document["results"][0]
    own = {"checkpoint", "sha256", "task", "samples", "loss", "accuracy", "measures", "minimum", "symmetries", "provenance"}
    assert set(first) == own
    assert list(first["measures"]) == ["lambda_max", "trace"]
    assert set(first["loss"]) == {"value", "stderr", "kind", "n", "converged", "reason", "sampling"}
    assert first["samples"] == 1347
    assert json.loads((tmp_path / "o" / "sharpness.json").read_text()) == document
    rows = list(csv.DictReader((tmp_path / "o" / "sharpness.csv").read_text().splitlines()))
    told = [(r["checkpoint"], name, m["value"]) for r in document["results"] for name, m in r["measures"].items()]
    assert [(row["checkpoint"], row["measure"], float(row["value"]) if row["value"] else None) for row in rows] == told
    again = landscape("sharpness", runs / "0.safetensors", "--json", "--measures", "lambda_max,trace")
    strip = {"seconds", "matvecs"}
    a, b = (
        {m: {k: v for k, v in e.items() if k not in strip} for m, e in d["measures"].items()}
        for d in (first, json.loads(again.out)["results"][0])
    )
    assert a == b, "the same seed, the same numbers"


def test_sharpness_table_for_people(runs):
    text = landscape("sharpness", runs / "0.safetensors", "--samples", 200, "--measures", "adaptive_trace").out
    assert "200 samples" in text
    assert "fakeable" in text


def test_spectrum_surface_reparam_compare_report(runs, tmp_path):
    one, two = runs / "0.safetensors", runs / "1.safetensors"
    few = ("--samples", 100)
    landscape("spectrum", one, "-k", 2, "--steps", 15, "--per-layer", *few, "--out", tmp_path / "spectrum")
    landscape("surface", one, "--dim", 1, "--grid", 5, "--directions", "hessian", *few, "--out", tmp_path / "line")
    landscape("surface", one, "--grid", 5, "--directions", f"random,to:{two}", *few, "--out", tmp_path / "plane")
    done = landscape(
        "reparam", one, "--alpha", 7, "--measures", "trace,adaptive_trace", *few, "--out", tmp_path / "reparam", "--json"
    )
    verdicts = {row["name"]: row["verdict"] for row in json.loads(done.out)["rows"]}
    assert verdicts == {"trace": "moved", "adaptive_trace": "invariant"}
    landscape("compare", one, two, "--measures", "trace", "--grid", 5, *few, "--out", tmp_path / "compared")
    landscape("report", tmp_path, "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for word in ("trace", "the same function", "moved", "data:image"):
        assert word in page
    for picture in (
        "spectrum/spectrum.png",
        "line/surface-line.pdf",
        "plane/surface-contour.png",
        "plane/surface-3d.png",
        "reparam/certificate.png",
    ):
        assert (tmp_path / picture).stat().st_size > 1000
    document = json.loads((tmp_path / "plane" / "surface.json").read_text())
    assert document["check"]["centre_is_exact"] is True
    rescaled = json.loads(
        landscape("sharpness", tmp_path / "reparam" / "rescaled.safetensors", "--json", "--measures", "trace", *few).out
    )
    assert rescaled["results"][0]["samples"] == 100


def test_target_is_reached_and_a_target_below_the_bound_is_refused(runs, tmp_path):
    one = runs / "0.safetensors"
    done = landscape("reparam", one, "--target", "trace=1e6", "--measures", "trace", "--out", tmp_path / "t", "--json")
    after = json.loads(done.out)["rows"][0]["after"]
    assert after["value"] == pytest.approx(1e6, rel=1e-2)
    refused = landscape("reparam", one, "--target", "trace=1e-3", "--out", tmp_path / "u", code=2)
    assert "flattening bound" in refused.err
    assert not (tmp_path / "u").exists(), "a run that failed owns nothing"


def test_a_users_own_checkpoint_with_a_task_file(tmp_path):
    """A DataParallel-style file that nobody here wrote, with `module.` prefixes and an epoch beside the weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    torch.save({"net": {f"module.{k}": v for k, v in net.state_dict().items()}, "acc": 91.2, "epoch": 7}, tmp_path / "ckpt.pt")
    (tmp_path / "task.py").write_text(
        "import torch\nfrom landscape import Task\n\n\ndef task():\n"
        "    g = torch.Generator().manual_seed(0)\n    x = torch.randn(50, 4, generator=g)\n"
        "    y = torch.randint(0, 3, (50,), generator=g)\n"
        "    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))\n"
        "    return Task(model=model, loss=torch.nn.CrossEntropyLoss(), train=(x, y), test=None)\n"
    )
    done = landscape("sharpness", "ckpt.pt", "--task", "task.py", "--json", "--dtype", "float64", cwd=tmp_path)
    measures = json.loads(done.out)["results"][0]["measures"]
    assert measures["keskar"]["kind"] == "lower bound"
    assert "chance level" in done.err
    assert "0.weight" in landscape("inspect", "ckpt.pt", cwd=tmp_path).out
    landscape("init", "ckpt.pt", "--out", "fresh.py", cwd=tmp_path)
    compile((tmp_path / "fresh.py").read_text(), "fresh.py", "exec")
    refused = landscape("init", "ckpt.pt", "--out", "fresh.py", cwd=tmp_path, code=2)
    assert "expected a new file, found an existing one at fresh.py" in refused.err


BAD = [
    (("sharpness", "missing.pt"), 2, "missing.pt"),
    (("sharpness", "RUN", "--measures", "sharp"), 2, "expected a measure, found 'sharp'"),
    (("sharpness", "RUN", "--samples", "0"), 2, "samples"),
    (("sharpness", "RUN", "--samples", "999999"), 2, "1347"),
    (("sharpness", "RUN", "--dtype", "float16"), 2, "--dtype"),
    (("sharpness", "RUN", "--device", "tpu"), 2, "device"),
    (("sharpness", "RUN", "--batch-size", "0"), 2, "batch size"),
    (("sharpness",), 2, "CKPT"),
    (("surface", "RUN", "--grid", "1"), 2, "at least 2 points"),
    (("surface", "RUN", "--grid", "100000"), 2, "at most"),
    (("surface", "RUN", "--span", "nan", "1"), 2, "span"),
    (("surface", "RUN", "--span", "1", "-1"), 2, "span"),
    (("surface", "RUN", "--directions", "sideways"), 2, "sideways"),
    (("reparam", "RUN", "--target", "trace"), 2, "MEASURE=VALUE"),
    (("reparam", "RUN", "--target", "adaptive_trace=3"), 2, "a measure that layer moves"),
    (("reparam", "RUN", "--alpha", "-1"), 2, "alpha"),
    (("compare", "RUN"), 2, "at least two"),
    (("compare", "--group", "a=none-*.pt"), 2, "none-*.pt"),
    (("train", "digits-transformer"), 2, "digits-mlp"),
    (("train", "digits-mlp", "--corruption", "labels"), 2, "level"),
    (("train", "digits-mlp", "--rho", "0.1"), 2, "optimizer sam and no other"),
    (("train", "digits-mlp", "--optimizer", "sam", "--rho", "nan"), 2, "rho as a positive number"),
    (("train", "digits-mlp", "--label-smoothing", "1"), 2, "label smoothing"),
    (("train", "digits-mlp", "--mixup", "0"), 2, "mixup as a positive number"),
    (("train", "digits-mlp", "-M", "activation=gelu"), 2, "relu or tanh"),
    (("reparam", "RUN", "--alpha", "2", "--target", "trace=9"), 2, "found both"),
    (("sharpness", "RUN", "--measures", ","), 2, "names of measures"),
    (("sharpness", "RUN", "-M", "width=3"), 2, "found it alone"),
    (("sharpness", "RUN", "--split", "tset"), 2, "--split"),
    (("sharpness", "RUN", "--seed", "99999999999999999999999"), 2, "--seed"),
    (("report", "RUN", "--out", "keep.safetensors"), 2, "end in .html"),
    (("train", "digits-mlp", "--batch", "8", "--batch-size", "9"), 2, "found both"),
    (("spectrum", "RUN", "--scale", "cubic"), 2, "--scale"),
    (("nonsense",), 2, "nonsense"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), BAD, ids=[" ".join(a) for a, _, _ in BAD])
def test_bad_requests_are_one_line(arguments, code, words, runs, tmp_path):
    given = [runs / "0.safetensors" if a == "RUN" else a for a in arguments]
    done = landscape(*given, cwd=tmp_path, code=code)
    assert words in done.err


def test_another_runs_directory_is_not_overwritten(runs, tmp_path):
    landscape("surface", runs / "0.safetensors", "--dim", 1, "--grid", 3, "--samples", 50, "--out", tmp_path / "o")
    kept = (tmp_path / "o" / "surface.json").read_bytes()
    done = landscape(
        "surface", runs / "0.safetensors", "--dim", 1, "--grid", 5, "--samples", 50, "--out", tmp_path / "o", code=2
    )
    assert "differs in grid" in done.err
    assert (tmp_path / "o" / "surface.json").read_bytes() == kept
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    done = landscape("spectrum", runs / "0.safetensors", "--samples", 50, "--out", tmp_path / "mine", code=2)
    assert "thesis.tex" in done.err


def test_one_bad_file_does_not_lose_the_others(runs, tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"\x00" * 100)
    done = landscape("sharpness", tmp_path / "bad.pt", runs / "0.safetensors", "--json", "--measures", "trace", code=4)
    assert len(json.loads(done.out)["results"]) == 1


def test_a_surface_that_overflows_is_not_passed_over(runs, tmp_path):
    arguments = ("surface", runs / "0.safetensors", "--dim", 1, "--grid", 3, "--samples", 50, "--span", "-1e30", "1e30")
    done = landscape(*arguments, "--out", tmp_path / "o", "--json", code=6)
    assert json.loads(done.out)["not_finite"] > 0
    assert "not finite" in done.err


def test_errors_of_a_users_own_code_are_one_line(runs, tmp_path):
    (tmp_path / "task.py").write_text(
        "import torch\nfrom landscape import Task\n\n\ndef loss(z, t):\n    return z.nope\n\n\n"
        "def task():\n    return Task(torch.nn.Linear(4, 3), loss, (torch.ones(5, 4), torch.zeros(5, dtype=torch.long)))\n"
    )
    torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "a.pt")
    done = landscape("sharpness", "a.pt", "--task", "task.py", cwd=tmp_path, code=2)
    assert "task.py:6" in done.err


def test_inspect_is_for_people(runs):
    text = landscape("inspect", runs / "0.safetensors").out
    assert "fc1.weight" in text
    assert "CandidateSummary" not in text


def test_inspect_lists_the_ends_of_a_large_network_and_all_on_request(tmp_path):
    state = {f"layers.{i}.weight": torch.zeros(2, i + 1) for i in range(45)}
    torch.save(state, tmp_path / "deep.pt")
    rows = landscape("inspect", tmp_path / "deep.pt").out.splitlines()
    listed = [row for row in rows if row.startswith("layers.")]
    assert [row.split()[0] for row in listed] == [name for i, name in enumerate(state) if i < 10 or i >= 35]
    assert any(row.startswith("... 25 more: --all lists them") for row in rows)
    every = [row.split()[0] for row in landscape("inspect", tmp_path / "deep.pt", "--all").out.splitlines() if "layers." in row]
    assert every == list(state)
    assert len(json.loads(landscape("inspect", tmp_path / "deep.pt", "--json").out)["candidates"][0]["rows"]) == 45
    assert "\n\n\n" not in "\n".join(row.rstrip() for row in rows)


def test_doctor_checks_this_machine():
    done = landscape("doctor")
    assert "largest relative difference" in done.out
    assert "gradients)" in done.out
    fails = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode != 0
    assert ("is built for another torch" in done.err) == fails


def test_controls_of_memorization_reach_the_recipe(tmp_path):
    wanted = {"optimizer": "sam", "rho": 0.2, "label_smoothing": 0.1, "mixup": 0.4, "dropout": 0.3, "samples": 64, "epochs": 1}
    options = [word for name, value in wanted.items() for word in (f"--{name.replace('_', '-')}", value)]
    network = ("-M", "widths=[8,8,8]", "-M", "batchnorm=true", "-M", "activation=tanh")
    landscape("train", "digits-mlp", *options, *network, "--out", tmp_path / "a.safetensors")
    told = checkpoints.read(tmp_path / "a.safetensors").recipe
    assert {name: told["training"][name] for name in wanted} == wanted
    shape = {"widths": [8, 8, 8], "batchnorm": True, "activation": "tanh", "dropout": 0.3}
    assert {name: told["network"]["options"][name] for name in shape} == shape


def test_a_killed_training_run_goes_on(tmp_path):
    """Interrupt with SIGINT: exit 130, and the same command finishes it with the same weights as an uninterrupted run."""
    import signal
    import time

    arguments = ["train", "digits-mlp", "--epochs", "300", "--stop-loss", "1e-6", "-M", "widths=[16]", "--out"]
    command = [sys.executable, "-m", "landscape", *arguments, str(tmp_path / "a.safetensors")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    until = time.monotonic() + 200
    while not (tmp_path / "a.safetensors.partial").exists():  # until there is something to go on from
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert (tmp_path / "a.safetensors.partial").exists()
    assert "interrupted" in errors
    landscape(*arguments, tmp_path / "a.safetensors")
    landscape(*arguments, tmp_path / "b.safetensors")
    from safetensors.torch import load_file

    a, b = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert all(torch.equal(a[k], b[k]) for k in b)
