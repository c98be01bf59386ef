"""figures/memorized_samples.png, drawn from experiments/results/memorized_samples.json alone."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments.common.document import claims_held, read
from experiments.common.drawing import COLOURS, MARKERS, band, canvas, finish
from experiments.memorized_samples.claims import BAR
from experiments.memorized_samples.growth import JPEG, OWN, SHARE, VARIANTS, WHOLE
from experiments.memorized_samples.runs import PEER, PEER_AT_END, WRONG

# Scores over training, at the end of training, and the peer; colours and markers in this order.
OVER = ("cumulative_loss", "mean_loss_sensitivity", "mean_input_curvature", "forgetting")
END = ("loss", "loss_sensitivity", "input_curvature", "gauss_newton_trace", "top_curvature")
NAMES = {
    "cumulative_loss": "cumulative loss",
    "mean_loss_sensitivity": "loss sensitivity ‖∂ℓ/∂x‖₁",
    "mean_input_curvature": "input curvature",
    "forgetting": "forgetting events",
    "loss": "loss",
    "loss_sensitivity": "loss sensitivity ‖∂ℓ/∂x‖₁",
    "input_curvature": "input curvature",
    "gauss_newton_trace": "trace of Gauss-Newton, tr G",
    "top_curvature": "curvature along top eigenvector, vᵀHv",
    PEER: "confident learning (cleanlab), stopped early",
    PEER_AT_END: "confident learning (cleanlab)",
}
DATA = {"digits": "digits", "cifar10": "CIFAR-10 images"}


def draw() -> None:
    """AUROC against the share of wrong labels: a row for each data set, scores over training left, at its end right."""
    document = read("memorized_samples")
    rows, how, found = document["table"], document["how"], document["verdict"]
    sets = list(dict.fromkeys(r["data"] for r in rows))
    growth = document["growth"]
    figure, axes = canvas(len(sets) + bool(growth), 2, width=9.6, height=3.1, sharey="row")
    for i, data in enumerate(sets):
        for ax, names, peer, title in (
            (axes[i, 0], OVER, PEER, "over training"),
            (axes[i, 1], END, PEER_AT_END, "at the end of training"),
        ):
            _panel(ax, [r for r in rows if r["data"] == data], names, peer)
            ax.set_title(f"{DATA[data]}, scores {title}", loc="left", fontsize=9)
        if data == "cifar10":
            _published(axes[i, 0], found["claims"])
            _with_all_images(axes[i, 0], found["claims"])
        axes[i, 0].set_ylabel("AUROC for the wrong labels")
    for ax in axes[0]:
        ax.legend(fontsize=6.8, frameon=False, loc="lower left", ncols=2)
    for ax in axes[len(sets) - 1]:
        ax.set_xlabel("labels made wrong, %")
    if growth:
        _by_images(axes[-1, 0], growth)
        _by_epochs(axes[-1, 1], growth)
        axes[-1, 0].set_ylim(0.75, 1.0)
    size, _, memorized = found["scale"].partition("; ")[2].partition("; wrong labels")
    version = document["peer"].get("cleanlab")
    peer = f"cleanlab {version}, 5-fold cross-validation" if version else "cleanlab: not installed"
    finish(
        figure,
        "memorized_samples",
        title="Wrong labels found by scores of single samples",
        caption=f"Means over {len(how['seeds'])} seeds with 95 % bootstrap intervals{_fewer(growth)}; {size}; "
        f"wrong labels{memorized}. Dashed: the bar, {BAR}; dotted: a score that knows nothing. "
        f"{'Open marks: published, ResNet-18 and 50,000 images. ' if 'cifar10' in sets else ''}"
        f"{_stars(found['claims'])}{peer}. Garg et al. 2024: {found['verdict']}, {claims_held(found)}.",
    )


def _whole(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """AUROCs with all of CIFAR-10 by share; empty if that was not run."""
    return [c["numbers"] for c in claims if f"all {WHOLE:,} images" in c["claim"]]


def _stars(claims: list[dict[str, Any]]) -> str:
    """How the stars were run, where there are any."""
    return "Stars: a wider VGG-9, one seed with its interval over samples, but at 5 %. " if _whole(claims) else ""


def _fewer(growth: list[dict[str, Any]]) -> str:
    """How many seeds the last row has."""
    seeds = sorted({row["seeds"] for row in growth})
    return f" (last row: {' to '.join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))} seeds)" if seeds else ""


def _by_images(ax: Axes, growth: list[dict[str, Any]]) -> None:
    """AUROC of the cumulative loss against the number of images: a line for each recipe and kind of images."""
    for i, variant in enumerate(VARIANTS):
        for images, fill in ((OWN, COLOURS[i]), (JPEG, "white")):
            rows = [r for r in growth if (r["images"], r["variant"]) == (images, variant)]
            shift = 1 + 0.03 * (i - len(VARIANTS) / 2)
            own = any(r["images"] == OWN for r in growth if r["variant"] == variant)
            label = variant if images == OWN or not own else "_"
            if rows:
                style = {"mfc": fill, "ls": "-" if images == OWN else "--"}
                band(ax, [shift * r["samples"] for r in rows], [r["cumulative_loss"] for r in rows], i, label, **style)
    ax.axhline(BAR, color="black", lw=0.8, ls="--")
    ax.set_xscale("log")
    sizes = sorted({r["samples"] for r in growth})
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.set_xlabel("images (open marks: re-encoded as JPEG)")
    ax.set_ylabel("AUROC for the wrong labels")
    ax.set_title(f"CIFAR-10 images, {SHARE:.0%} wrong: cumulative loss", loc="left", fontsize=9)
    ax.legend(fontsize=6.8, frameon=False, loc="lower right")


def _by_epochs(ax: Axes, growth: list[dict[str, Any]]) -> None:
    """AUROC of the loss summed over the first epochs, means over seeds; the first point is before training."""
    for i, variant in enumerate(VARIANTS):
        for row in growth:
            if row["variant"] == variant and row["after_epochs"]:
                look: dict[str, Any] = {"ls": "-" if row["images"] == OWN else "--", "color": COLOURS[i], "lw": 1.1}
                ax.plot(range(len(row["after_epochs"])), row["after_epochs"], **look)
                end = (len(row["after_epochs"]) - 1, row["after_epochs"][-1])
                ax.annotate(f"{row['samples']:,}", end, (3, 0), textcoords="offset points", fontsize=6, va="center")
    ax.axhline(BAR, color="black", lw=0.8, ls="--")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epochs in the sum (dashed: JPEG)")
    ax.set_title("The same, by the epochs in the sum; numbers: images", loc="left", fontsize=9)


def _published(ax: Axes, claims: list[dict[str, Any]]) -> None:
    """The papers' numbers, with the colours of their scores."""
    for i, name in enumerate(OVER):
        numbers = [c["numbers"]["published"] for c in claims if "published" in c["numbers"] and f": {name} " in c["claim"]]
        for values in numbers:
            ax.plot(range(len(values)), values, color=COLOURS[i], marker=MARKERS[i], mfc="white", ms=5, lw=0.7, ls=":")


def _with_all_images(ax: Axes, claims: list[dict[str, Any]]) -> None:
    """The cumulative loss with all of CIFAR-10, at the shares that were run."""
    for numbers in _whole(claims):
        places = [(i, numbers[f"{wrong:g}"]) for i, wrong in enumerate(WRONG) if f"{wrong:g}" in numbers]
        style = {"color": COLOURS[0], "marker": "*", "ms": 8}
        label = f"cumulative loss, all {WHOLE:,} images (JPEG)"
        band(ax, [i for i, _ in places], [v for _, v in places], 0, label, **style)
        star = [h for h in zip(*ax.get_legend_handles_labels(), strict=True) if h[1] == label]
        ax.legend(*zip(*star, strict=True), fontsize=6.8, frameon=False, loc="lower left")


def _panel(ax: Axes, rows: list[dict[str, Any]], names: tuple[str, ...], peer: str) -> None:
    """Some scores and the peer on one data set."""
    shares = sorted({r["wrong"] for r in rows})
    places = range(len(shares))
    for i, name in enumerate((*names, peer)):
        known = {r["wrong"]: r["auroc"] for r in rows if r["score"] == name}
        if len(known) == len(shares):
            style: dict[str, Any] = {"color": "#444444", "marker": "x", "ls": "--"} if name == peer else {}
            shift = 0.06 * (i - len(names) / 2)
            band(ax, [p + shift for p in places], [known[s] for s in shares], i, NAMES[name], **style)
    ax.axhline(BAR, color="black", lw=0.8, ls="--")
    ax.axhline(0.5, color="black", lw=0.8, ls=":")
    ax.set_xticks(list(places), [f"{100 * s:g}" for s in shares])
    ax.set_ylim(0.3, 1.02)
