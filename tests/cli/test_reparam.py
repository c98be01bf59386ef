"""`landscape reparam` as a person or a program meets it, on real networks trained here."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from in_process import landscape
from safetensors.torch import load_file, save_file
from torch import nn

from landscape.measures import MEASURES

FEW = ("--samples", 60)
QUICK = "trace,adaptive_trace,layer_relative_trace,keskar,path_norm,logit_norm"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "net.safetensors"
    landscape("train", "digits-mlp", "--epochs", 2, "-M", "widths=[8, 6]", "--out", path)
    return path


@pytest.fixture(scope="module")
def both(net: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """One run of the command as it is: its folder, what it printed, and what it remarked."""
    out = tmp_path_factory.mktemp("both") / "o"
    done = landscape("reparam", net, "--alpha", 4, "--sweep", 2, "--measures", QUICK, *FEW, "--out", out)
    return out, done.out, done.err


def factors(path: Path, other: Path) -> dict[str, torch.Tensor]:
    """After over before of every tensor, where the weights before are not 0."""
    old, new = load_file(path), load_file(other)
    return {k: (new[k].double() / v.double())[v != 0] for k, v in old.items()}


def test_one_command_certifies_both_symmetries(both: tuple[Path, str, str]) -> None:
    document = json.loads((both[0] / "certificate.json").read_text())
    first, node = document, document["node"]
    assert (first["rescaling"], first["symmetry"], first["alpha"]) == ("layer", "layer", 4)
    assert (node["rescaling"], node["symmetry"], node["alpha"]) == ("node", "node", 4)
    assert first["same_function"]
    assert node["same_function"]
    verdicts = [{row["name"]: row["verdict"] for row in c["rows"]} for c in (first, node)]
    assert list(verdicts[0]) == list(verdicts[1]) == QUICK.split(",")
    for v in verdicts:
        assert v["adaptive_trace"] == v["path_norm"] == v["logit_norm"] == "invariant"
    # What is invariant to layer-wise rescaling only is caught by the second certificate.
    assert [v["layer_relative_trace"] for v in verdicts] == ["invariant", "moved"]
    assert verdicts[0]["trace"] == verdicts[0]["keskar"] == "moved"


def test_before_is_one_computation_for_all_certificates(both: tuple[Path, str, str]) -> None:
    document = json.loads((both[0] / "certificate.json").read_text())
    every = [document, document["node"], *document["sweep"]]
    assert len(every) == 6
    assert all([row["before"] for row in c["rows"]] == [row["before"] for row in document["rows"]] for c in every)


def test_the_sweep_is_recorded_for_both_and_continuous(both: tuple[Path, str, str]) -> None:
    document = json.loads((both[0] / "certificate.json").read_text())
    for rescaling in ("layer", "node"):
        points = [p for p in document["sweep"] if p["rescaling"] == rescaling]
        assert [p["alpha"] for p in points] == pytest.approx([0.25, 2])
    scaling = {p["alpha"]: p["scaling"] for p in [document["node"], *document["sweep"]] if p["rescaling"] == "node"}
    # One exponent a neuron: at alpha = 2 every factor is the square root of the one at 4, at 1/4 its inverse.
    largest = scaling[4]["fc1.bias"][1]
    assert 1 < largest <= 4
    assert scaling[2]["fc1.bias"][1] == pytest.approx(math.sqrt(largest), rel=1e-5)
    assert scaling[0.25]["fc1.bias"][0] == pytest.approx(1 / largest, rel=1e-5)


def test_both_rescaled_checkpoints_are_what_they_say(net: Path, both: tuple[Path, str, str]) -> None:
    layer, node = (factors(net, both[0] / name) for name in ("rescaled.safetensors", "rescaled-node.safetensors"))
    assert {round(float(x), 4) for x in layer["fc1.weight"]} == {4.0}
    assert {round(float(x), 4) for x in layer["fc2.weight"]} == {0.25}
    assert {round(float(x), 4) for x in layer["fc3.weight"]} == {1.0}
    assert node["fc1.bias"].std() > 0.3
    assert 0.25 - 1e-6 <= node["fc1.bias"].min() < node["fc1.bias"].max() <= 4 + 1e-6
    again = json.loads(landscape("sharpness", both[0] / "rescaled-node.safetensors", *FEW, "--measures", "trace", "--json").out)
    rows = {row["name"]: row for row in json.loads((both[0] / "certificate.json").read_text())["node"]["rows"]}
    assert again["results"][0]["measures"]["trace"]["value"] == pytest.approx(rows["trace"]["after"]["value"], rel=1e-5)


def test_people_see_both_tables_the_forecast_and_a_verdict_each(both: tuple[Path, str, str]) -> None:
    _, text, remarks = both
    assert "forecast: 6 measures of 7 networks, about" in remarks
    lines = text.splitlines()
    assert [line for line in lines if len(line) > 130 and "as claimed" not in line] == []  # sentences may wrap
    for words in ("layer-wise, fc1, alpha = 4", "node-wise, every neuron, alpha = 4"):
        start = next(i for i, line in enumerate(lines) if line.startswith(words))
        assert lines[start + 1].startswith("the same function: max |Δlogit| = ")
        assert lines[start + 2].split() == ["measure", "before", "after", "ratio", "verdict"]
        assert lines[start + 3].startswith("trace ")
        assert " ± " in lines[start + 3]
        assert "≥ " in lines[start + 6]
    assert sum("invariant, as claimed" in line for line in lines) == 6


def test_the_figure_and_the_report_show_both(both: tuple[Path, str, str], tmp_path: Path) -> None:
    for name in ("certificate.png", "certificate.pdf"):
        assert (both[0] / name).stat().st_size > 5000
    landscape("report", both[0], "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count('-title">net.safetensors (') == 1
    assert page.count("<h4>net.safetensors (") == 2
    assert ", layer: rescaling whole layers</h4>" in page
    assert ", node: rescaling single neurons</h4>" in page
    assert page.count('<th scope="col">α = ') == 6


@pytest.mark.parametrize(("option", "rescaling"), [(("--node",), "node"), (("--layer", "fc2"), "layer")])
def test_asking_for_one_symmetry_gives_one(net: Path, tmp_path: Path, option: tuple[str, ...], rescaling: str) -> None:
    done = landscape("reparam", net, *option, "--measures", "trace,adaptive_trace", *FEW, "--json", "--out", tmp_path / "o")
    document = json.loads(done.out)
    assert document["rescaling"] == document["symmetry"] == rescaling
    assert document["node"] is None
    assert document["sweep"] == []
    assert not (tmp_path / "o" / "rescaled-node.safetensors").exists()
    moved = {k for k, f in factors(net, tmp_path / "o" / "rescaled.safetensors").items() if ((f - 1).abs() > 1e-3).any()}
    assert moved == {"fc2.weight", "fc2.bias", "fc3.weight"} | ({"fc1.weight", "fc1.bias"} if rescaling == "node" else set())


def test_a_network_whose_layers_are_read_in_part_and_measures_that_it_does_not_have(tmp_path: Path) -> None:
    """A concatenation: parts of a tensor follow a layer. A regression: it has no classes."""
    (tmp_path / "task.py").write_text(
        "import torch\nfrom torch import nn\nfrom landscape import Task\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(9, 2)\n\n"
        "    def forward(self, x):\n        h = torch.relu(self.a(x))\n"
        "        return self.c(torch.cat([h, torch.relu(self.b(h))], 1))\n\n\n"
        "def task():\n    g = torch.Generator().manual_seed(0)\n    x = torch.randn(40, 4, generator=g)\n"
        "    return Task(Net(), nn.MSELoss(), (x, torch.randn(40, 2, generator=g)))\n"
    )
    torch.manual_seed(0)
    a, b, c = nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(9, 2)
    state = {f"{n}.{k}": v for n, m in (("a", a), ("b", b), ("c", c)) for k, v in m.state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    measures = "adaptive_trace,layer_relative_trace,input_margin,adaptive_worst_l2_normalized"
    done = landscape(
        "reparam", "net.safetensors", "--task", "task.py", "--dtype", "float64", "--measures", measures, "--out", "o",
        cwd=tmp_path,
    )  # fmt: skip
    assert "the table tests the claims about neuron-wise rescaling" in done.out
    document = json.loads((tmp_path / "o" / "certificate.json").read_text())
    assert (document["rescaling"], document["symmetry"]) == ("layer", "node")
    for c in (document, document["node"]):
        verdicts = {row["name"]: row["verdict"] for row in c["rows"]}
        assert verdicts["adaptive_trace"] == "invariant"
        assert verdicts["layer_relative_trace"] == "moved"
        assert verdicts["input_margin"] == verdicts["adaptive_worst_l2_normalized"] == "not defined"
        assert c["rows"][2]["before"]["value"] is None
        assert c["provenance"]["rounding"] == 1e-6
    assert "input_margin: not defined" in done.out
    assert (tmp_path / "o" / "certificate-node.png").exists()


def test_a_sweep_leaves_out_what_batchnorm_cannot_take_up(tmp_path: Path) -> None:
    """A running variance near eps: the scale of the convolution before it can hardly shrink."""
    (tmp_path / "task.py").write_text(
        "import torch\nfrom torch import nn\nfrom landscape import Task\n\n\ndef task():\n"
        "    g = torch.Generator().manual_seed(0)\n    x = torch.randn(20, 3, generator=g)\n"
        "    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, eps=0.5), nn.Linear(4, 2))\n"
        "    return Task(net, nn.MSELoss(), (x, torch.randn(20, 2, generator=g)))\n"
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, eps=0.5), nn.Linear(4, 2))
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    done = landscape(
        "reparam", "net.safetensors", "--task", "task.py", "--layer", "0", "--sweep", 3, "--measures", "trace", "--json",
        "--out", "o", cwd=tmp_path,
    )  # fmt: skip
    assert [p["alpha"] for p in json.loads(done.out)["sweep"]] == pytest.approx([math.sqrt(5)])
    assert "left out of the layer-wise sweep: alpha below 0.577" in done.err


def test_a_broken_claim_fails_the_command(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that says too much is found out by the command itself, on every point."""
    monkeypatch.setitem(MEASURES, "trace", replace(MEASURES["trace"], invariant_to=("layer", "node")))
    done = landscape("reparam", net, "--measures", "trace", *FEW, "--out", tmp_path / "o", code=6)
    assert done.out.count("CLAIM BROKEN") == 4  # in both tables and both verdicts
    assert "found that trace changed" in done.err


def test_a_bad_sweep_is_one_line(net: Path, tmp_path: Path) -> None:
    assert "--sweep" in landscape("reparam", net, "--sweep", "-1", cwd=tmp_path, code=2).err
