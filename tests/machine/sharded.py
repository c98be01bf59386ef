"""What processes compute together, for the tests: `sharded.py FOLDER 2 3` writes what 2 find, and what 3 find.

A program of its own: it forks them, which is only safe where nothing else runs, and spares each its imports.
"""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import landscape as ls
from landscape.curvature import footprint
from landscape.curvature.method import PLAIN
from landscape.machine.distributed import LostError
from landscape.machine.torchrun import joined

D = torch.float64


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


class Words(nn.Module):
    """A language model: the next word from this one and the mean of those so far. Classes are on dimension 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(7, 4), nn.Linear(4, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.words(tokens)
        h = torch.tanh(h + h.cumsum(1) / torch.arange(1, tokens.shape[1] + 1)[:, None])
        return self.out(h).movedim(-1, 1)


def spread(output: Tensor, target: Tensor) -> Tensor:
    """A loss that the samples of a batch have together, so that a batch must not be cut."""
    return F.mse_loss(output, F.one_hot(target, 3).to(output)) + output.var(0, correction=0).sum()


def _classes(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 5, dtype=D), torch.randint(0, 3, (n,))


def build(name: str) -> ls.Objective:
    """An Objective by name, the same in every process."""
    torch.manual_seed(3)
    match name:
        case "seven":
            model, loss, data, size = _mlp(), nn.CrossEntropyLoss(), _classes(7), 3
        case "two":  # of three processes one has no sample
            model, loss, data, size = _mlp(), nn.CrossEntropyLoss(), _classes(2), 8
        case "class weights":  # a process may have only targets that do not count
            x, y = _classes(11)
            y[[3, 8, 9, 10]] = -100
            model, data, size = _mlp(), (x, y), 4
            loss = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]), label_smoothing=0.1)
        case "tokens":
            tokens = torch.randint(0, 7, (5, 6))
            target = tokens.roll(-1, 1)
            for row, length in enumerate((6, 1, 4, 0, 2)):
                target[row, length:] = -100
            model, loss, data, size = Words(), nn.CrossEntropyLoss(), (tokens, target), 2
        case "norm":
            model, loss, data, size = _mlp(), nn.MSELoss(), (torch.randn(7, 5, dtype=D), torch.randn(7, 3, dtype=D)), 4
            model.insert(1, nn.BatchNorm1d(6))
        case "together":
            model, loss, data, size = _mlp(), spread, _classes(7), 3
        case _:
            raise KeyError(name)
    objective = ls.Objective(model, loss, data, dtype="float64", batch_size=size)
    return objective if name == "seven" else objective.by(PLAIN)  # one is enough to see that all settle on one way


NAMES = ("seven", "two", "class weights", "tokens", "norm", "together")


def products(objective: ls.Objective) -> dict[str, Tensor]:
    """Everything that is a sum over samples."""
    v = torch.randn(3, objective.dim, dtype=D, generator=torch.Generator().manual_seed(1))
    value, gradient = objective.value_and_gradient()
    elsewhere = objective.at(objective.theta + 0.1 * v[0])
    found = {"value": torch.tensor(value, dtype=D), "gradient": gradient, "hvp": objective.hvp(v), "one": objective.hvp(v[0])}
    found |= {"ggnvp": objective.ggnvp(v), "elsewhere": elsewhere.hvp(v)}
    found |= {"subset": objective.subset(2).gradient(), "only": objective.only("*weight").gradient()}
    with suppress(ls.LandscapeError):  # a loss that does not come apart has none
        found["fishervp"] = objective.fishervp(v)
    return found


def solved(objective: ls.Objective) -> dict[str, Tensor]:
    """What is found by many products."""
    pairs = ls.eigenpairs(objective, k=4)
    trace = ls.trace(objective, probes=8)
    paired = ls.trace(objective, relative_error=0.1)
    flatness = ls.measures.relative_flatness(objective, exact=True)
    density = ls.spectral_density(objective, probes=3, steps=12)
    return {
        "eigenvalues": torch.as_tensor(pairs.values), "eigenvectors": torch.as_tensor(pairs.vectors).abs(),
        "trace": torch.tensor([trace.value, trace.stderr]),
        "paired": torch.tensor([paired.value, paired.stderr or 0.0, paired.data_stderr, flatness.value]),
        "density": torch.as_tensor(density.density),
    }  # fmt: skip


def main(path: str) -> None:
    """All cases, in every process; the first one writes them, after all have said that they have the same bits."""
    out: dict[str, object] = {}
    with joined() as group:
        with joined() as inner:
            out["again"] = (inner.rank, inner.size) == (group.rank, group.size)
        for name in NAMES:
            objective = build(name)
            out[name] = products(objective)
            out[f"{name}, shares"] = group.everyone([len(b) for b, _ in objective._engine.own])
        objective = build("seven")
        out["solved"] = solved(objective)
        normalized = build("norm").batch_normalized()
        normalized._checked = True  # it mixes the samples of a batch, and means to
        out["normalized"] = {"gradient": normalized.gradient()}

        before, spent = group.collectives, objective.spent
        for k in (1, 5):
            objective.hvp(torch.ones(k, objective.dim, dtype=D))
        objective.gradient()
        out["collectives of three calls"] = group.collectives - before
        before = group.collectives
        pairs = ls.eigenpairs(objective, k=2)
        out["eigenpairs"] = group.collectives - before, pairs.matvecs
        out["sweeps"] = objective.spent.sweeps - spent.sweeps - 2
        before = group.collectives
        objective.alone().hvp(torch.ones(objective.dim, dtype=D))
        objective.evaluate()
        out["collectives alone"] = group.collectives - before

        try:
            group.total(lambda: 1 / torch.ones(2)[group.rank :][0], torch.ones(()), torch.ones(1))
        except IndexError as error:  # of the third process alone, where there is one
            out["error of one"] = str(error)
        try:
            group.total(lambda: torch.ones(2), torch.ones(2), torch.full((3,), float(group.rank - 1)))
        except LostError as error:
            out["out of step"] = str(error)
        out["of a line"] = {"loss": torch.as_tensor(ls.line(objective, grid=9).values["loss"])}
        out["parts"] = group.concat(torch.full((2, group.parts(7)[group.rank]), float(group.rank)), group.parts(7))
        out["agreed"] = group.agreed(f"rank {group.rank}")
        out["everyone"] = group.everyone(group.rank)
        out["alike"] = group.everyone((group.alike(ValueError("same")), group.alike(ValueError("same")))), None
        everybody = group.everyone({k: v for k, v in out.items() if isinstance(v, dict)})
        for other in everybody[1:]:
            for name, tensors in everybody[0].items():
                assert all(torch.equal(t, other[name][key]) for key, t in tensors.items()), name
        if group.rank == 0:
            torch.save(out, Path(path))
    assert build("two").group.size == 1, "outside nothing is shared"


def fork(processes: int, path: str) -> None:
    """Run `main` in so many processes, set up as torchrun does, and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }  # fmt: skip
            footprint._JOINED = 0  # batches stay as small as they are, so that a process has several
            main(path)
            sys.stdout.flush()
            os._exit(0)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(codes), codes


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number in sys.argv[2:]:
        fork(int(number), f"{sys.argv[1]}/{number}.pt")
