"""Run the benchmarks: `python -m benchmarks --help`."""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import landscape as ls
from benchmarks.cases import Case
from benchmarks.figure import draw
from benchmarks.headline import documents_in
from benchmarks.networks import NETWORKS
from benchmarks.parts import PARTS, Options, runner
from benchmarks.peers import versions
from benchmarks.record import ROOT, Row, commit, file_name, machine, processor, write
from benchmarks.table import table

RESULTS, FIGURE = ROOT / "benchmarks" / "results" / "peers", ROOT / "figures" / "benchmarks.png"
LANDSCAPER = ROOT / ".venv-landscaper" / "bin" / "python"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="This toolkit beside its peers, in one run.")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--samples", type=int, help="for every part; default: each part's own, from 16 to 1024")
    parser.add_argument("--repeats", type=int, default=5, help="counted rounds at most (5)")
    parser.add_argument("--budget", type=float, default=25.0, help="seconds after which a part begins no further round (25)")
    parser.add_argument("--accuracy", type=float, default=0.05, help="relative half-width of the trace's interval (0.05)")
    parser.add_argument("--limit", type=float, help="seconds for one job of a peer; default: 16 times ours, at least 20")
    parser.add_argument("--steps", type=int, help="Lanczos steps of the density; default: by network, from 10 to 80")
    parser.add_argument("--grid", type=int, help="points on each axis of our plane; default: 9, for the MLP 49")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument("--threads", type=int, help="of PyTorch; default: its own choice")
    parser.add_argument("--data", help="cifar10:PATH, for a ResNet-20 of your own")
    parser.add_argument("--checkpoint", type=Path, help="its weights")
    parser.add_argument("--landscaper", type=Path, default=LANDSCAPER, help="the Python that has Landscaper")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of one file of results a processor")
    parser.add_argument("--keep", action="store_true", help="keep what --out has of other parts and networks, and say so")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="drawn from the results of all processors in --out")
    found = parser.parse_args(words)
    if (found.data is None) != (found.checkpoint is None):
        parser.error("expected --data and --checkpoint together")
    for name, least in (("samples", 2), ("repeats", 1), ("steps", 2), ("grid", 5), ("threads", 1)):
        value = getattr(found, name)
        if value is not None and value < least:
            parser.error(f"expected --{name} of at least {least}, found {value}")
    return found


def measure(asked: argparse.Namespace, kept: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """All parts on all networks: the document so far after every one, so that a run that is stopped has its results.

    Candidates are compared on one network within a part, which is one run; `kept` has the others from a run before.
    """
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    options = Options(
        samples=asked.samples, repeats=1 if asked.quick else asked.repeats, budget=2.0 if asked.quick else asked.budget,
        limit=asked.limit, k=4 if asked.quick else 10, accuracy=0.3 if asked.quick else asked.accuracy, steps=asked.steps,
        grid=asked.grid, quick=asked.quick, landscaper=asked.landscaper,
    )  # fmt: skip
    before, measured = machine(), commit()
    told = {k: str(v) if isinstance(v, Path) else v for k, v in vars(asked).items() if k not in ("out", "figure", "landscaper")}
    rows: list[Row] = []
    again = {(part, name) for part in asked.parts for name in (*asked.networks, "")}
    kept = kept or {"rows": [], "seconds": {}, "networks": {}, "again": []}
    known = {(r["part"], r["network"]) for r in kept["rows"]}
    others = [r for r in kept["rows"] if (r["part"], r["network"]) not in again]
    took = {k: v for k, v in kept["seconds"].items() if k != "all"}
    cases = {name: Case.of(name, asked.data, asked.checkpoint) for name in asked.networks}
    for part in asked.parts:
        for case in list(cases.values())[: 1 if part == "start" else None]:
            since = time.perf_counter()
            for found in runner(part)(case, options):
                rows.append(found)
                print(f"{part:8} {found.network:9} {found.work:26} {found.tool:26} {shown(found)}", flush=True)
            took[f"{part} {'' if part == 'start' else case.name}".strip()] = round(time.perf_counter() - since, 1)
            yield {
                "schema": 1,
                "landscape": ls.__version__,
                "commit": measured,
                "asked": {"k": options.k, "percent": 100 * options.accuracy},
                "machine": before,
                "versions": versions() | {r.tool: r.facts["version"] for r in rows if r.facts.get("version")},
                "options": told,
                "networks": kept["networks"] | {c.name: {"title": c.title, "weights": c.weights} for c in cases.values()},
                "seconds": {"all": round(sum(took.values()), 1), **took},
                "again": sorted({*kept["again"], *(" ".join(x).strip() for x in again & known)}),
                "rows": [*others, *(r.to_json() for r in rows)],
            }


def shown(found: Row) -> str:
    """A row on one line of the terminal."""
    if found.median is None:
        return found.failure or "no time"
    value = f"{'≥ ' if found.cut else ''}{found.median:.3g} {found.unit} [{found.low:.3g}, {found.high:.3g}]"
    numbers = (
        "products",
        "worst_residual",
        "pairs",
        "value",
        "half_width",
        "gradients",
        "deviation",
        "deviation_from_float64",
        "stop",
    )
    facts = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k in numbers if (v := found.facts.get(k)) is not None]
    return "  ".join([value, *facts, *([f"({found.note})"] if found.note else [])])


def main() -> None:
    """Measure, print, write."""
    asked = arguments()
    file = asked.out / f"{file_name(processor())}.json"
    for document in measure(asked, json.loads(file.read_text()) if asked.keep and file.exists() else None):
        write(document, file)
    draw(documents_in(asked.out), asked.figure)
    print(f"\n{table(document)}\nwrote {file} and {asked.figure} after {document['seconds']['all']:.0f} s")


if __name__ == "__main__":
    main()
