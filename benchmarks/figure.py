"""The results as one figure: products, whole jobs, surfaces."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from benchmarks.parts.hvp import WORK
from benchmarks.record import OURS
from landscape.report.style import (
    BLACK,
    BLUE,
    DPI,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    drawing,
    house,
    log_axis,
    new_figure,
    number_of,
    settle,
    short,
)  # fmt: skip

COLOURS = {
    OURS: BLUE, "PyHessian": VERMILLION, "curvlinops": GREEN, "hessian-eigenthings": PURPLE, "scipy": ORANGE,
    "reference loop": GREY, "loss-landscapes": YELLOW, "Landscaper": SKY, "matfree": BLACK,
}  # fmt: skip
JOBS = {
    "eigen": "{k} largest\neigenpairs",
    "trace": "trace\nto ±{percent:g} %",
    "density": "density,\nten probes",
    "keskar": "Keskar's\nε-sharpness",
}
Rows = list[dict[str, Any]]


@house
def draw(documents: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the PNG: for every processor panels of horizontal bars, the parts that were not run left out."""
    drawn = [(document, panels) for document in documents if (panels := _panels(document))]
    if not drawn:
        return
    heights = [0.35 + 2.6 * (-(-len(panels) // 2)) for _, panels in drawn]
    figure = new_figure(7.6, 0.75 + sum(heights))
    parts = figure.subfigures(len(drawn), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (document, panels) in zip(parts, drawn, strict=True):
        for i, panel in enumerate(panels, 1):
            panel(part.add_subplot(-(-len(panels) // 2), min(2, len(panels)), i))
        about, threads = document["networks"][_main(document)], number_of(document["machine"]["threads"], "thread")
        title = f"{about['title']}, {about['weights']:,} weights, {threads} of {document['machine']['processor']}"
        part.suptitle(title, x=0.01, ha="left")
    seen = {_colour_name(r["tool"]) for document in documents for r in document["rows"]} & set(COLOURS)
    figure.legend(
        handles=[Patch(color=c, label=name) for name, c in COLOURS.items() if name in seen],
        loc="outside lower left", ncols=4,
    )  # fmt: skip
    settle(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    with drawing():
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _main(document: dict[str, Any]) -> str:
    """The network of the products and the whole jobs."""
    return "resnet20" if "resnet20" in document["networks"] else next(iter(document["networks"]))


def _panels(document: dict[str, Any]) -> list[Callable[[Axes], None]]:
    """What there is to draw of one processor's results."""
    rows: Rows = document["rows"]
    main = _main(document)
    found: list[Callable[[Axes], None]] = []
    if any(r["part"] == "hvp" for r in rows):
        found.append(lambda ax: _products(ax, rows, main))
    if any(r["part"] in JOBS for r in rows):
        found.append(lambda ax: _jobs(ax, rows, main, document["asked"]))
    for n in [n for n in ("resnet20", "mlp", "vit", "gpt") if any(r["part"] == "surface" and r["network"] == n for r in rows)][
        :2
    ]:
        found.append(lambda ax, n=n: _surface(ax, rows, n, document["networks"][n]["title"]))  # type: ignore[misc]
    return found


def _products(ax: Axes, rows: Rows, network: str) -> None:
    """Every product in gradients."""
    groups = {
        work: [r for r in rows if r["part"] == "hvp" and r["network"] == network and r["work"] == work]
        for work in WORK.values()
    }
    bars = [(work.replace(" ", "\n", 1) if len(work) > 16 else work, [_bar(r, 1.0, 1.0, 1.0) for r in group])
            for work, group in groups.items() if group]  # fmt: skip
    _grouped(ax, bars)
    samples = next((r["facts"]["samples"] for g in groups.values() for r in g if "samples" in r["facts"]), 0)
    ax.set_title("Hessian-vector products")
    ax.set_xlabel(f"gradients of the unmodified network, {samples} samples")


def _jobs(ax: Axes, rows: Rows, network: str, asked: dict[str, Any]) -> None:
    """How many times as long as we a peer takes."""
    bars = []
    for part, title in JOBS.items():
        mine = [r for r in rows if r["part"] == part and r["network"] == network]
        ours = next((r for r in mine if r["tool"] == OURS and r["median"]), None)
        others = [r for r in mine if r["tool"] != OURS and (part != "keskar" or "on to" in r["tool"])]
        if ours is not None and others:
            bars.append((title.format(**asked), [_bar(r, ours["median"], ours["high"], ours["low"]) for r in others]))
    _grouped(ax, bars, log=True, times="×")
    ax.axvline(1.0, color=BLUE, linewidth=1.5)
    ax.set_title("Whole jobs, the same accuracy")
    ax.set_xlabel(f"time, in times of {OURS}'s")


def _surface(ax: Axes, rows: Rows, network: str, title: str) -> None:
    """Rates in those of the bare network."""
    mine = [r for r in rows if r["part"] == "surface" and r["network"] == network and "small" not in r["tool"]]
    plain = next(r for r in mine if r["tool"].startswith("plain"))
    bars = []
    for r in sorted(mine, key=lambda r: r["tool"].startswith(OURS)):
        if r is not plain and r["median"]:
            points = "further points" if r["work"] == "further points" else f"{r['facts']['points']:,} points and check"
            name = f"{r['tool']}\n{points}" if _colour_name(r["tool"]) == OURS else r["tool"]
            bars.append((name, [_bar(r, plain["median"], plain["high"], plain["low"])]))
    _grouped(ax, bars, times="×")
    ax.axvline(1.0, color="#444444", linewidth=1.0, linestyle=":")
    ax.set_title(f"Surface points, {title}")
    ax.set_xlabel("points a second, in plain model(x)'s")


def _bar(r: dict[str, Any], unit: float, high: float, low: float) -> dict[str, Any]:
    """A bar as a multiple of another one, between quartile over other quartile."""
    if r["median"] is None:
        gone = any(word in (r["failure"] or "") for word in ("not installed", "not available"))
        return {"tool": r["tool"], "value": None, "text": "missing" if gone else "fails"}
    below = " (stalled below)" if r["facts"].get("stop") == "stalled" else ""
    sizes = {"value": r["median"] / unit, "low": r["low"] / high, "high": r["high"] / low}
    return {"tool": r["tool"], **sizes, "cut": r["cut"], "remark": below}


def _grouped(ax: Axes, groups: list[tuple[str, list[dict[str, Any]]]], *, log: bool = False, times: str = "") -> None:
    """Groups from top to bottom, a bar for each candidate, its number at its end."""
    y, ticks = 0.0, []
    values = [b["high"] for _, bars in groups for b in bars if b["value"] is not None] or [1.0]
    start = 1.0 if log else 0.0  # on a log scale bars grow from 1 to either side
    left = min([b["low"] for _, bars in groups for b in bars if b["value"] is not None] + [1.0]) / 1.5 if log else 0.0
    for name, bars in groups:
        first = y
        for b in bars:
            colour = COLOURS.get(_colour_name(b["tool"]), GREY)
            if b["value"] is None:
                ax.text(start, y, f" {b['text']}", va="center", fontsize=7.5, color=colour)
            else:
                ax.barh(y, b["value"] - start, left=start, height=0.82, color=colour)
                if b["high"] > b["low"]:
                    ax.plot([b["low"], b["high"]], [y, y], color="#333333", linewidth=1.0)
                text = f" {'≥ ' if b['cut'] else ''}{short(b['value'], 2)}{' ' + times if times else ''}{b.get('remark', '')}"
                ax.text(max(b["value"], b["high"], start), y, text, va="center", fontsize=7.5,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4})  # fmt: skip
            y += 1.0
        ticks.append(((first + y - 1) / 2, name))
        y += 0.7
    if log:
        log_axis(ax, "x", left, max([*values, 2.0]) * (max([*values, 2.0]) / left) ** 0.3)
    else:
        ax.set_xlim(0.0, max(values) * 1.2)
    ax.set_ylim(y - 0.9, -0.7)
    ax.set_yticks([t for t, _ in ticks], [name for _, name in ticks])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")


def _colour_name(tool: str) -> str:
    """Whose colour a row has: "scipy, 10 iterations" is scipy's."""
    return tool.split(",")[0]
