"""Commands that the pages write out without showing what they print: each runs on files of the kind it names.

They are made short by options at their end, of which the last of a name counts. What cannot be run here stands in `NOT_RUN`.
"""

import os
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from in_process import landscape
from pages import README, ROOT, blocks
from safetensors.torch import save_file
from torch import nn

from landscape.tasks.torchvision_import import torchvision

# First words of a line -> why it is not run here.
NOT_RUN = {
    "make demo": "it is a step of the build",
    "make test": "it is a step of the build",
    "make experiments": "hours",
    "make experiments DATA=": "hours, and images that are no part of the repository",
    "python -m experiments.memorization --data cifar10": "hours",
    "python -m experiments.memorized_samples --data cifar10": "images that are no part of the repository",
    "pip install .": "the test of the wheel does, in an environment of its own",
    "landscape --install-completion": "it changes the files of the user's shell",
    "landscape --help": "tests of the command line",
    "landscape demo": "a step of the build",
    "pip install": "changes the reader's environment",
    "torchrun --nproc-per-node 8": "eight processes; tests of torchrun start two",
    "python plot_surface.py": "a command of another tool",
    "landscape sharpness vit.pth": "86 million weights",
    "landscape sharpness vit.safetensors": "images of 224 pixels, and a library that only some have: tests of libraries",
    "landscape sharpness vit-folder": "made by the page's Python, which needs a library that only some have",
    "landscape sharpness resnet18.pth": "KIND:PATH stands for the reader's data",
}
# Makes a command short: its other options are as shown.
QUICK = {
    "sharpness": ("--samples", 4, "--measures", "logit_norm"),
    "spectrum": ("--samples", 16, "-k", 1, "--probes", 2, "--steps", 4),
    "information": ("--samples", 32, "--estimator", "binned"),
    "surface": ("--samples", 16, "--grid", 3, "--no-random-check"),
    "samples": ("--samples", 16, "--top", 4, "--scores", "loss,cumulative_loss"),
    "reparam": ("--samples", 16, "--sweep", 0, "--measures", "trace"),
    "compare": ("--samples", 16, "--measures", "weight_curvature", "--no-line"),
    "train": ("--epochs", 1, "--samples", 64, "-M", "widths=[4]"),
    "watch": ("--samples", 16, "--measures", "lambda_max"),
    "report": ("--samples", 16, "--measures", "logit_norm", "--no-interactive"),
}
TASK = """
import torch
from landscape import Task


class MyNet(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))


def task():
    x = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
    return Task(model=MyNet(), loss=torch.nn.CrossEntropyLoss(), train=(x, torch.arange(24) % 3), test=None)
"""


def shown() -> list[tuple[str, str]]:
    """(page, line) of every command in blocks marked `sh`."""
    found = []
    for page in sorted({README, *(ROOT / "docs").rglob("*.md")}):
        lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
        commands = (" ".join(shlex.split(line, comments=True)) and line.partition(" #")[0].strip() for line in lines)
        found += [(str(page.relative_to(ROOT)), command) for command in commands if command]
    return found


def reason(line: str) -> str | None:
    """Why a line is not run; None if it is."""
    return next((NOT_RUN[start] for start in sorted(NOT_RUN, key=len, reverse=True) if line.startswith(start)), None)


def test_what_is_not_run_is_counted_and_has_a_reason():
    left = [line for _, line in shown() if reason(line)]
    assert {start for start in NOT_RUN if not any(line.startswith(start) for line in left)} == set()
    assert len(left) == 18
    assert all(line.startswith("landscape ") for _, line in shown() if not reason(line))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages name."""
    place = tmp_path_factory.mktemp("shown")
    for name in ("runs", "data"):
        (place / name).mkdir()
    torch.save(torchvision.models.get_model("resnet18", num_classes=10).state_dict(), place / "resnet.pt")
    save_file(
        {f"{split}_{k}": v for split in ("train", "test") for k, v in (
            ("x", torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)), ("y", torch.arange(8) % 10),
        )},
        place / "data" / "cifar.safetensors",
    )  # fmt: skip
    (place / "task.py").write_text(TASK)
    for seed, name in enumerate(("ckpt", "a", "b", "c")):
        torch.save(network(seed).state_dict(), place / f"{name}.pt")
    small = ("train", "digits-mlp", "--epochs", 1, "-M", "widths=[4]", "--samples", 64)
    landscape(*small, "--keep-every", 1, "--out", "runs/model.safetensors", cwd=place)
    noisy = ("--corruption", "labels", "--level", 0.4, "--keep-every", 1, "--out", "runs/noisy.safetensors")
    landscape(*small, *noisy, cwd=place)
    model = (place / "runs" / "model.safetensors").read_bytes()
    for group in ("sb", "lb", "clean", "noisy", "random"):
        for i in range(2):
            suffixes = ("safetensors", "pt") if group in ("sb", "lb") else ("safetensors",)
            for suffix in suffixes:
                (place / "runs" / f"{group}-{i}.{suffix}").write_bytes(model)
    (place / "runs" / "noisy-0.pt").write_bytes(model)
    (place / "model.pt").write_bytes((place / "resnet.pt").read_bytes())
    return place


@pytest.mark.slow
@pytest.mark.parametrize("line", dict.fromkeys(line for _, line in shown() if not reason(line)))
def test_a_command_that_is_shown_runs(line: str, folder: Path, tmp_path: Path):
    place = tmp_path / "work"
    shutil.copytree(folder, place, copy_function=os.link)
    words = shlex.split(line)[1:]
    given = words.index("--out") + 1 if "--out" in words else 0
    if words[0] == "init":
        (place / "task.py").unlink()
    if given and words[0] == "train":
        (place / words[given]).unlink(missing_ok=True)
    if words[0] == "compare":  # its folder would be a third run
        shutil.rmtree(place / "runs" / "noisy-trajectory")
    if words[0] == "report":
        landscape("surface", "runs/model.safetensors", *QUICK["surface"], "--out", "model-surface", cwd=place)
    if "model.pt" in words and "--task" in words:
        words[words.index("model.pt")] = "ckpt.pt"
    done = landscape(*words, *QUICK.get(words[0], ()), "--allow-unconverged", cwd=place)
    assert done.out or done.err
    if given:
        assert (place / words[given]).exists()
