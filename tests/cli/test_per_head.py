"""`landscape spectrum --per-head` from the command line to the files."""

import csv
import json
from pathlib import Path

import pytest
import torch
from in_process import run
from torch import nn

TASK = """import torch
from torch import nn
from landscape import Task

def task():
    torch.manual_seed(1)
    net = nn.Sequential(LAYER, nn.Flatten(), nn.Linear(12, 3))
    return Task(model=net, loss=nn.CrossEntropyLoss(), train=(torch.randn(12, 3, 4), torch.arange(12) % 3))
"""
FEW = ("--probes", 2, "--steps", 6, "-k", 1, "--allow-unconverged", "--json", "--clean")


@pytest.fixture
def made(tmp_path):
    def write(layer: str, module: nn.Module):
        torch.manual_seed(0)
        torch.save(nn.Sequential(module, nn.Flatten(), nn.Linear(12, 3)).state_dict(), tmp_path / "net.pt")
        (tmp_path / "task.py").write_text(TASK.replace("LAYER", layer))
        return (tmp_path / "net.pt", "--task", tmp_path / "task.py", *FEW, "--out", tmp_path / "out")

    return write


def test_heads_in_table_json_csv_and_picture(made, capfd, tmp_path) -> None:
    layer = "nn.TransformerEncoderLayer(4, 2, 6, 0.0, batch_first=True)"
    done = run(capfd, "spectrum", *made(layer, nn.TransformerEncoderLayer(4, 2, 6, 0.0, batch_first=True)), "--per-head")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    schema = json.loads((Path(__file__).resolve().parents[2] / "docs" / "schemas" / "documents.schema.json").read_text())
    jsonschema = pytest.importorskip("jsonschema", reason="an extra of dev: pip install jsonschema")
    jsonschema.Draft202012Validator({**schema, "$ref": "#/$defs/spectrum"}).validate(document)
    assert [(b["layer"], b["head"], b["shared"], b["weights"]) for b in document["heads"]] == [
        ("0.self_attn", h, 0, 6 * 4 + 6 + 8) for h in (0, 1)
    ]
    assert sum(b["share"] for b in document["layers"]) == pytest.approx(1, abs=1e-5)
    assert "0.self_attn head 1" in done.err
    rows = list(csv.DictReader((tmp_path / "out" / "blocks.csv").read_text().splitlines()))
    assert [r["head"] for r in rows if r["head"]] == ["0", "1"]
    assert (tmp_path / "out" / "heads.png").stat().st_size > 1000


def test_a_network_without_attention_is_told(made, capfd, tmp_path) -> None:
    done = run(capfd, "spectrum", *made("nn.Linear(4, 4)", nn.Linear(4, 4)), "--per-head")
    assert done.code == 0, done.err
    assert "no attention layer found" in done.err
    assert json.loads(done.out)["heads"] == []
    assert not (tmp_path / "out" / "heads.png").exists()
