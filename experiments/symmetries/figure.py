"""figures/symmetries.png, drawn from experiments/results/symmetries.json alone, and the names of the networks that it shows."""

import statistics
from typing import Any

from experiments.common.document import claims_held, read
from experiments.common.drawing import COLOURS, GREY, MARKERS, canvas, finish

CLEAN, NOISE, PAIR, ALL = "clean", "random labels", "clean, moved along its pairs", "clean, moved along every symmetry"
SHOWN = (CLEAN, PAIR, ALL)
Document = dict[str, Any]


def draw() -> None:
    """Every measure of the clean networks, as trained and moved, over its value for the memorizing network of the same seed."""

    def proof(row: Document) -> tuple[bool, bool]:
        return row[ALL]["survives"], row[PAIR]["survives"]

    document = read("symmetries")
    rows = sorted(document["rows"], key=proof)
    figure, axes = canvas(1, 1, width=8.4, height=5.7)
    ax = axes[0, 0]
    for place, row in enumerate(rows):
        for i, kind in enumerate(SHOWN):
            ratios = [a / b for a, b in zip(row["values"][kind], row["values"][NOISE], strict=True) if a > 0 and b > 0]
            look = {"color": COLOURS[i], "ms": 5, "mec": "white", "mew": 0.4, "label": kind if place == 0 else None}
            ax.plot(ratios, [place + 0.22 * (i - 1)] * len(ratios), MARKERS[i], **look)
        if not any(value for kind in SHOWN for value in row["values"][kind]):
            ax.text(1.0, place, "  0 for all of the clean networks", va="center", fontsize=8, color=GREY)
        if place and proof(row) != proof(rows[place - 1]):
            ax.axhline(place - 0.5, color="#444444", lw=0.8)
    ax.axvline(1.0, color="black", lw=1.0, ls="--")
    words = {(False, False): "", (False, True): "  (survives pairs)", (True, True): "  (survives all)"}
    ax.set_yticks(range(len(rows)), [row["measure"] + words[proof(row)] for row in rows])
    ax.invert_yaxis()
    ax.set(xscale="log", xlabel="value / value of the network trained on random labels (dashed: equal)")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.3, 1.0), ncols=3, frameon=False, fontsize=8)
    finish(
        figure,
        "symmetries",
        title="A clean transformer, moved along its symmetries: the same function, any sharpness",
        caption=caption(document),
    )


def caption(document: Document) -> str:
    """What was trained, how it was moved, and the verdict."""
    networks = [network for run in document["runs"] for network in run["networks"]]
    clean, noise = (100 * statistics.median(n["test_accuracy"] for n in networks if n["network"] == k) for k in (CLEAN, NOISE))
    pair, whole = document["sizes"][PAIR], document["sizes"][ALL]
    return (
        f"Digits in 16 patches, 1 block, 2 heads, training loss 0.01; {len(document['how']['seeds'])} seeds, a mark each; "
        f"{document['samples']} training samples, float64. "
        f"Moved at random: along pairs by matrices of condition {pair['condition']:g}; along everything but norm-in by "
        f"matrices of condition {whole['condition']:g} and factors up to {whole['alpha']:g}. "
        f"Outputs changed by at most {document['outputs_change']:.0e} of the largest. "
        f"Median test accuracy: clean {clean:.1f} %, random labels {noise:.1f} %. "
        f"Judged: {claims_held(document['verdict'])}."
    )
