"""loss-landscapes in this process; Landscaper in one of its own, since it does not go with numpy 2."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.record import ROOT
from benchmarks.reference import pieces
from benchmarks.timing import SelfTimed


def interpolated(case: Case, directions: tuple[Tensor, Tensor], points: int) -> np.ndarray:
    """loss-landscapes' plane through three models: start + (i / n) (end1 - start) + (j / n) (end2 - start), as it documents."""
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    start = [p.detach() for p in case.model.parameters()]
    first, second = (pieces(d, case.model) for d in directions)
    stride = 2 * points / (points - 1)
    corner = _moved(case, [w - a - b for w, a, b in zip(start, first, second, strict=True)])
    ends = [
        _moved(case, [w - a - b + stride * d for w, a, b, d in zip(start, first, second, way, strict=True)])
        for way in (first, second)
    ]
    metric = Loss(case.loss, case.x, case.y)
    return loss_landscapes.planar_interpolation(corner, *ends, metric, steps=points, deepcopy_model=True)


def _moved(case: Case, weights: list[Tensor]) -> Any:
    model = copy.deepcopy(case.model)
    for p, w in zip(model.parameters(), weights, strict=True):
        p.data = w.clone()
    return model


class LandscaperProcess:
    """A process of an environment of its own that computes one plane whenever it is asked, and says how long it took.

    Calling it gives a SelfTimed result: the loss at the centre.
    """

    def __init__(self, case: Case, points: int, python: Path | None) -> None:
        self.case, self.points = case, points
        self.python = python or Path(sys.executable)
        self.process: subprocess.Popen[str] | None = None
        self.version: str | None = None

    def __enter__(self) -> "LandscaperProcess":
        if not self.python.exists():
            raise RuntimeError(f"not installed: no {self.python}; `make bench` makes it")
        self.process = subprocess.Popen(
            [self.python, "-m", "benchmarks.peers.landscaper_process"], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            self.version = self._ask(
                origin=self.case.origin, samples=self.case.samples, points=self.points, threads=torch.get_num_threads()
            )["version"]
        except Exception:
            self.__exit__(None, None, None)
            raise
        return self

    def __call__(self) -> SelfTimed:
        found = self._ask(go=True)
        return SelfTimed(found["seconds"], found["centre"])

    def _ask(self, **words: Any) -> dict[str, Any]:
        assert self.process is not None  # asked of an entered one only
        assert self.process.stdin is not None  # both are pipes
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(words) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            assert self.process.stderr is not None
            lines = self.process.stderr.read().strip().splitlines()
            raise RuntimeError(f"not installed in {self.python}: {lines[-1] if lines else 'it ended without a word'}")
        return json.loads(answer)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
