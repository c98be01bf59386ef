"""docs/architecture.md is followed: its table, picture and walk hold, and what it says to add is added and works."""

import ast
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from landscape.cli import app

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "landscape"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PROSE = re.sub(r"^```.*?^```$", "", PAGE, flags=re.DOTALL | re.MULTILINE)
EVERYBODYS = {"errors", "version"}

TASK = """
import torch
from landscape import Task

def task():
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 5, generator=random), torch.randint(0, 3, (64,), generator=random)
    network = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    return Task(model=network, loss=torch.nn.CrossEntropyLoss(), train=(x, y), test=None)
"""


def draw_architecture():
    """The script beside the page, as a module."""
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs" / "draw_architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checkpoint(folder: Path) -> nn.Module:
    """Writes net.safetensors and task.py; the network that they are of."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    save_file(network.state_dict(), folder / "net.safetensors")
    (folder / "task.py").write_text(TASK)
    return network


# --- the table and the picture ---


def allowed() -> dict[str, set[str]]:
    """Wing -> the wings that the page lets it import, from the top of the house down."""
    section = PROSE.partition("## The wings")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", section, re.MULTILINE)
    wings = {wing for wing, _ in rows}
    return {wing: wings - {wing} if cell == "all" else set(re.findall(r"\w+", cell)) | EVERYBODYS for wing, cell in rows}


def imported() -> dict[str, dict[str, str]]:
    """Wing -> wing that it imports -> a module which does."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(PACKAGE.rglob("*.py")):
        wing = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                package, _, rest = name.partition(".")
                other = rest.partition(".")[0]
                if package == "landscape" and other not in ("", wing):
                    found[wing].setdefault(other, str(path.relative_to(ROOT)))
    return found


def test_a_wing_imports_what_the_page_lets_it_import():
    found, page = imported(), allowed()
    assert found["surfaces"]["objective"].startswith("landscape/surfaces/"), "imports are found at all"
    wrong = {
        f"{wing} imports {other}": where
        for wing in page
        for other, where in found[wing].items()
        if other not in page[wing] and not other.startswith("__")
    }
    assert wrong == {}


def test_the_page_names_no_import_that_is_not_made():
    found = imported()
    idle = {wing: allows - set(found[wing]) - EVERYBODYS for wing, allows in allowed().items() if wing != "cli"}
    assert {wing: names for wing, names in idle.items() if names} == {}


def test_the_page_lets_no_wing_import_what_the_contract_forbids():
    layers = [[name for name, _ in layer] for layer in draw_architecture().source()["layers"]]
    page = allowed()
    assert sorted(page) == sorted(name for layer in layers for name in layer)
    for i, layer in enumerate(layers):
        below = {name for deeper in layers[i + 1 :] for name in deeper}
        for wing in layer:
            assert page[wing] - {wing} - EVERYBODYS <= below, wing


def test_the_picture_is_that_of_the_contract(tmp_path):
    script = draw_architecture()
    assert script.drawn() == script.source(), "the picture is out of date: run python docs/draw_architecture.py"
    assert "(architecture.png)" in PAGE
    other = {"layers": [[["top", "above"]], [["left", "below"], ["right", ""]]]}
    (tmp_path / "other.png").write_bytes(script.draw(other))
    assert script.drawn(tmp_path / "other.png") == other
    assert len(Image.open(tmp_path / "other.png").convert("RGB").getcolors(1 << 24)) > 10


# --- the walk ---


def named_files(text: str) -> list[str]:
    """Files and folders of the code that a text names, without landscape/ in front."""
    names = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", text)
    return [name.removeprefix("landscape/") for name in names]


def test_files_that_the_page_names_are_there():
    created = {path.removeprefix("landscape/") for path, language, _ in examples() if language == "py"}
    names = [n for n in named_files(PROSE) if n not in created and "FAMILY" not in n]
    assert len(names) > 50
    assert [n for n in names if not ((PACKAGE / n).exists() or (ROOT / n).exists())] == []


def test_the_walk_goes_where_the_number_goes(tmp_path, monkeypatch, capfd):
    checkpoint(tmp_path)
    monkeypatch.chdir(tmp_path)

    names = named_files(PROSE.partition("## One number")[2].partition("\n## ")[0])
    assert len(names) > 40
    for name in names:  # before the run, so that every call that is noted below is one of the run itself
        importlib.import_module(f"landscape.{name.removesuffix('.py').rstrip('/').replace('/', '.')}")
    line = "landscape sharpness net.safetensors --task task.py --measures lambda_max --out kept"
    monkeypatch.setattr(sys, "argv", line.split())
    called: set[str] = set()

    def note(frame, event, argument) -> None:
        if event == "call":
            called.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        with pytest.raises(SystemExit) as end:
            app.run()
    finally:
        sys.setprofile(None)
    out, err = capfd.readouterr()
    assert not end.value.code, err
    assert re.search(r"^lambda_max +[\d.]+ +residual", out, re.MULTILINE), "the number comes out"
    visited = {Path(name).relative_to(PACKAGE).as_posix() for name in called if name.startswith(f"{PACKAGE}/")}
    assert [name for name in names if not any(v == name or v.startswith(name) for v in visited)] == []


# --- what is new ---


def examples() -> list[tuple[str, str, str]]:
    """(file, "py" for a new one or "diff" for changes, text), in their order."""
    return re.findall(r"^`(landscape/[\w/]+\.py)`[^\n]*\n\n```(py|diff)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def changed(text: str, diff: str) -> str:
    """A text after changes: hunks are parted by a line of @@, and what they stand on is there exactly once."""
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = [line or " " for line in hunk.splitlines()]
        assert all(line[0] in " +-" for line in lines), hunk
        before = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+")
        after = "".join(f"{line[1:]}\n" for line in lines if line[0] != "-")
        assert f"\n{text}".count(f"\n{before}") == 1, f"the page changes lines that are not there, or not once:\n{before}"
        text = f"\n{text}".replace(f"\n{before}", f"\n{after}")[1:]
    return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package in which everything that the page adds is there, and a checkpoint."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, folder / "landscape")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for path, language, text in examples():
        place = folder / path
        if language == "py":
            assert not place.exists()
            assert place.parent.is_dir(), "a new file goes where others are"
            place.write_text(text)
        else:
            place.write_text(changed(place.read_text(), text))
    np.savez(folder / "net.npz", **{name: t.numpy() for name, t in checkpoint(folder).state_dict().items()})
    return folder


# One process for all commands: importing PyTorch takes longer than any of them.
RUN = """
import json, sys
from landscape.cli import app

for line in json.loads(sys.argv[1]):
    sys.argv = ["landscape", *line.split()]
    try:
        app.run()
    except SystemExit as end:
        assert not end.code, line
"""


@pytest.fixture(scope="module")
def printed(copy: Path) -> str:
    """What `landscape` prints in the copy: a measure of two kinds of files, and a surface along the new axis."""
    lines = [
        "sharpness net.safetensors net.npz --task task.py --measures gradient_norm --out measures",
        "surface net.safetensors --task task.py --directions descent --dim 1 --grid 5 --span -0.01 0.01 --out surface",
    ]
    where = os.environ | {"PYTHONPATH": str(copy)}
    command = [sys.executable, "-c", RUN, json.dumps(lines)]
    done = subprocess.run(command, cwd=copy, env=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_addition_has_an_example_of_at_most_three_files():
    section = PAGE.partition("## Where new things go")[2]
    for what in ("measure", "figure", "file format of a surface", "checkpoint format", "axis"):
        part = section.partition(f"### A new {what}\n")[2].partition("\n### ")[0]
        touched = re.findall(r"^`(landscape/[\w/]+\.py)`", part, re.MULTILINE)
        assert 2 <= len(touched) <= 3, what
    assert len(examples()) == section.count("```py") + section.count("```diff")


def test_additions_keep_to_the_style_and_to_the_contract(copy):
    where, tools = os.environ | {"PYTHONPATH": str(copy)}, Path(sys.executable).parent
    paths = [path for path, *_ in examples()]
    for command in (["ruff", "check", *paths], ["ruff", "format", "--check", *paths], ["lint-imports", "--no-cache"]):
        done = subprocess.run([tools / command[0], *command[1:]], cwd=copy, env=where, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_measure_is_computed_of_a_new_kind_of_file_too(copy, printed):
    results = json.loads((copy / "measures" / "sharpness.json").read_text())["results"]
    assert [result["checkpoint"] for result in results] == ["net.safetensors", "net.npz"]
    for result in results:
        found = result["measures"]["gradient_norm"]
        assert found["value"] == pytest.approx(norm_of_gradient(copy), rel=1e-5)
        assert (found["kind"], found["unit"], found["gradients"]) == ("exact", "loss / weight", 1)
    rows = re.findall(r"^gradient_norm +[\d.]+ +exact", printed, re.MULTILINE)
    assert len(rows) == 2, "a row in each table that a person reads"


def norm_of_gradient(folder: Path) -> float:
    """Of the checkpoint's loss, by autograd alone."""
    network, made = checkpoint(folder), {}
    exec(TASK, made)
    x, y = made["task"]().train
    slopes = torch.autograd.grad(nn.functional.cross_entropy(network(x), y), list(network.parameters()))
    return float(torch.cat([slope.flatten() for slope in slopes]).norm())


def test_a_new_axis_a_new_figure_and_a_new_format_are_there(copy, printed):
    found = json.loads((copy / "surface" / "surface.json").read_text())
    assert found["axes"] == ["steepest descent"]
    loss = np.array(found["values"]["loss"])
    assert (loss[0] - loss[-1]) / 0.02 == pytest.approx(norm_of_gradient(copy), rel=1e-3)
    with np.load(copy / "surface" / "surface.npz") as stored:
        assert np.array_equal(stored["loss"], loss)
        assert np.allclose(stored["axis_1"], np.linspace(-0.01, 0.01, 5), atol=0)
        assert (stored["loss_status"] == 1).all()
    with Image.open(copy / "surface" / "surface-sublevel.png") as picture:
        blue = (np.asarray(picture.convert("RGB")) == (0x00, 0x72, 0xB2)).all(-1)
    assert blue.sum() > 200, "its curve is drawn"
    assert (copy / "surface" / "surface-sublevel.pdf").read_bytes().startswith(b"%PDF")
