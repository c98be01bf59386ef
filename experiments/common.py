"""Shared by the scripts: networks that are trained once, and results with their provenance."""

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch

import landscape as ls
from landscape.results import Sharpness
from landscape.tasks import DEMO_RECIPES, train

ROOT = Path(__file__).resolve().parent.parent
RESULTS, FIGURES = ROOT / "experiments" / "results", ROOT / "figures"


def arguments(description: str) -> argparse.Namespace:
    """Command line options: the number of seeds and the folder of trained networks."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each kind")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="where trained networks are kept")
    return parser.parse_args()


def run(name: str, seed: int, folder: Path) -> Path:
    """A trained network of the demo's recipe `name`; trained once."""
    return train(replace(DEMO_RECIPES[name], seed=seed), out=folder / f"{name}-{seed}.safetensors").path


def measured(path: Path, measures: list[str] | None = None) -> tuple[Sharpness, float, float]:
    """Its measures on the whole training set, and its training and test accuracy."""
    task = ls.load(path)
    result = ls.sharpness(task.objective(), measures)
    test = task.objective("test").evaluate().accuracy
    return replace(result, checkpoint=path.name, sha256=task.sha256), result.accuracy.value, test.value


def write(name: str, document: dict, started: float) -> None:
    """experiments/results/NAME.json with the machine, the versions and the time."""
    how = {
        "script": f"python -m experiments.{name}",
        "landscape": ls.__version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "seconds": round(time.perf_counter() - started),
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1, "how": how, **document}, indent=1, allow_nan=False) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")
