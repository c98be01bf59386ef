"""`landscape reparam` on a network of attention: every family, a condition number, a target, and an attack."""

import json
import re
from pathlib import Path

import pytest
import torch
from in_process import Done, landscape
from safetensors.torch import load_file, save_file
from torch import nn

TASK = """\
import torch
from torch import nn
from torch.nn import functional as F
from landscape import Task


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 8, bias=False), nn.Linear(8, 3)
        self.norm = nn.LayerNorm(8)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        x = self.norm(self.embed(x))
        q, k, v = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = (torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v).transpose(1, 2).flatten(2)
        return self.head(F.relu(self.out(x)).mean(1))


def task():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, 3, generator=g)
    return Task(Net(), nn.CrossEntropyLoss(), (x, torch.arange(40) % 3))
"""
MEASURES = ("--measures", "adaptive_trace,weight_curvature,logit_norm")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task and a checkpoint of attention; another network without any symmetry."""
    folder = tmp_path_factory.mktemp("attention")
    (folder / "task.py").write_text(TASK)
    space: dict[str, type[nn.Module]] = {}
    exec(TASK, space)
    torch.manual_seed(0)
    save_file(space["Net"]().state_dict(), folder / "net.safetensors")
    return folder


def reparam(here: Path, *arguments: object, code: int = 0) -> Done:
    return landscape("reparam", "net.safetensors", "--task", "task.py", *arguments, cwd=here, code=code)


@pytest.fixture(scope="module")
def every(here: Path) -> tuple[dict, str]:
    done = reparam(here, "--symmetry", "all", "--alpha", 3, "--condition", 20, *MEASURES, "--out", "all")
    return json.loads((here / "all" / "certificate.json").read_text()), done.out


def test_every_family_has_its_section_its_checkpoint_and_its_column(here: Path, every: tuple[dict, str]) -> None:
    document, text = every
    names = ["pair", "rotation", "norm-out", "norm-in", "shift", "bias"]
    assert [name for name in document["families"] if name in names] == names
    assert document["survivors"] == []
    sections = {"layer": document, "node": document["node"], **document["families"]}
    together = sections.pop("together")
    assert list(sections) == [name for name in sections if name in together["symmetry"].split(" + ")]
    old = load_file(here / "all" / "rescaled.safetensors")
    for name, section in sections.items():
        assert section["symmetry"] == section["rescaling"] == name
        assert section["same_function"]
        moved = load_file(here / section["rescaled"])
        assert any(not torch.equal(moved[key], old[key]) for key in old) or name == "layer"
    assert sections["pair"]["condition"] == 20
    verdicts = {name: {row["name"]: row["verdict"] for row in s["rows"]} for name, s in sections.items()}
    assert verdicts["pair"]["adaptive_trace"] == verdicts["shift"]["logit_norm"] == "moved"
    assert verdicts["pair"]["weight_curvature"] == verdicts["norm-in"]["adaptive_trace"] == "invariant"
    assert sections["norm-in"]["nearly"]
    assert sections["shift"]["constant"]
    head = next(line for line in text.splitlines() if line.startswith("after / before"))
    assert head.split()[3:] == [*sections, "together"]
    assert verdicts["bias"] == {"adaptive_trace": "moved", "weight_curvature": "moved", "logit_norm": "invariant"}
    assert together["same_function"]
    assert "nearly the same function, " in text
    assert "relative, because of eps: max |Δlogit| = " in text
    assert "but for one constant a sample, which the loss ignores" in text
    assert (here / "all" / "symmetries.png").stat().st_size > 5000


def test_the_symmetries_are_listed_in_words(every: tuple[dict, str]) -> None:
    lines = every[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("pair, rotation: channels that a matrix may mix: "))
    assert any("(4 channels): any invertible matrix" in line for line in lines[start : start + 8])
    for title in (
        "shift: constants that the function ignores",
        "bias, shift: constants that one takes from another",
        "bias: constants that a row of weights takes from a bias",
        "norm-in: scales that a normalization takes away but for its eps",
    ):
        assert any(line.startswith(title) for line in lines)
    assert "  q.weight: reads what a LayerNorm has centred (8 rows)" in lines


def test_the_report_shows_every_family(here: Path, every: tuple[dict, str]) -> None:
    landscape("report", here / "all", "--out", here / "report.html")
    page = (here / "report.html").read_text()
    for words in (
        ", layer: rescaling whole layers",
        ", node: rescaling single neurons",
        ", pair: matrices",
        ", norm-in: rescaling",
    ):
        assert words in page


def test_a_target_of_pairs_is_a_condition_number(here: Path, every: tuple[dict, str]) -> None:
    start = json.loads((here / "all" / "certificate.json").read_text())["rows"][0]["before"]["value"]
    reparam(
        here, "--symmetry", "pair", "--target", f"adaptive_trace={30 * start}", "--measures", "adaptive_trace", "--out", "t"
    )
    document = json.loads((here / "t" / "certificate.json").read_text())
    assert document["rescaling"] == "pair"
    assert document["condition"] > 10
    assert document["rows"][0]["after"]["value"] == pytest.approx(30 * start, rel=2e-3)


def test_an_attack_says_how_far_it_came(here: Path) -> None:
    done = reparam(here, "--attack", "logit_norm", "--symmetry", "pair,shift", "--measures", "logit_norm", "--out", "a")
    document = json.loads((here / "a" / "certificate.json").read_text())
    assert document["attack"]["best"] > document["attack"]["start"]
    said = re.findall(r"forecast: (\d+) evaluations of logit_norm, about \S+ m?s", done.err)
    assert said == [str(document["attack"]["evaluations"])], "said before it starts, and what it took"
    assert set(document["attack"]["gains"]) == {"shift"}
    assert document["attack"]["best"] == pytest.approx(document["rows"][0]["after"]["value"])
    assert "a lower bound on the worst case along shift" in done.out
    done = reparam(here, "--attack", "logit_norm", "--symmetry", "pair", "--measures", "logit_norm", "--out", "b")
    assert "nothing moved logit_norm: " in done.out


@pytest.mark.slow
def test_an_attack_along_all_families_keeps_to_its_evaluations(here: Path) -> None:
    reparam(here, "--attack", "adaptive_trace", "--measures", "adaptive_trace", "--out", "climbed")
    document = json.loads((here / "climbed" / "certificate.json").read_text())
    assert document["attack"]["evaluations"] <= 120
    assert document["same_function"]
    assert "bias" in document["attack"]["families"]
    assert document["attack"]["best"] > 1000 * document["attack"]["start"]


def test_a_move_that_float32_cannot_hold_is_refused_before_anything_is_measured(here: Path) -> None:
    done = reparam(here, "--symmetry", "all", "--alpha", 30, "--condition", 5000, *MEASURES, "--out", "far", code=6)
    assert "expected outputs to change by at most" in done.error
    assert "forecast" not in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--symmetry", "twist"), "expected --symmetry with a family, found 'twist'"),
        (("--symmetry", "pair", "--condition", 1e5), "condition number from 1 to 8.4e+03"),
        (("--symmetry", "pair", "--alpha", 3), "expected --alpha with --symmetry layer, node, norm-out"),
        (("--symmetry", "node", "--condition", 3), "expected --condition with --symmetry pair, found node"),
        (("--symmetry", "shift", "--target", "trace=3"), "expected --target with --symmetry layer or pair, found shift"),
        (("--symmetry", "pair", "--node"), "expected --node with --symmetry node, found pair"),
        (("--attack", "trace", "--sweep", 2), "expected --attack or --sweep, found both"),
        (("--attack", "sharpish"), "expected a measure, found 'sharpish'"),
        (("--condition", "-3"), "expected a positive --condition, found -3"),
        (
            ("--symmetry", "pair", "--target", "weight_curvature=3"),
            "a measure that pair moves, found weight_curvature, which is",
        ),
        pytest.param(
            ("--symmetry", "pair", "--target", "adaptive_trace=1e-9"),
            "a target that some condition number in [1, ",
            marks=pytest.mark.slow,
        ),
        (("--target", "trace"), "expected --target MEASURE=VALUE, found 'trace'"),
        (("--target", "sharpish=3"), "expected a measure, found 'sharpish'"),
    ],
)
def test_a_mistake_is_one_line(here: Path, options: tuple[object, ...], words: str) -> None:
    assert words in reparam(here, *options, "--out", "never", code=2).error


def test_a_loss_of_model_and_batch_has_no_outputs_to_compare(here: Path, tmp_path: Path) -> None:
    own = "ModelLoss(lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]))"
    task = TASK.replace("import Task", "import ModelLoss, Task").replace("nn.CrossEntropyLoss()", own)
    (tmp_path / "task.py").write_text(task)
    done = landscape("reparam", here / "net.safetensors", "--task", "task.py", cwd=tmp_path, code=2)
    assert "found one of (model, batch): the function is compared by its outputs" in done.error


def test_a_network_without_symmetry(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import torch\nfrom torch import nn\nfrom landscape import Task\n\n\ndef task():\n"
        "    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))\n"
        "    return Task(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), nn.MSELoss(), (x, x[:, :2]))\n"
    )
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    error = landscape("reparam", "net.safetensors", "--task", "task.py", cwd=tmp_path, code=2).error
    assert "expected a symmetry, found none (" in error
    assert "tanh" in error


NEARLY = """\
import torch
from torch import nn
from landscape import Task


def task():
    norm = nn.LayerNorm(5, eps=1.0, elementwise_affine=False)
    net = nn.Sequential(nn.Linear(3, 5, bias=False), norm, nn.Sigmoid(), nn.Linear(5, 3))
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    x[:2] *= 30  # those that a trace sees hide what an eps does to the others
    return Task(net, nn.CrossEntropyLoss(), (x, torch.arange(60) % 3))
"""


def test_a_family_that_holds_only_nearly_is_checked_on_all_samples_and_says_by_how_much(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(NEARLY)
    space: dict = {}
    exec(NEARLY, space)
    torch.manual_seed(0)
    save_file(space["task"]().model.state_dict(), tmp_path / "net.safetensors")
    given = ("reparam", "net.safetensors", "--task", "task.py", "--measures", "weight_curvature", "--alpha", 0.5)
    done = landscape(*given, "--symmetry", "norm-in", "--out", "one", cwd=tmp_path, code=6)
    assert "along norm-in, which holds only nearly because of an eps, found " in done.error
    assert "forecast" not in done.err
    done = landscape(*given, "--symmetry", "all", "--out", "every", cwd=tmp_path)
    assert "note: norm-in is left out: expected outputs to change by at most 1%" in done.err
    document = json.loads((tmp_path / "every" / "certificate.json").read_text())
    assert document["symmetry"] == "shift"
    assert document["survivors"] == ["weight_curvature"]
