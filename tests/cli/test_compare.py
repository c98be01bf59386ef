"""`landscape compare` from the outside: real commands on networks trained here."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from in_process import landscape

from landscape.cli.commands.compare import _tell
from landscape.cli.compared_runs import Lines, Match
from landscape.cli.terminal import Terminal
from landscape.errors import UsageError
from landscape.results import Barrier, Comparison, Slice


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Five small networks of one recipe, five with another learning rate, and a convolutional pair with BatchNorm."""
    from landscape.tasks import Recipe, train

    folder = tmp_path_factory.mktemp("runs")
    for lr, name in ((0.05, "slow"), (0.2, "fast")):
        for seed in range(5):
            recipe = Recipe(network_options={"widths": [6]}, lr=lr, epochs=2, batch_size=64, seed=seed)
            train(recipe, out=folder / f"{name}-{seed}.safetensors")
    for seed in (0, 1):
        recipe = Recipe(network="digits-cnn", network_options={"width": 2}, epochs=1, batch_size=64, seed=seed)
        train(recipe, out=folder / f"cnn-{seed}.safetensors")
    return folder


FEW = ("--samples", 150, "--measures", "trace,path_norm")


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory) -> tuple[dict, str, str, Path]:
    """Document, tables, remarks and folder of one comparison of two groups."""
    out = tmp_path_factory.mktemp("compared") / "o"
    groups = ("--group", f"slow={runs}/slow-*", "--group", f"fast={runs}/fast-*", "--memorized", "fast")
    done = landscape("compare", *groups, *FEW, "--grid", 5, "--json", "--out", out)
    return json.loads(done.out), done.out, done.err, out


def test_the_document_has_every_part(compared):
    document, _, _, out = compared
    assert document["schema"] == 1
    assert {"groups", "gaps", "table", "rank_correlation", "barriers", "remarks", "lines"} <= set(document), "as it always had"
    assert set(document["table"]) == {"trace", "path_norm"}
    trace = document["table"]["trace"]["slow"]
    assert trace["is_interval"]
    assert trace["low"] <= trace["median"] <= trace["high"]
    difference = next(d for d in document["differences"] if d["name"] == "trace")
    assert set(difference) >= {"p", "q", "exact", "delta", "delta_low", "delta_high", "ratio", "ratio_low", "ratio_high"}
    assert difference["smallest_p"] == pytest.approx(2 / 252)
    assert document["rank_correlation"]["trace"]["n"] == 10
    assert document["hyperparameters"]["fast"][0] == {"lr": 0.2}
    assert document["granulated"]["trace"]["pairs"] == {"lr": 25}
    assert document["granulated"]["trace"]["low"] is not None
    assert document["partial"]["trace"]["controls"] == ["lr", "train_loss"]
    separated = document["memorization"]["trace"]
    assert (separated["a"], separated["b"], separated["n"]) == ("memorized", "others", [5, 5])
    assert separated["auc"] == 1 - difference["auc"], "the second group is the one that was marked"
    assert separated["auc_low"] <= separated["auc"] <= separated["auc_high"]
    assert set(document["sign_error"]) == {"trace", "path_norm"}
    (barrier,) = document["barriers"].values()
    assert set(barrier) == {"loss", "accuracy", "test_loss", "test_accuracy"}
    assert document["lines"]["slow to fast"]["barriers"]["loss"]["stderr"] > 0
    assert json.loads((out / "comparison.json").read_text()) == document


def test_who_memorized_is_read_from_the_recipes_unless_told(tmp_path):
    from landscape.tasks import Recipe, train

    for seed in range(2):
        for name, changes in (("clean", {}), ("noisy", {"corruption": "labels", "corruption_level": 0.4})):
            # Until the wrong labels are fitted: only then did a run memorize.
            how = {"samples": 100, "optimizer": "adam", "lr": 3e-3, "epochs": 100, "evaluate_every": 100}
            recipe = Recipe(network_options={"widths": [128]}, batch_size=32, seed=seed, **how, **changes)
            train(recipe, out=tmp_path / f"{name}-{seed}.safetensors")
    groups = ("--group", f"clean={tmp_path}/clean-*", "--group", f"noisy={tmp_path}/noisy-*")
    options = ("--measures", "path_norm", "--samples", 50, "--no-line", "--json", "--out")
    read = json.loads(landscape("compare", *groups, *options, tmp_path / "a", "--control", "batch_size").out)
    told = json.loads(landscape("compare", *groups, *options, tmp_path / "b", "--memorized", "clean").out)
    assert read["memorization"]["path_norm"]["auc"] == 1 - told["memorization"]["path_norm"]["auc"]
    noisy = [s["measures"]["path_norm"]["value"] for s in read["groups"]["noisy"]]
    clean = [s["measures"]["path_norm"]["value"] for s in read["groups"]["clean"]]
    assert read["memorization"]["path_norm"]["auc"] == np.mean([[x > y for y in clean] for x in noisy])
    assert read["partial"] == {}, "the batch size is one for all"
    assert read["hyperparameters"]["noisy"][0] == {"corruption": "labels 0.4"}
    assert (tmp_path / "a" / "memorization.png").exists()
    for wrong, said in (("loud", "found no group 'loud'"), ("both", "found all of them")):
        marks = ("--memorized", "clean", "--memorized", "noisy") if wrong == "both" else ("--memorized", wrong)
        done = landscape("compare", *groups, *options, tmp_path / "c", *marks, code=2)
        assert f"expected --memorized as some of the groups clean, noisy, {said}" in done.error
    done = landscape("compare", *groups, *options, tmp_path / "c", "--control", "wdith", code=2)
    assert "expected a control that the runs record, found 'wdith'" in done.error
    assert "choose among train_loss, train_accuracy, network, network_options.widths, " in done.error
    assert done.err.splitlines() == [done.error], "before any work"


def test_unmatched_losses_are_warned_of(compared):
    document, _, errors, _ = compared
    assert "warning: TRAINING LOSSES DIFFER: median" in errors
    assert document["remarks"][0].startswith("TRAINING LOSSES DIFFER")


def test_a_barrier_that_is_half_the_difference_of_the_ends_is_told_as_no_hill(compared):
    """Both first runs start from one seed: the line falls from the slow one to the fast one all the way."""
    document, _, errors, _ = compared
    barriers = document["lines"]["slow to fast"]["barriers"]
    assert barriers["loss"]["at"] == 0
    told = [line for line in errors.splitlines() if "barrier in " in line]
    assert len(told) == len(barriers) == 4
    for line, (quantity, barrier) in zip(told, barriers.items(), strict=True):
        if barrier["at"] in (0, 1):
            extreme = "lowest" if "accuracy" in quantity else "highest"
            assert line.startswith("slow to fast: no barrier in ")
            assert f"{extreme} at an end, a = {barrier['at']:.3g}; " in line
        else:
            assert line.startswith("slow to fast: barrier in ")
            assert line.endswith(f", at a = {barrier['at']:.3g}")


@pytest.mark.parametrize(
    ("height", "at", "told"),
    [
        (0.25, 0.5, "a to b: barrier in loss: 0.25 ± 0.02, at a = 0.5"),
        (0.25, 1.0, "a to b: no barrier in loss: highest at an end, a = 1; 0.25 ± 0.02 from the mean of both ends"),
        (math.inf, 1.0, "a to b: barrier in loss: infinite, at a = 1"),
    ],
)
def test_a_barrier_inside_the_line_is_told_plainly(height, at, told, capsys):
    ends = Comparison({"a": [], "b": []}, None, {}, {})
    a = np.linspace(0, 1, 3)
    piece = Slice(("a",), (a,), {"loss": a}, {}, None, "", {}, {"loss": Barrier(height, 0.01, at, 0.1)})
    _tell(Terminal(json=False), ends, {"a to b": piece})
    assert told in capsys.readouterr().out.splitlines()


def test_the_files(compared):
    document, _, _, out = compared
    held = {p.name for p in out.iterdir()}
    pictures = {
        f"{name}.{kind}" for name in ("measures", "effects", "memorization", "correlation", "line-1") for kind in ("png", "pdf")
    }
    assert held == {"run.json", "comparison.json", "runs.csv", "statistics.csv", *pictures}
    with open(out / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["group"] for r in rows] == ["slow"] * 5 + ["fast"] * 5
    for row, s in zip(rows, [s for g in document["groups"].values() for s in g], strict=True):
        assert row["sha256"] == s["sha256"]
        assert float(row["trace"]) == s["measures"]["trace"]["value"]
        assert float(row["trace_stderr"]) == s["measures"]["trace"]["stderr"]
        assert float(row["hyperparameter.lr"]) in (0.05, 0.2)
        assert float(row["gap"]) == pytest.approx(float(row["train_accuracy"]) - float(row["test_accuracy"]))
    with open(out / "statistics.csv", newline="") as file:
        rows = {r["quantity"]: r for r in csv.DictReader(file)}
    assert list(rows) == ["trace", "path_norm", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "gap"]
    difference = next(d for d in document["differences"] if d["name"] == "gap")
    assert float(rows["gap"]["q"]) == difference["q"]
    assert float(rows["trace"]["psi"]) == document["granulated"]["trace"]["psi"]


def test_a_matched_loss_leaves_out_runs_by_name(runs, compared, tmp_path):
    losses = [e["value"] for e in compared[0]["scores"]["train_loss"]["slow"]]
    aim = sorted(losses)[2]
    kept = [x for x in losses if aim / 1.02 <= x <= aim * 1.02]
    assert 0 < len(kept) < 5
    done = landscape(
        "compare", "--group", f"slow={runs}/slow-*", *FEW, "--no-line", "--json", "--out", tmp_path / "o",
        "--match-loss", aim, "--match-factor", 1.02,
    )  # fmt: skip
    document = json.loads(done.out)
    assert len(document["groups"]["slow"]) == len(kept)
    assert len(document["excluded"]) == 5 - len(kept)
    assert document["match"] == {"loss": aim, "factor": 1.02}
    for run in document["excluded"]:
        assert Path(run["checkpoint"]).name in done.err
        assert "training loss" in run["reason"]


def test_what_counts_as_matched():
    match = Match(0.01, 1.25)
    assert match.refusal(0.0081) is None
    assert match.refusal(0.0124) is None
    assert match.refusal(0.0079) == "training loss 0.0079, not within 0.008 to 0.0125"
    assert match.refusal(math.nan) is not None
    with pytest.raises(UsageError, match="expected --match-loss as a positive number, found -1"):
        Match(-1, 1.25)
    with pytest.raises(UsageError, match="expected --match-factor above 1, found 1"):
        Match(0.01, 1.0)
    with pytest.raises(UsageError, match="expected --batchnorm recalibrate, interpolate or eval, found 'train'"):
        Lines(5, "train")


def test_a_bad_file_is_named_and_the_rest_compared(runs, tmp_path):
    """Three groups, one with a file that is none, one of another architecture."""
    (tmp_path / "slow-bad.pt").write_bytes(b"\x00" * 100)
    for seed in (0, 1):
        (tmp_path / f"slow-{seed}.safetensors").symlink_to(runs / f"slow-{seed}.safetensors")
    done = landscape(
        "compare", "--group", f"slow={tmp_path}/slow-*", "--group", f"fast={runs}/fast-[01]*", "--group", f"cnn={runs}/cnn-*",
        *FEW, "--grid", 3, "--json", "--out", tmp_path / "o", code=4,
    )  # fmt: skip
    document = json.loads(done.out)
    assert {name: len(group) for name, group in document["groups"].items()} == {"slow": 2, "fast": 2, "cnn": 2}
    assert "slow-bad.pt" in done.err
    assert (tmp_path / "o" / "comparison.json").exists()
    assert list(document["lines"]) == ["slow to fast"]
    assert "no line from fast to cnn" in done.err
    assert "fewer than 5 runs in slow (2), fast (2), cnn (2)" in done.err
    remarks = ("note:", "warning:", "wrote", "error:", "probes:", "not at a minimum")
    tables = [line for line in done.err.splitlines() if not line.startswith(remarks)]
    assert max(map(len, tables)) <= 130
    for words in ("Cliff's δ", "Kendall's τ", "slow / cnn", "train_loss", "granulated Ψ"):
        assert any(words in line for line in tables)


def test_batchnorm_along_the_line(runs, tmp_path):
    """What each of the three does to the numbers is tested where the line is; here, that the option arrives."""
    done = landscape(
        "compare", runs / "cnn-0.safetensors", runs / "cnn-1.safetensors", "--samples", 100, "--measures", "trace", "--grid", 5,
        "--batchnorm", "interpolate", "--json", "--out", tmp_path / "o",
    )  # fmt: skip
    (piece,) = json.loads(done.out)["lines"].values()
    assert piece["title"] == "Loss on the line from cnn-0 to cnn-1, on the data of cnn-0, BatchNorm interpolated"
    assert piece["provenance"]["batchnorm"] == "statistics interpolated"
    assert "cnn-0 to cnn-1: BatchNorm statistics interpolated" in done.err
    assert "1 against 1 runs: the smallest p-value they can give is 2/2 = 1" in done.err


def test_a_loss_that_no_run_is_near(runs, tmp_path):
    both = (runs / "slow-0.safetensors", runs / "slow-1.safetensors")
    done = landscape("compare", *both, "--match-loss", "1e-9", cwd=tmp_path, code=2)
    assert "expected runs near a training loss of 1e-09" in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("error:")]) == 1
    assert not list(tmp_path.iterdir()), "a run that failed owns nothing"


def test_a_directory_of_another_run_is_refused_before_any_work(compared, tmp_path):
    """Named before the first checkpoint is opened: nothing measured is lost at the end."""
    from landscape.cli.output_directory import OutputDirectory
    from landscape.errors import UsageError

    out = compared[3]
    record = json.loads((out / "run.json").read_text())
    OutputDirectory.allow(out, {"command": "compare", "files": record["files"]})
    with pytest.raises(UsageError, match="it differs in files"):
        OutputDirectory.allow(out, {"command": "compare", "files": {"slow": ["x.pt"]}})
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "below"):
        with pytest.raises(UsageError, match="is a file; choose another --out"):
            OutputDirectory.allow(path, {})
    OutputDirectory.allow(tmp_path / "new" / "deeper", {})
