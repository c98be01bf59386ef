"""The process that runs Landscaper: reads what to do from stdin, line by line as JSON, and answers on stdout."""

import contextlib
import io
import json
import sys
import time
from importlib import metadata

import torch
from landscaper.compute import compute_loss_landscape
from landscaper.utils import generate_random_orthogonal_directions

from benchmarks.cases import Case


def main() -> None:
    """The first line names the network; every further one asks for a plane."""
    first = json.loads(sys.stdin.readline())
    torch.set_num_threads(first["threads"])
    case = Case.of(*first["origin"]).first(first["samples"])
    print(json.dumps({"version": metadata.version("landscaper")}), flush=True)

    def loss(model: torch.nn.Module, data: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        with torch.no_grad():
            return sum(len(x) * float(case.loss(model(x), y)) for x, y in data) / case.samples

    for _ in sys.stdin:
        torch.manual_seed(0)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            directions = generate_random_orthogonal_directions(case.model, 2)
            started = time.perf_counter()
            values, _ = compute_loss_landscape(
                case.model, case.batches(), directions, loss, steps=first["points"], distance=0.1, dim=2, device="cpu"
            )
            took = time.perf_counter() - started
        middle = first["points"] // 2
        print(json.dumps({"seconds": took, "centre": float(values[middle, middle])}), flush=True)


if __name__ == "__main__":
    main()
