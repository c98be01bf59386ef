"""Top ten, trace and density of a network in the shape of GPT-2 within a budget of memory: `python -m benchmarks.gpt2`.

124 million weights, 50,257 tokens, the head tied to the embedding; weights and tokens are random, from a seed: what is measured
is whether it ends within the budget, and what it takes. `--layers 2` is the same with fewer weights. One process, whose peak is
read from the system.
"""

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

import landscape as ls
from benchmarks.record import ROOT, machine, peak_memory, write
from landscape.machine.memory import parsed
from landscape.machine.sizes import said
from landscape.tasks.torchvision_import import torchvision  # noqa: F401 - transformers imports it

RESULT = ROOT / "benchmarks" / "results" / "gpt2.json"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpt2", description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--words", type=int, default=50_257, help="tokens of the vocabulary (50,257)")
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32, help="of a sequence (32)")
    parser.add_argument("--memory", default="16GiB")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--tol", type=float, default=1e-3, help="relative residual of the eigenvalues (1e-3)")
    parser.add_argument("--products", type=int, default=200, help="most products for the eigenvalues (200)")
    parser.add_argument("--probes", type=int, default=2, help="of the density (2)")
    parser.add_argument("--steps", type=int, default=30, help="of each probe (30)")
    parser.add_argument("--out", type=Path, default=RESULT)
    return parser.parse_args(words)


def made(asked: argparse.Namespace) -> ls.Objective:
    """The network and its tokens; the caller's copy of the network is released."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=asked.layers, n_embd=asked.width, vocab_size=asked.words)
    model = transformers.GPT2LMHeadModel(config)
    ids = torch.randint(0, asked.words, (asked.sequences, asked.tokens), generator=torch.Generator().manual_seed(1))
    return ls.Objective(model, ls.NextTokenLoss(), [{"input_ids": ids, "labels": ids}], memory=parsed(asked.memory))


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All three; every stage with its seconds and the peak so far."""
    stages: dict[str, dict[str, float]] = {}
    begun = [time.perf_counter()]

    def done(stage: str, **facts: float) -> None:
        now = time.perf_counter()
        stages[stage] = {"seconds": now - begun[-1], "peak": peak_memory(), **facts}
        begun.append(now)
        print(f"{stage}: {stages[stage]['seconds']:.0f} s, peak {said(peak_memory())}", flush=True)

    load = os.getloadavg()[0]
    base = peak_memory()
    objective = made(asked)
    done("network and copy")
    plan = objective.plan
    basis, (together, probes) = plan.basis(asked.k), plan.probes(asked.steps, asked.probes)
    vectors = plan.together((probes, 4 * together), (basis, plan.beside(basis, asked.k)))
    print(plan.line(probes, basis, vectors=vectors), flush=True)
    done("checks and trial")
    v = torch.ones(objective.dim)
    objective.hvp(v)
    done("first product")
    objective.hvp(v)
    done("product")
    product = stages["product"]["seconds"]
    del v
    density = ls.spectral_density(objective, probes=asked.probes, steps=asked.steps, generator=torch.Generator().manual_seed(0))
    trace = density.trace()
    done("density and trace", products=density.matvecs)
    found = ls.eigenpairs(objective, asked.k, "largest", tol=asked.tol, max_matvecs=asked.products)
    done("eigenvalues", products=found.matvecs)
    return {
        "schema": 1, "landscape": ls.__version__, "torch": torch.__version__, "python": platform.python_version(),
        "machine": machine(), "load before": load, "load after": os.getloadavg()[0],
        "asked": {key: str(value) if isinstance(value, Path) else value for key, value in vars(asked).items() if key != "out"},
        "weights": objective.dim, "row": plan.row, "budget": plan.budget, "method": objective.method.name,
        "forecast": plan.forecast(probes, basis, vectors=vectors),
        "basis": {"vectors": basis.size, "where": basis.where},
        "probes together": together, "bases stored": probes.size >= asked.steps,
        "libraries": base, "peak": peak_memory(), "seconds": begun[-1] - begun[0],
        "start-up in products": stages["checks and trial"]["seconds"] / product, "stages": stages,
        "eigenvalues": found.values.tolist(), "residuals": found.residuals.tolist(), "converged": found.converged.tolist(),
        "trace": trace.to_json(), "nodes": density.nodes.tolist(), "weights of nodes": density.weights.tolist(),
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    asked = arguments()
    document = measure(asked)
    write(document, asked.out)
    print(f"peak {said(document['peak'])} of {asked.memory}, {document['seconds']:.0f} s; wrote {asked.out}")


if __name__ == "__main__":
    main()
