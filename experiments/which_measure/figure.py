"""figures/which_measure.png, drawn from experiments/results/which_measure.json alone."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.common.document import claims_held, read
from experiments.common.drawing import COLOURS, GREY, canvas, finish

NAMES = {"digits": "digits", "cifar10": "CIFAR-10"}
TRAINED, ATTACKED = COLOURS[0], COLOURS[1]
BLANK = {"fc": "white", "ec": "none", "pad": 1}
Rows = list[dict[str, Any]]


def draw() -> None:
    """A row a measure: AUC and tau as trained and under the attack."""
    document = read("which_measure")
    populations = document["populations"]
    order = _order(populations)
    names = [row["measure"] for row in order]
    panels = [(data, what) for data in populations for what in ("auc", "tau")]
    width = 3.4 + 2.8 * len(panels)
    figure, axes = canvas(1, len(panels), width=width, height=0.22 * len(names) + 1.2, sharey=True)
    for ax, (data, what) in zip(axes[0], panels, strict=True):
        _panel(ax, {row["measure"]: row for row in populations[data]["table"]}, names, what)
        ax.set_title(f"\n\n{NAMES[data]}: {_sizes(populations[data])}" if what == "auc" else " ", loc="left", fontsize=9)
    _labels(axes[0, 0], order, populations)
    handles = [
        Line2D([], [], color=TRAINED, marker="o", ms=5, lw=1.4, label="as trained"),
        Line2D([], [], color=ATTACKED, marker="D", ms=4.5, lw=1.4, label="rescaled by an adversary, same functions"),
        Line2D(
            [], [], color=GREY, ls="", marker="s", ms=8, alpha=0.25, label="survives: significant before and after, same side"
        ),
    ]
    # Above the panels' names, whose first two lines are empty for it; it is wider than its panel, and must not push the others.
    place = (-0.02, 1 + 0.24 / (0.22 * len(names) + 1.2))
    legend = axes[0, 0].legend(handles=handles, loc="lower left", bbox_to_anchor=place, ncols=3, frameon=False, fontsize=8)
    legend.set_in_layout(False)
    how, found = document["how"], document["verdict"]
    change = max(p["outputs_change"] for p in populations.values())
    fixed = next(c["numbers"] for c in found["claims"] if c["claim"].endswith("the share of wrong labels fixed, too"))
    caption = (
        f"Perceptrons trained to a loss of 0.01 on true and on redrawn labels, {len(how['seeds'])} seeds a recipe; bars: 95 % "
        "intervals, networks taken as independent. AUC 1: every network that memorized has the larger value; 1/2: chance. The "
        "adversary rescales layers by 10 and neurons by up to 10, in the networks of one kind, whichever hides the difference "
        f"better; outputs changed by at most {change:.0e} of the largest. Bold: proven not to move. The share "
        f"of wrong labels moves τ: with that share fixed, {len(fixed) or 'none'} of them ranks the gap. "
        f"Verdict: {found['verdict']}, {claims_held(found)}."
    )
    finish(
        figure,
        "which_measure",
        title="Which measure tells memorizing from generalizing networks, and survives rescaling?",
        caption=caption,
    )


def _order(populations: dict[str, Any]) -> Rows:
    """The measures of the first data set: proven ones first, then by how well they separate after the attack."""
    rows: Rows = next(iter(populations.values()))["table"]

    def kept(row: dict[str, Any]) -> float:
        if row["attacked"] is None:
            return -2.0
        before, after = (row[when]["auc"]["value"] - 0.5 for when in ("trained", "attacked"))
        return float(after if before >= 0 else -after)

    return sorted(rows, key=lambda row: (not row["proven"], -kept(row)))


def _sizes(population: dict[str, Any]) -> str:
    return f"{population['generalized']} generalized, {population['memorized']} memorized"


def _panel(ax: Axes, rows: dict[str, dict[str, Any]], names: list[str], what: str) -> None:
    """One statistic of every measure, with its intervals and an arrow from trained to attacked."""
    chance, survives = (0.5, "separates") if what == "auc" else (0.0, "ranks")
    for place, name in enumerate(names):
        row = rows.get(name, {"trained": None})
        if row["trained"] is None or row["attacked"] is None:
            ax.text(
                chance,
                place,
                "not measured" if name not in rows else "not defined",
                fontsize=7,
                color=GREY,
                va="center",
                ha="center",
                bbox=BLANK,
            )
            continue
        if row[survives]:
            ax.axhspan(place - 0.46, place + 0.46, color=GREY, alpha=0.13, lw=0)
        for when, colour, marker, shift in (("trained", TRAINED, "o", -0.16), ("attacked", ATTACKED, "D", 0.16)):
            found = row[when][what]
            ax.plot([found["low"], found["high"]], [place + shift] * 2, color=colour, lw=1.4, solid_capstyle="butt")
            ax.plot(
                found["value"], place + shift, marker, color=colour, ms=5 if marker == "o" else 4.2, clip_on=False, zorder=3
            )
    ax.axvline(chance, color="black", lw=0.8, ls="--", zorder=1)
    ax.set_xlim(*((-0.03, 1.03) if what == "auc" else (-1.06, 1.06)))
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1] if what == "auc" else [-1, -0.5, 0, 0.5, 1])
    ax.grid(axis="y", visible=False)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("AUC, memorized against generalized" if what == "auc" else "Kendall's τ with the generalization gap")


def _labels(ax: Axes, order: Rows, populations: dict[str, Any]) -> None:
    """Names of the measures; bold for those that are proven not to move, and a line below them."""
    ax.set_yticks(range(len(order)), [row["measure"] for row in order])
    for label, row in zip(ax.get_yticklabels(), order, strict=True):
        label.set_fontweight("bold" if row["proven"] else "normal")
    proven = sum(row["proven"] for row in order)
    for panel in ax.figure.axes[: 2 * len(populations)]:
        panel.axhline(proven - 0.5, color="#444444", lw=0.8)
