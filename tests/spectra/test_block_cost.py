"""What curvature by block costs from Python: the passes that its docstring says, and progress while it runs."""

import io

import torch
from clock import FakeClock
from torch import nn

import landscape as ls
from landscape.machine import progress, shown_progress


def test_probes_and_filters_go_through_eight_at_once():
    """No more passes over the data than the runs need: blocks of products for probes and filters, one for each Lanczos step."""
    generator = torch.Generator().manual_seed(0)
    data = (torch.randn(40, 5, generator=generator), torch.randint(0, 3, (40,), generator=generator))
    torch.manual_seed(0)
    objective = ls.Objective(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), nn.CrossEntropyLoss(), data)
    steps: dict[str, int] = {}
    labels: list[tuple[str, int | None]] = []

    class Listener:
        def start(self, label: str, total: int | None) -> int:
            labels.append((label, total))
            return len(labels) - 1

        def advance(self, handle: int, done: int) -> None:
            steps[labels[handle][0]] = steps.get(labels[handle][0], 0) + done

        def finish(self, handle: int) -> None: ...
        def remark(self, text: str) -> None: ...
        def left(self, handle: int, seconds: float, low: float, high: float) -> None: ...

    with progress.listening(Listener()):
        found = ls.breakdown(objective, filters=True, probes=16)
    spent = objective.spent
    alone = sum(block.lambda_max.n or 0 for block in found.filters)
    layers = sum(block.lambda_max.n or 0 for block in found.layers)
    top = ls.eigenpairs(objective, 1).matvecs
    assert spent.products == 16 + top + layers + alone
    assert spent.sweeps <= 16 / 8 + top + layers + alone / 3
    assert (steps["probes"], steps["layers"], steps["blocks"]) == (16, 2, 11)
    assert {("layers", 2), ("blocks", 11)} <= set(labels)


def test_a_line_in_python_says_how_many_layers_are_done(monkeypatch):
    clock, file = FakeClock(), io.StringIO()
    monkeypatch.setattr(shown_progress, "time", clock)
    with ls.progress(file), progress.stage("layers", 15) as layers, progress.stage("eigenvalues", 300) as inner:
        layers(2)
        clock.now += 5
        inner(10)
    assert "layers 2 of 15, eigenvalues: " in file.getvalue()
