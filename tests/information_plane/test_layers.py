"""The layers of a network in the information plane: choice of layers, halves, the result, the command, the figure."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import landscape as ls
from landscape.cli import app
from landscape.errors import UsageError
from landscape.report import draw_information, figure_information
from landscape.results import Information

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(64, 5, generator=G), torch.arange(64) % 3

TASK = """
import torch
from landscape import Task

def task():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 5, generator=g), torch.arange(64) % 3
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    return Task(model=net, loss=torch.nn.CrossEntropyLoss(), train=(x, y), test=(x[:20], y[:20]))
"""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def objective(**options) -> ls.Objective:
    return ls.Objective(network(), nn.CrossEntropyLoss(), (X, Y), **options)


def test_numbers_are_those_of_the_activations():
    found = ls.information(objective(), noise=0.1)
    h = torch.tanh(network()[0](X)).detach().numpy()
    by_hand = ls.mutual_information(h, Y.numpy(), noise=0.1)
    rows = {r.estimator: r for r in found.rows if r.layer == "1"}
    assert set(rows) == {"binned", "kde_lower", "kde_upper", "knn"}
    for name in ("binned", "kde_lower", "kde_upper"):
        assert rows[name].whole.inputs == pytest.approx(by_hand[name].inputs, abs=1e-5)
        assert rows[name].whole.labels == pytest.approx(by_hand[name].labels, abs=1e-5)
    assert abs(rows["knn"].whole.inputs - by_hand["knn"].inputs) < 0.6  # other noise
    assert rows["kde_lower"].whole.inputs < rows["kde_upper"].whole.inputs
    assert [r.layer for r in found.rows] == ["1"] * 4 + ["output"] * 4
    assert {r.units for r in found.rows if r.layer == "output"} == {3}
    assert found.label_entropy == pytest.approx(math.log2(3), abs=1e-3)
    assert found.largest == 6.0


def test_a_saturated_layer_has_one_bit_less_from_half_of_the_samples_and_is_named():
    found = ls.information(objective(), noise=1e-9, bins=30_000)
    for row in found.rows:
        assert row.whole.inputs == pytest.approx(6.0, abs=1e-9)
        assert row.half.inputs == pytest.approx(5.0, abs=1e-9)
    assert "64 samples: at most log2 N = 6.00 bits; H(Y) = 1.585 bits" in str(found)
    assert "I(T;X) of 1, output is within 5 % of log2 N" in str(found)
    loose = ls.information(objective(), layers=["1"], estimators=["kde"], noise=5.0)
    assert "within 5 %" not in str(loose)
    assert loose.settings == {"noise": 5.0}
    difference = loose.rows[0].whole.inputs - loose.rows[0].half.inputs
    assert abs(difference) < 0.1


def test_an_estimate_below_the_lower_bound_is_named():
    wide = nn.Sequential(nn.Linear(5, 200), nn.ReLU(), nn.Linear(200, 3))
    found = ls.information(ls.Objective(wide, nn.CrossEntropyLoss(), (X, Y)), layers=["1"], noise=0.8)
    low, knn = ({r.estimator: r for r in found.rows}[name].whole.inputs for name in ("kde_lower", "knn"))
    assert knn < low - 0.05
    assert "knn of 1 is below kde_lower" in str(found)


def test_layers_by_pattern_and_seed():
    names = [r.layer for r in ls.information(objective(), layers=["output", "[01]"], estimators=["binned"]).rows]
    assert names == ["0", "1", "output"]
    with pytest.raises(UsageError, match="expected layers of the network, found 'relu'; choose from 0, 1, 2, output"):
        ls.information(objective(), layers=["0", "relu"])
    one, same, other = (
        ls.information(objective(), estimators=["knn"], generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert one.rows == same.rows
    assert one.rows != other.rows


def test_targets_that_are_no_classes_leave_the_labels_out():
    regression = ls.Objective(network(), nn.MSELoss(), (X, torch.zeros(64, 3)))
    found = ls.information(regression, estimators=["binned", "kde"])
    assert found.label_entropy is None
    assert all(r.whole.labels is None for r in found.rows)
    assert found.rows[0].row()[5:] == ("", "")
    assert len(draw_information(found)) == 1
    assert Information.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(UsageError, match="at least 4 samples, found 3"):
        ls.information(regression.subset(3))


def test_copies_that_do_not_fit_are_refused_before_they_are_made():
    with pytest.raises(UsageError, match="noisy copies of layer 1 in at most"):
        ls.information(objective(), copies=10**12)


def test_the_result_goes_through_json_and_is_drawn():
    found = ls.information(objective(), noise=0.1)
    again = Information.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    inputs, labels = draw_information(found)
    drawn = {(round(float(x), 3), round(float(y), 6)) for line in inputs.lines for x, y in line.get_xydata()}
    row = next(r for r in found.rows if r.layer == "output" and r.estimator == "binned")
    assert any(0.5 < x < 1.5 and y == round(row.whole.inputs, 6) for x, y in drawn)
    assert any(0.5 < x < 1.5 and y == round(row.half.inputs, 6) for x, y in drawn)
    assert [t.get_text() for t in labels.get_xticklabels()] == ["1", "output"]
    text = figure_information(found).get_supxlabel()
    assert "30 bins over each layer's range; noise variance 0.1" in text
    assert "at most log2 N = 6.00 bits" in text.replace("\n", " ")


def test_the_command(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(network().state_dict(), "net.safetensors")
    (tmp_path / "task.py").write_text(TASK)
    net = ["landscape", "information", "net.safetensors", "--task", "task.py"]

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", [*net, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            app.run()
        return (int(end.value.code or 0), *capfd.readouterr())

    code, out, err = run("--json", "--out", "out", "--bins", 7, "--estimator", "binned,kde", "--split", "test")
    assert code == 0, err
    document = json.loads(out)
    assert json.loads((tmp_path / "out" / "information.json").read_text()) == document
    assert (tmp_path / "out" / "information.png").stat().st_size > 1000
    assert document["samples"] == 20
    assert document["settings"] == {"bins": 7, "noise": 1e-3}
    task = ls.load("net.safetensors", task="task.py")
    expected = ls.information(
        task.objective("test"), bins=7, estimators=["binned", "kde"], generator=torch.Generator().manual_seed(0)
    )
    assert [layer["inputs"]["value"] for layer in document["layers"]] == [r.whole.inputs for r in expected.rows]
    assert [layer["inputs"]["half"] for layer in document["layers"]] == [r.half.inputs for r in expected.rows]
    assert "I(T;X) bits" in err

    code, out, _ = run("--samples", 10, "--layers", "output", "--noise", 0.3, "--neighbours", 2, "--copies", 4)
    assert code == 0
    assert "at most log2 N = 3.32 bits" in out
    assert not np.any([line.startswith("1 ") for line in out.splitlines()])
    code, _, err = run("--estimator", "mine")
    assert code == 2
    assert "error: expected estimators among binned, kde, knn, found 'mine'" in err
    code, _, err = run("--layers", ",")
    assert code == 2
    assert "expected names with --layers" in err
