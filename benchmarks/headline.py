"""The headline: what matters most, from the results of every processor, and what the worst of them allows to be claimed.

A peer that was stopped at its limit counts with the time at which it was stopped.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.parts.hvp import WORK
from benchmarks.parts.surface import LOOP, PLAIN, POINTS
from benchmarks.record import OURS

Document = dict[str, Any]
MORE = f"{PLAIN} on 1,024 images"
TRACE = "trace to ±5 %"


@dataclass(frozen=True)
class Figure:
    """One number of a headline, beside one other candidate.

    Attributes:
        beside: the other candidate; "" for a number that stands alone.
        value: None where the run has no such measurement.
        at_least: the other candidate was stopped, so that the number is a lower bound.
    """

    beside: str
    value: float | None
    at_least: bool = False


@dataclass(frozen=True)
class Headline:
    """A line of the table.

    Attributes:
        work: what was done.
        figures: its numbers in one processor's results.
        targets: what we had set ourselves, by `beside`.
        most: larger is better; otherwise the targets are upper bounds.
        first: stands in the README.
    """

    work: str
    figures: Callable[[Document], list[Figure]]
    targets: dict[str, float]
    most: bool = True
    first: bool = False

    def worst(self, documents: list[Document]) -> list[Figure]:
        """The least flattering number of all processors beside each candidate."""
        found: dict[str, list[Figure]] = {}
        for document in documents:
            for figure in self.figures(document):
                if figure.value is not None:
                    found.setdefault(figure.beside, []).append(figure)
        choose = min if self.most else max
        return [choose(figures, key=lambda f: f.value or 0.0) for figures in found.values()]

    def met(self, documents: list[Document]) -> str:
        """Whether the worst numbers reach the targets."""
        by = {f.beside: f.value for f in self.worst(documents) if f.value is not None}
        known = {beside: by[beside] for beside in self.targets if beside in by}
        if not known:
            return "not measured"
        reached = [value >= self.targets[b] if self.most else value <= self.targets[b] for b, value in known.items()]
        return "yes" if all(reached) else "in part" if any(reached) else "no"


def headlines() -> list[Headline]:
    """The lines, in the order of the table."""
    resnet, mlp = "resnet20", "mlp"
    return [
        Headline("one more product from a kept graph, in gradients", _gradients(WORK["more"]), {"": 2.6}, most=False),
        Headline("a product from nothing, in gradients", _gradients(WORK["alone"]), {"": 2.6}, most=False),
        Headline("each of eight products together, in gradients", _gradients(WORK["each of eight"]), {"": 2.0}, most=False),
        Headline("ten eigenpairs, true residual 1e-3", _times("eigen", resnet), _peers(15, 4), first=True),
        Headline(TRACE, _times("trace", resnet), _peers(10, 10), first=True),
        Headline("trace to ±5 %, small ViT", _times("trace", "vit"), _peers(3, 3)),
        Headline("Keskar's ε-sharpness, one climb, beside scipy's ten iterations, which end lower", _keskar, {"scipy": 3},
                 first=True),
        Headline("a plane of 25 points, all included", _small_plane(resnet), {PLAIN: 1 / 1.2, MORE: 1 / 1.2}, first=True),
        Headline("further points of a plane", _rate(resnet, OURS, "further points"), {PLAIN: 1.2, LOOP: 3}),
        Headline("the same in bfloat16", _rate(resnet, f"{OURS}, bfloat16", "further points"), {LOOP: 5}),
        Headline("a plane of 49 × 49, digits MLP", _rate(mlp, OURS), {LOOP: 10}),
        Headline("a plane of 51 × 51 with `--tolerance 0.25`", _refined(resnet), {LOOP: 4}, first=True),
        Headline("the same, digits MLP", _refined(mlp), {LOOP: 10}),
        Headline("`landscape --help`, in the time of a bare typer program", _help, {"": 2.0}, most=False),
    ]  # fmt: skip


def headline_table(documents: list[Document]) -> str:
    """Every headline on every processor, its target, and whether the worst meets it."""
    heads = ["", *(d["machine"]["processor"] for d in documents), "target", "met"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for line in headlines():
        cells = [told(line.figures(d), line.most) or "–" for d in documents]
        targets = told([Figure(b, t) for b, t in line.targets.items()], line.most)
        lines.append(f"| {' | '.join([line.work, *cells, targets, line.met(documents)])} |")
    return "\n".join(lines) + "\n"


def claims(documents: list[Document], traces: Sequence[Document] = ()) -> str:
    """What the README may say: the worst of all processors, one line a job.

    `traces` are the documents of `benchmarks.trace_accuracy`, which has more samples.
    """
    places = [str(d["machine"]["processor"]) for d in documents]
    worst = f"the worst of {len(places)} processors ({'; '.join(places)})" if len(places) > 1 else places[0]
    lines = [f"ResNet-20 on two CPU threads, in times as fast at the same accuracy, {worst}:", ""]
    for line in headlines():
        have = [d for d in documents if any(f.value is not None for f in line.figures(d))]
        if line.first and have:
            where = "" if have == documents else _only(have)
            more = _of_more(traces) if line.work == TRACE else ""
            figures = ((f, [d for d in have if _has(line, d, f.beside)]) for f in line.worst(have))
            numbers = ", ".join(told([f], line.most) + ("" if there == have else _only(there)) for f, there in figures)
            lines.append(f"- {line.work[0].upper()}{line.work[1:]}: {numbers}{where}{more}.")
    return "\n".join(lines) + "\n"


def _has(line: Headline, document: Document, beside: str) -> bool:
    """Whether a processor's results have the number beside this candidate."""
    return any(f.beside == beside and f.value is not None for f in line.figures(document))


def _only(documents: list[Document]) -> str:
    """ " (NAME only)": what some processors alone have."""
    return f" ({'; '.join(str(d['machine']['processor']) for d in documents)} only)"


def _of_more(traces: Sequence[Document]) -> str:
    """The same trace of 1,024 images, where peers' products are counted; "" where it was not measured."""
    asked = {"network": "resnet20", "trained": True, "samples": 1024, "accuracy": 0.05}
    rows = [r for d in traces for r in d["rows"] if asked.items() <= r.items()]
    if not rows:
        return ""
    worst = min(rows, key=lambda r: float(r["ratio"]))
    return f"; of 1,024 images {worst['ratio']:.2g} × the fastest ({worst['peer']}, by its counted products)"


def told(figures: list[Figure], most: bool) -> str:
    """Numbers in words: "2.8 × curvlinops, 2.5 × hessian-eigenthings"; "1.9" for one that stands alone."""
    words = []
    for figure in figures:
        if figure.value is not None:
            number = f"{'≥ ' if figure.at_least else ''}{figure.value:.2g}"
            words.append(f"{number} × {figure.beside}" if most and figure.beside else number)
    return ", ".join(words)


def documents_in(folder: Path) -> list[Document]:
    """The results of all processors, by their names."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda d: str(d["machine"]["processor"]))


def _rows(document: Document, part: str, network: str) -> Iterator[dict[str, Any]]:
    yield from (r for r in document["rows"] if r["part"] == part and r["network"] == network and r["median"])


def _peers(pyhessian: float, others: float) -> dict[str, float]:
    """Targets beside the tools for curvature."""
    return {"PyHessian": pyhessian, "curvlinops": others, "hessian-eigenthings": others}


def _gradients(work: str) -> Callable[[Document], list[Figure]]:
    def figures(document: Document) -> list[Figure]:
        rows = [r for r in _rows(document, "hvp", "resnet20") if r["tool"] == OURS and r["work"] == work]
        return [Figure("", r["median"]) for r in rows]

    return figures


def _times(part: str, network: str) -> Callable[[Document], list[Figure]]:
    """How many times as long as we every peer takes."""

    def figures(document: Document) -> list[Figure]:
        rows = list(_rows(document, part, network))
        ours = next((r["median"] for r in rows if r["tool"] == OURS), None)
        return [Figure(r["tool"], r["median"] / ours, r["cut"]) for r in rows if ours and r["tool"] != OURS]

    return figures


def _keskar(document: Document) -> list[Figure]:
    rows = list(_rows(document, "keskar", "resnet20"))
    ours = next((r["median"] for r in rows if r["tool"] == OURS), None)
    return [Figure("scipy", r["median"] / ours, r["cut"]) for r in rows if ours and r["tool"] == "scipy, 10 iterations"]


def _rate(network: str, tool: str, work: str = POINTS) -> Callable[[Document], list[Figure]]:
    """Our rate of points in those of the loop and of the bare network."""

    def figures(document: Document) -> list[Figure]:
        rows = list(_rows(document, "surface", network))
        ours = next((r["median"] for r in rows if r["tool"] == tool and r["work"] == work), None)
        others = {r["tool"]: r["median"] for r in rows if r["tool"] in (PLAIN, LOOP)}
        return [Figure(name, ours / others[name]) for name in (PLAIN, LOOP) if ours and name in others]

    return figures


def _small_plane(network: str) -> Callable[[Document], list[Figure]]:
    """The rates of the part `surface`, and those of more samples."""
    few = _rate(network, f"{OURS}, small grid")

    def figures(document: Document) -> list[Figure]:
        rates = {r["tool"]: r["median"] for r in _rows(document, "small_plane", network)}
        return [*few(document), *([Figure(MORE, rates[OURS] / rates[PLAIN])] if {OURS, PLAIN} <= set(rates) else [])]

    return figures


def _refined(network: str) -> Callable[[Document], list[Figure]]:
    def figures(document: Document) -> list[Figure]:
        rates = {r["tool"]: r["median"] for r in _rows(document, "refinement", network)}
        return [Figure(LOOP, rates[OURS] / rates[LOOP])] if {OURS, LOOP} <= set(rates) else []

    return figures


def _help(document: Document) -> list[Figure]:
    return [Figure("", r["facts"]["of_bare"]) for r in _rows(document, "start", "") if r["tool"] == OURS]
