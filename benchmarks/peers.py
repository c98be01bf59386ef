"""This toolkit beside PyHessian on the same network, data and accuracy, in one run.

    python -m benchmarks.peers [--network mlp|resnet20] [--samples 256] [--repeats 5]

Times are medians of alternating repeats; the yardstick is one gradient of the same network on the same batch. Writes
benchmarks/results/peers.json.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import landscape as ls
from landscape.tasks import build

OUT = Path(__file__).resolve().parent / "results" / "peers.json"


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def problem(network: str, samples: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network with fresh weights and random data of its input's shape: cost does not depend on the values."""
    g = torch.Generator().manual_seed(0)
    if network == "mlp":
        model, shape = build("mlp", seed=0), (1, 8, 8)
    else:
        model, shape = build("resnet20", seed=0, width=8), (3, 32, 32)
    return model.eval(), torch.randn(samples, *shape, generator=g), torch.randint(0, 10, (samples,), generator=g)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=("mlp", "resnet20"), default="resnet20")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=r"Using backward\(\) with create_graph=True")
    from pyhessian import hessian
    from pyhessian.utils import group_product, hessian_vector_product  # noqa: F401  # what its eigenvalue loop calls

    model, x, y = problem(options.network, options.samples)
    loss = nn.CrossEntropyLoss()
    batches = [(x[i : i + 128], y[i : i + 128]) for i in range(0, len(x), 128)]
    objective = ls.Objective(model, loss, batches)
    objective.preflight()
    v = torch.randn(8, objective.dim, generator=torch.Generator().manual_seed(1))
    theirs = hessian(model, loss, data=(x, y), cuda=False)
    pieces = [t.clone() for t in objective.layout.unflatten(v[0]).values()]

    def peer_product() -> object:
        fresh = hessian(model, loss, data=(x, y), cuda=False)
        return hessian_vector_product(fresh.gradsH, fresh.params, pieces)

    work: dict[str, Callable[[], object]] = {
        "gradient": objective.gradient,
        "hvp": lambda: objective.hvp(v[0]),
        "hvp_of_eight": lambda: objective.hvp(v),
        "pyhessian_hvp_rebuilt": peer_product,
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(options.repeats + 1):
        for name, f in work.items():
            t = seconds(f)
            if round_:
                times[name].append(t)
    medians = {name: statistics.median(t) for name, t in times.items()}
    unit = medians["gradient"]

    own: dict[str, float] = {}
    own["seconds"] = seconds(lambda: own.update(pairs=ls.eigenpairs(objective, 1, tol=1e-3)))  # type: ignore[arg-type]
    pairs = own.pop("pairs")
    peer: dict[str, float] = {}
    torch.manual_seed(0)
    peer["seconds"] = seconds(lambda: peer.update(found=theirs.eigenvalues(maxIter=100, tol=1e-3, top_n=1)))  # type: ignore[arg-type]
    value, vector = peer.pop("found")  # type: ignore[misc]
    flat = torch.cat([t.reshape(-1) for t in vector[0]])
    residual = float((objective.hvp(flat) - value[0] * flat).norm() / abs(value[0]))
    document = {
        "network": options.network,
        "weights": objective.dim,
        "samples": options.samples,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "seconds": medians,
        "in_gradients": {
            "hvp": medians["hvp"] / unit,
            "hvp_each_of_eight": medians["hvp_of_eight"] / 8 / unit,
            "pyhessian_hvp_rebuilt": medians["pyhessian_hvp_rebuilt"] / unit,
        },
        "lambda_max": {
            "landscape": {
                "value": float(pairs.values[0]),
                "relative_residual": float(pairs.residuals[0] / abs(pairs.values[0])),
                "products": pairs.matvecs,
                **own,
            },
            "pyhessian": {"value": float(np.real(value[0])), "relative_residual": residual, **peer},
        },
    }  # fmt: skip
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
