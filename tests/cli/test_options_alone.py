"""Options that their help says belong to another one are refused without it: none is parsed and then ignored."""

import re

import pytest
import torch
import typer
from in_process import run

from landscape.cli.app import COMMANDS, one_command

# Enough of a command line that the option is what is wrong with it.
LEAST = {"sweep": ("*.pt", "--out", "swept"), "spectrum": ("net.pt",), "train": ("digits-mlp", "--out", "run")}
VALUES = {"--slurm-option": "cluster=local", "--level": "0.5", "--rho": "0.1"}
BELONGS = re.compile(r"(?:^With|^For|, for) (--[a-z-]+)(?: (?!Default)(\w+))?[:.]")


def dependent():
    """(command, option, the one that it needs) for every help text that names one."""
    for name in COMMANDS:
        for parameter in typer.main.get_command(one_command(name)).params:
            found = BELONGS.search(getattr(parameter, "help", None) or "")
            if found:
                yield name, parameter.opts[0], found[1]


FOUND = sorted(dependent())


def test_the_help_texts_name_some():
    named = {option for _, option, _ in FOUND}
    assert named >= {"--minibatch-size", "--minibatches", "--workers", "--slurm-option", "--rho", "--level"}


@pytest.mark.parametrize(("command", "option", "needed"), FOUND)
def test_an_option_is_refused_without_the_one_that_it_belongs_to(command, option, needed, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "net.pt")
    done = run(capfd, command, *LEAST[command], option, VALUES.get(option, "4"))
    assert done.code == 2, done.err
    assert option.removeprefix("--") in done.error, done.error
    assert needed.removeprefix("--") in done.error, done.error
    assert not (tmp_path / "swept").exists()
