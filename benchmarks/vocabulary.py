"""Hessian-vector products where the vocabulary, or the sequence, dominates: `python -m benchmarks.vocabulary`.

Two cases: a small GPT with 50,257 tokens, whose logits are larger than everything else, and one with few tokens and long
sequences, whose attention scores are. Every run is a process of its own, so that its peak memory is its own; the tools take
turns, so that a busy minute of the machine falls on all of them. Times are those of a product after the first, by the clock and
as processor time of all threads, which other programs disturb less. All products are of one vector, and are compared with ours.
Beside them stands the time of six matrix products of tokens, width and vocabulary alone, which the formulas take with p kept.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import landscape as ls
from benchmarks.networks import Block, initialised
from benchmarks.record import ROOT, machine, peak_memory, write

RESULT = ROOT / "benchmarks" / "results" / "vocabulary.json"
# Vocabulary, tokens of a sequence, sequences, width, layers, heads.
CASES = {"vocabulary": (50_257, 128, 16, 256, 2, 4), "sequence": (64, 2_048, 1, 128, 2, 4)}
OURS, PLAIN, FORWARD, PEER = "landscape", "double backward, graph kept", "jvp(grad)", "curvlinops"
FLOOR = "six matrix products alone"
_CLASSES = 512  # of a block of the six
Product = Callable[[Tensor], Tensor]


class GPT(nn.Module):
    """Decoder-only transformer whose logits are (B, V, T), with the embedding as its head."""

    def __init__(self, words: int, tokens: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(words, width), nn.Parameter(torch.zeros(tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.head.weight = self.token.weight

    def forward(self, x: Int[Tensor, "B T"]) -> Float[Tensor, "B V T"]:
        return self.head(self.norm(self.blocks(self.token(x) + self.position))).transpose(1, 2)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vocabulary", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--rounds", type=int, default=3, help="runs of every tool (3)")
    parser.add_argument("--products", type=int, default=3, help="timed in each run after the first (3)")
    parser.add_argument("--shrink", type=int, default=1, help="divide vocabulary and sequence by this, to see that all runs")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", nargs=2, metavar=("TOOL", "CASE"), help=argparse.SUPPRESS)
    return parser.parse_args(words)


def made(case: str, shrink: int) -> tuple[GPT, Tensor, Tensor]:
    """The network of a case with fresh weights, and random tokens: what a product costs does not depend on them."""
    words, tokens, sequences, width, depth, heads = CASES[case]
    words, tokens = words // shrink, tokens // shrink
    model = initialised(lambda: GPT(words, tokens, width, depth, heads)).eval()
    text = torch.randint(0, words, (sequences, tokens + 1), generator=torch.Generator().manual_seed(0))
    return model, text[:, :-1].contiguous(), text[:, 1:].contiguous()


def ours(model: GPT, x: Tensor, y: Tensor) -> Product:
    """`landscape.Objective`, with its checks and its trial of methods."""
    objective = ls.Objective(model, nn.CrossEntropyLoss(), [(x, y)])
    objective.preflight()
    return objective.hvp


def plain(model: GPT, x: Tensor, y: Tensor) -> Product:
    """PyTorch's double backward from a graph of the gradient that is kept, as in this toolkit before."""
    leaves = list(model.parameters())
    slope = torch.autograd.grad(F.cross_entropy(model(x), y), leaves, create_graph=True)
    whole = torch.cat([g.reshape(-1) for g in slope])
    return lambda v: torch.cat([t.reshape(-1) for t in torch.autograd.grad(whole, leaves, v, retain_graph=True)])


def forward(model: GPT, x: Tensor, y: Tensor) -> Product:
    """Forward mode over reverse mode, nothing kept."""
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(named: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(model, named, (x,)), y)

    def product(v: Tensor) -> Tensor:
        parts = v.split([p.numel() for p in weights.values()])
        along = {name: t.view_as(p) for (name, p), t in zip(weights.items(), parts, strict=True)}
        return torch.cat([t.reshape(-1) for t in jvp(grad(loss), (weights,), (along,))[1].values()])

    return product


def peer(model: GPT, x: Tensor, y: Tensor) -> Product:
    """curvlinops' Hessian."""
    from curvlinops import HessianLinearOperator

    data = [(x, y)]
    operator = HessianLinearOperator(model, nn.CrossEntropyLoss(), list(model.parameters()), data, check_deterministic=False)
    return lambda v: (operator @ v).detach()


def floor(model: GPT, x: Tensor, y: Tensor) -> Product:
    """No product, but what any has to multiply at the head if it keeps its probabilities p, in blocks of classes.

    With inputs h, weights W and their cotangents s and S: p S, h S^T + s W^T, and with an e of that shape e W, e^T h, p^T s.
    """
    w = model.head.weight.detach()
    h = torch.randn(y.numel(), w.shape[1], generator=torch.Generator().manual_seed(3))
    p = torch.full((len(w), len(h)), 1 / len(w))
    to_h, to_w, e = torch.empty_like(h), torch.empty_like(w), p.new_empty(min(_CLASSES, len(w)), len(h))

    def product(v: Tensor) -> Tensor:
        step = v[: w.numel()].view_as(w)
        torch.mm(p.mT, step, out=to_h)
        for start in range(0, len(w), _CLASSES):
            part = slice(start, start + _CLASSES)
            block = e[: len(w[part])]
            torch.mm(step[part], h.mT, out=block).addmm_(w[part], h.mT)
            to_h.addmm_(block.mT, w[part])
            torch.mm(block, h, out=to_w[part]).addmm_(p[part], h)
        return v

    return product


TOOLS: dict[str, Callable[[GPT, Tensor, Tensor], Product]] = {
    OURS: ours, PLAIN: plain, FORWARD: forward, PEER: peer, FLOOR: floor,
}  # fmt: skip


def one(tool: str, case: str, products: int, shrink: int) -> dict[str, Any]:
    """One run: peak bytes beyond what the process took before, seconds of the first product and of the later ones."""
    model, x, y = made(case, shrink)
    v = torch.randn(sum(p.numel() for p in model.parameters()), generator=torch.Generator().manual_seed(1))
    before, times, work = peak_memory(), list[float](), list[float]()
    with sdpa_kernel(SDPBackend.MATH):
        started = time.perf_counter()
        product = TOOLS[tool](model, x, y)
        found = product(v)
        first = time.perf_counter() - started
        for _ in range(products):
            started, used = time.perf_counter(), time.process_time()
            product(v)
            times.append(time.perf_counter() - started)
            work.append(time.process_time() - used)
    numbers = torch.Generator().manual_seed(2)
    rows = torch.randint(0, len(found), (1000,), generator=numbers)
    return {
        "peak": max(peak_memory() - before, resource.getpagesize()), "first": first,
        "product": statistics.median(times), "processor": statistics.median(work),
        "length": float(found.double().norm()), "some": found[rows].tolist(),
    }  # fmt: skip


def run(tool: str, case: str, asked: argparse.Namespace) -> dict[str, Any]:
    """`one` in a process of its own; {"failure": ...} if it fails."""
    words = ["--one", tool, case, "--products", str(asked.products), "--shrink", str(asked.shrink)]
    done = subprocess.run([sys.executable, "-m", "benchmarks.vocabulary", *words], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        return {"failure": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All tools in all rounds, and for every tool the medians and their ratios to ours."""
    rows = []
    for case in asked.cases:
        runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in asked.tools}
        tools = [tool for tool in asked.tools if tool != FLOOR or case == "vocabulary"]
        for _ in range(asked.rounds):
            for tool in tools:
                if not any("failure" in r for r in runs[tool]):
                    runs[tool].append(run(tool, case, asked))
        for tool in tools:
            rows.append(_row(case, tool, runs))
            print(said(rows[-1]), flush=True)
    return {
        "schema": 1,
        "landscape": ls.__version__,
        "machine": machine(),
        "rounds": asked.rounds,
        "shrink": asked.shrink,
        "rows": rows,
    }


def _row(case: str, tool: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The medians of a tool; ratios are ours divided by its own, medians over the rounds."""
    failure = next((r["failure"] for r in runs[tool] if "failure" in r), None)
    if failure is not None:
        return {"case": case, "tool": tool, "failure": failure}
    reference, found = runs[OURS], runs[tool]
    some, truth = torch.tensor(found[0]["some"]), torch.tensor(reference[0]["some"])
    keys = ("peak", "first", "product", "processor")
    return {
        "case": case, "tool": tool,
        **{key: statistics.median(r[key] for r in found) for key in keys},
        **{f"ours / {key}": statistics.median(a[key] / b[key] for a, b in zip(reference, found, strict=True)) for key in keys},
        "deviation": None if tool == FLOOR else float((some - truth).norm() / truth.norm()),
        "runs": [{key: r[key] for key in keys} for r in found],
    }  # fmt: skip


def said(row: dict[str, Any]) -> str:
    """A row on one line of the terminal."""
    start = f"{row['case']:10} {row['tool']:27}"
    if "failure" in row:
        return f"{start} {row['failure']}"
    return (
        f"{start} peak {row['peak'] / 2**20:6.0f} MiB, first {row['first']:6.2f} s, product {row['product']:6.2f} s "
        f"(processor {row['processor']:.2f} s); ours / it: peak {row['ours / peak']:.2f}, product {row['ours / product']:.2f}, "
        f"processor {row['ours / processor']:.2f}" + ("" if row["deviation"] is None else f"; deviation {row['deviation']:.1e}")
    )


def record() -> dict[str, Any]:
    """The record that is kept."""
    found: dict[str, Any] = json.loads(RESULT.read_text())
    return found


def table(document: dict[str, Any]) -> str:
    """The record as a table of a page."""
    lines = [
        "| case | | peak, MiB | first product, with checks, s | a further one, s | our peak | our time | our processor time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        start = f"| {row['case']} | {row['tool']} |"
        if "failure" in row:
            lines.append(f"{start} {row['failure']} | | | | | |")
            continue
        ratios = (f"{row[f'ours / {key}']:.2f}" for key in ("peak", "product", "processor"))
        shown = ("–", "–", "–") if row["tool"] == OURS else ("–", *list(ratios)[1:]) if row["tool"] == FLOOR else ratios
        peak = "–" if row["tool"] == FLOOR else f"{row['peak'] / 2**20:.0f}"
        first = "–" if row["tool"] == FLOOR else f"{row['first']:.0f}"
        lines.append(f"{start} {peak} | {first} | {row['product']:.2f} | {' | '.join(shown)} |")
    here, rounds = document["machine"], document["rounds"]
    took = f"Medians of {rounds} rounds" if rounds > 1 else "One round"
    threads = f"{here['threads']} thread{'s' * (here['threads'] > 1)} of {here['processor']}"
    return "\n".join(lines) + f"\n\n{took}; {threads}; load before: {here['load_before'][0]:.1f}.\n"


def main() -> None:
    """Measure, print, write."""
    asked = arguments()
    if asked.one is not None:
        print(json.dumps(one(*asked.one, asked.products, asked.shrink)))
        return
    document = measure(asked)
    write(document, asked.out)
    print(f"wrote {asked.out}")


if __name__ == "__main__":
    main()
