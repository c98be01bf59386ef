"""What a fresh interpreter has imported when a command is done: modules are counted, since times are noisy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from landscape.cli.app import COMMANDS, all_commands, one_command
from landscape.tasks import Recipe, train

HEAVY = ("torch", "numpy", "scipy", "matplotlib", "sklearn", "torchvision", "plotly", "pydantic", "pandas", "jinja2")
DRAWS = {"matplotlib"}


def imported(arguments: list[object], code: int = 0) -> set[str]:
    """Names of the modules that are there when the command ends."""
    line = (
        "import atexit, sys; atexit.register(lambda: print('\\nMODULES', *sys.modules, file=sys.stderr)); "
        f"sys.argv = ['landscape', *{list(map(str, arguments))!r}]; from landscape.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr[-2000:]
    return set(done.stderr.rpartition("MODULES ")[2].split())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("start") / "mlp.safetensors"
    train(Recipe(epochs=1, network_options={"widths": [4]}), out=path)
    return path


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    there = imported(arguments)
    assert there.isdisjoint(HEAVY), there & set(HEAVY)
    if len(arguments) == 2:
        others = {f"landscape.cli.commands.{name}" for name in COMMANDS if name != arguments[0]}
        # `demo` runs other commands, `report` measures what is not measured yet, `sweep` measures as `sharpness` does.
        assert arguments[0] in ("demo", "report", "sweep") or there.isdisjoint(others)


def test_a_command_alone_says_what_it_says_among_all():
    group = typer.main.get_command(all_commands())
    assert tuple(group.commands) == COMMANDS
    for name in COMMANDS:
        alone = typer.main.get_command(one_command(name))
        above = group.make_context("landscape", [name], resilient_parsing=True)
        texts = [
            command.get_help(type(above)(command, info_name=info, parent=parent, help_option_names=["-h", "--help"]))
            for command, info, parent in ((alone, f"landscape {name}", None), (group.commands[name], name, above))
        ]
        assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("command", "options", "needed"),
    [
        ("inspect", [], set()),
        ("sharpness", ["--measures", "lambda_max,trace,keskar:tol=0.01,sam", "--samples", 32], {"torch._dynamo"}),
        ("spectrum", ["--json", "--samples", 32, "--out", "{folder}/spectrum"], DRAWS),
        ("surface", ["--dim", 1, "--grid", 3, "--samples", 32, "--out", "{folder}/surface"], DRAWS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_commands_import_what_they_need(command, options, needed, checkpoint, tmp_path):
    """Digits without scikit-learn, measures without statistics.

    PyTorch's compiler takes a second; only the trace of a network for its marks needs it.
    """
    there = imported([command, checkpoint, *(str(o).format(folder=tmp_path) for o in options)])
    unwanted = {"matplotlib", "sklearn", "torchvision", "plotly", "pandas", "scipy.stats", "torch._dynamo"} - needed
    assert there.isdisjoint(unwanted), there & unwanted
    assert "torch" in there
    if command == "inspect":
        assert "scipy" not in there


@pytest.mark.parametrize("command", ["inspect", "sharpness"])
@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n", b"<html>"], ids=["missing", "empty", "picture", "page"])
def test_what_is_no_checkpoint_is_refused_without_torch(command, content, tmp_path):
    file = tmp_path / "net.pt"
    if content is not None:
        file.write_bytes(content)
    there = imported([command, file], code=2 if not content else 4)
    unwanted = set(HEAVY) - {"pydantic"}  # typer converts arguments by it
    assert there.isdisjoint(unwanted), there & unwanted


@pytest.mark.parametrize(("command", "own"), [("inspect", {"--all"}), ("init", {"--data", "--weights"})])
def test_help_lists_what_does_something(command, own):
    command = typer.main.get_command(one_command(command))
    listed = {name for option in command.params if not getattr(option, "hidden", False) for name in option.opts}
    assert listed == {"checkpoint", "--json", "--out", "--debug"} | own
    assert "--samples" in {name for option in command.params for name in option.opts}  # accepted like everywhere


def test_the_options_of_the_program_itself():
    options = {name for option in typer.main.get_command(all_commands()).params for name in option.opts}
    assert {"--version", "--install-completion", "--show-completion"} <= options


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("landscape sha", "sharpness"), ("landscape sharpness --meas", "--measures"), ("landscape in", "init")],
)
def test_a_shell_completes_commands_and_options(typed, offered):
    words = {"_LANDSCAPE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    line = "import sys; sys.argv = ['landscape']; from landscape.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, timeout=300, env=os.environ | words)
    assert offered in done.stdout.split(), done.stderr


def test_doctor_draws_nothing_and_learns_nothing():
    """It imports torchvision, to see whether that can be imported here."""
    assert imported(["doctor"]).isdisjoint({"matplotlib", "sklearn", "plotly", "pandas", "scipy.stats"})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
    ids=["none", "turns", "policy"],
)
def test_threads_wait_awake_for_a_moment_unless_the_user_says_otherwise(given, expected):
    line = "import os, landscape.cli as c; c.wait_briefly(); print({k: v for k, v in os.environ.items() if 'OMP' in k})"
    clean = {k: v for k, v in os.environ.items() if "OMP" not in k}
    done = subprocess.run([sys.executable, "-c", line], env=clean | given, capture_output=True, text=True, timeout=60)
    assert eval(done.stdout) == expected
