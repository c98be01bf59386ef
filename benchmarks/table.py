"""The results as Markdown tables, one a part, for docs/speed.md."""

from typing import Any

from benchmarks.parts import PARTS
from benchmarks.record import OURS, file_name

Rows = list[dict[str, Any]]
# What a cell shows beside the time.
FACTS = {
    "hvp": (("deviation", "error {:.0e}"),),
    "matrices": (("deviation", "error {:.0e}"),),
    "surface": (("points", "{} points"), ("deviation_from_float64", "error {:.0e}")),
    "small_plane": (("points", "{} points"),),
    "refinement": (("computed", "{} points computed"), ("off", "off by at most {:.2g}")),
    "eigen": (("worst_residual", "residual {:.0e}"), ("products", "{} products"), ("pairs", "{} pairs")),
    "trace": (("half_width", "±{:.1%}"), ("products", "{} products")),
    "density": (("products", "{} products"),),
    "keskar": (("value", "φ = {:.3g}"), ("gradients", "{} gradients"), ("stop", "{}")),
    "start": (("of_bare", "{:.2f} × bare"),),
}


def table(document: dict[str, Any]) -> str:
    """All parts that were run, the failures, and how it was measured."""
    notes: list[str] = []
    blocks = []
    for part, title in PARTS.items():
        rows = [r for r in document["rows"] if r["part"] == part]
        if rows:
            blocks.append(f"**{title.format(**document['asked'])}**\n\n" + _part(part, rows, document, notes))
    failures = [f"[{i}] {text}" for i, text in enumerate(notes, 1)]
    return "\n\n".join([*blocks, "  \n".join([*failures, _method(document)])]) + "\n"


def _part(part: str, rows: Rows, document: dict[str, Any], notes: list[str]) -> str:
    """Tools across, networks and work down; a table of rates gives each its own column of the same work."""
    if part in ("keskar", "start"):
        return _upright(part, rows, document, notes)
    shown = [r for r in rows if r["tool"] != "plain PyTorch"]
    tools = list(dict.fromkeys(_column(r) for r in shown))
    works = list(dict.fromkeys((r["network"], _work(r)) for r in shown if r["work"]))
    lines = [f"| | {' | '.join(tools)} |", "|---" * (len(tools) + 1) + "|"]
    for network, work in works:
        cells = []
        for tool in tools:
            mine = [r for r in shown if _column(r) == tool and r["network"] == network and _work(r) in (work, "")]
            ours = next((r for r in shown if r["tool"] == OURS and r["network"] == network and _work(r) == work), None)
            cells.append(_cell(part, mine[0], ours, notes) if mine else "–")
        lines.append(f"| {_label(network, work, rows, document)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _upright(part: str, rows: Rows, document: dict[str, Any], notes: list[str]) -> str:
    """One line a candidate."""
    lines = ["| | | time |", "|---|---|---|"]
    for r in rows:
        ours = next((o for o in rows if o["tool"] == OURS and o["network"] == r["network"]), None)
        lines.append(f"| {_label(r['network'], '', rows, document)} | {r['tool']} | {_cell(part, r, ours, notes)} |")
    return "\n".join(lines)


def _column(r: dict[str, Any]) -> str:
    return f"{r['tool']}, further points" if r["work"] == "further points" else r["tool"]


def _work(r: dict[str, Any]) -> str:
    """Points of both grids are one line of the table."""
    return "points a second" if r["work"] == "further points" else r["work"]


def _label(network: str, work: str, rows: Rows, document: dict[str, Any]) -> str:
    """What a line is about: the network with its samples, and the work where a part has several."""
    if not network:
        return ""
    samples = next((r["facts"]["samples"] for r in rows if r["network"] == network and "samples" in r["facts"]), None)
    name = document["networks"][network]["title"] + (f", {samples:,} samples" if samples else "")
    several = len({_work(r) for r in rows if r["work"] and r["tool"] == OURS}) > 1
    return f"{name}: {work}" if several and work else name


def _cell(part: str, r: dict[str, Any], ours: dict[str, Any] | None, notes: list[str]) -> str:
    """Median and quartiles, how many times ours, and what came out; a number in brackets leads to a failure."""
    if r["median"] is None:
        text = f"{r['tool']}: {r['failure']}"
        if text not in notes:
            notes.append(text)
        missing = any(word in r["failure"] for word in ("not installed", "not available"))
        return f"{'missing' if missing else 'fails'} [{notes.index(text) + 1}]"
    spread = f" [{_number(r['low'])}–{_number(r['high'])}]" if len(r["seconds"]) > 1 and r["low"] != r["high"] else ""
    unit = {"s": " s", "gradients": "", "points/s": ""}[r["unit"]]
    once = " (once)" if len(r["seconds"]) == 1 and not r["cut"] else ""
    text = f"{'≥ ' if r['cut'] else ''}{_number(r['median'])}{unit}{spread}{once}"
    text = f"**{text}**" if r["tool"].startswith(OURS) else text
    if r["unit"] == "s" and ours is not None and ours is not r and ours["median"]:
        text += f", {'≥ ' if r['cut'] else ''}{r['median'] / ours['median']:.2g} ×"
    facts = [form.format(r["facts"][key]) for key, form in FACTS.get(part, ()) if r["facts"].get(key) is not None]
    if part == "eigen" and r["facts"].get("pairs") and not r["cut"]:
        facts = facts[:-1]  # all of them: not worth a word
    return text + (f"; {', '.join(facts)}" if facts else "")


def _number(x: float) -> str:
    """Three digits."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def _method(document: dict[str, Any]) -> str:
    """How and where."""
    m, v = document["machine"], document["versions"]
    tools = ", ".join(f"{name} {number}" for name, number in v.items() if number)
    again = document["again"]
    sentences = (
        "Medians [quartiles] of alternating rounds on trained networks, float32; (once) is the one round of what takes long;",
        f"ours is bold; {m['threads']} threads of {m['processor']};",
        f"{tools}.",
        "× is the time beside ours; ≥ was stopped there.",
        "Residuals are true ones, ‖Hv − λv‖ / λ_max, by an independent product.",
        "Points include all that a plane takes, with its check and what is settled before; further points are those of our",
        "larger grid beyond the small one.",
        "What is done once is charged to nobody: our checks and the trial of methods, the peers' constructors.",
        *(["So is what JAX compiles for matfree, which has products and traces here."] if v.get("matfree") else []),
        "All tools but Landscaper run in one process, whose C library keeps freed memory for the next tensor, as ours tells it",
        "to.",
        "A peer without an interval is given the products that its best estimator needs, hessian-eigenthings the number of",
        "Lanczos steps; both were found out for nothing.",
        *([f"Measured again in a later run: {', '.join(again)}."] if again else []),
        *([f"Commit {document['commit']}."] if document.get("commit") else []),
        f"`python -m benchmarks`: {document['seconds']['all'] / 60:.0f} minutes; every time: "
        f"benchmarks/results/peers/{file_name(m['processor'])}.json.",
    )
    return " ".join(sentences)
