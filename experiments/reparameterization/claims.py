"""The claims of Dinh et al. against the runs of `experiments.reparameterization.runs`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.common.document import KEPT, Claim, verdict
from experiments.common.options import Options
from experiments.common.statistics import detectable, detectable_share, direction, everywhere, exceptions, exp, mean
from experiments.common.work import Item
from experiments.reparameterization.runs import CONDITIONS

CLEAN, NOISE = CONDITIONS
# What the paper says can be made as large as one likes, and what stands for it here.
UNBOUNDED = ("lambda_max", "trace", "frobenius", "sam", "keskar", "pac_bayes")
SAME = 1e-6
COVERED = 0.8  # of the networks, at least, by the intervals of the trace
SPARED = "seeds in which a measure is not faked"
# Families that are no rescaling: constants added to biases. The paper does not know them.
CONSTANTS = ("shift", "bias")
NAMES = {("digits", "mlp"): "digits", ("digits", "mlp with BatchNorm"): "digits, BatchNorm", ("cifar10", "mlp"): "CIFAR-10"}

Pair = tuple[Item, Item]


def pairs(runs: Sequence[Item]) -> dict[str, list[Pair]]:
    """For every network, the clean and the memorizing run of every seed."""
    found: dict[str, dict[int, dict[str, Item]]] = {}
    for run in runs:
        item = run["item"]
        kind = NAMES[item["data"], item["network"]]
        found.setdefault(kind, {}).setdefault(item["seed"], {})[item["condition"]] = run
    return {kind: [(both[CLEAN], both[NOISE]) for both in seeds.values()] for kind, seeds in found.items()}


def reach(run: Item, measure: str) -> tuple[float, float]:
    """Smallest and largest value of a measure over the rescalings of a network, as trained among them; nan if it has none."""
    moves = [m for m in run["moves"] if m["family"] not in CONSTANTS]
    values = [run["values"][measure], *(m["values"].get(measure) for m in moves)]
    known = [v for v in values if v is not None]
    return (min(known), max(known)) if known else (math.nan, math.nan)


def proven(run: Item, measure: str) -> bool:
    """Whether the measure is proven to survive every rescaling of this network."""
    families = {m["family"].removeprefix("flattest ") for m in run["moves"]} - set(CONSTANTS)
    return families <= set(run["survives"][measure])


def table(runs: Sequence[Item]) -> list[dict[str, Any]]:
    """For every network and measure: in how many seeds the order of clean and memorizing network is what, before and after."""
    rows = []
    for kind, both in pairs(runs).items():
        for measure in both[0][0]["values"]:
            start = [(c["values"][measure], n["values"][measure]) for c, n in both]
            if any(v is None for pair in start for v in pair):
                continue
            clean, noise = [reach(c, measure) for c, _ in both], [reach(n, measure) for _, n in both]
            rows.append(
                {
                    "network": kind,
                    "measure": measure,
                    "proven": proven(both[0][0], measure),
                    "clean_above_trained": sum(c > n for c, n in start),
                    "noise_below_trained": sum(n < c for c, n in start),
                    "clean_above_moved": sum(c[1] > n for c, (_, n) in zip(clean, start, strict=True)),
                    "noise_below_moved": sum(n[0] < c for n, (c, _) in zip(noise, start, strict=True)),
                    "clean": [{"value": c, "low": low, "high": high} for (c, _), (low, high) in zip(start, clean, strict=True)],
                    "noise": [{"value": n, "low": low, "high": high} for (_, n), (low, high) in zip(start, noise, strict=True)],
                    "seeds": len(both),
                }
            )
    return rows


def judged(runs: Sequence[Item], lines: Sequence[Item], given: Options) -> Item:
    """The verdict of the study."""
    known = pairs(runs)
    rows = table(runs)
    claims = [
        _same(runs), _unbounded(rows), _bound(runs), _flatter(known), _reverse(rows), _faked(rows), _survive(runs, rows),
        *_slices(lines),
    ]  # fmt: skip
    width = 16 * given.width
    pictures = f"; {given.samples} CIFAR-10 images, perceptron 3072-{width}-{width}-10" if given.data else ""
    sharper = [r["clean_above_moved"] == r["seeds"] for r in rows if r["measure"] in UNBOUNDED]
    fixed = [r for r in rows if r["proven"]]
    return verdict(
        claims,
        headline=f"rescaled, a clean network looks sharper than one that memorized in {sum(sharper)} of {len(sharper)} pairs "
        f"of network and measure; {sum(map(_moved, fixed))} of {len(fixed)} measures with a proof moved",
        scale=f"{len(given.seeds)} seeds; 1,347 digits, perceptron 64-128-64-10 with and without BatchNorm{pictures}",
        departures=[
            "The paper proves its statements and trains nothing; here they are checked on trained networks.",
            f"Measures are those of the first {runs[0]['item']['samples']} training samples, in float64.",
            "Networks that memorized have random labels; all are trained to a loss of 0.01, and compared seed by seed.",
            "Factors are from 1/10 to 10, but for those that give the smallest trace; larger ones would move measures more. "
            "After the first result, factors up to 100 for the gains of BatchNorm were added: 10 did not reach the "
            "networks that memorized.",
        ],
    )


def _same(runs: Sequence[Item]) -> Claim:
    delta = [(m["delta"], m["family"]) for r in runs for m in r["moves"]]
    worst, family = max(delta)
    return Claim(
        "a rescaled network computes the same function",
        "exactly (definition 5)",
        f"largest change of an output, over the largest output, in {len(delta)} moves: {worst:.1e} (family {family})",
        worst <= SAME,
        numbers={"largest": worst, "moves": len(delta)},
    )


def _unbounded(rows: Sequence[dict[str, Any]]) -> Claim:
    own = [r for r in rows if r["measure"] in UNBOUNDED]
    missed = [f"{r['network']} {r['measure']}" for r in own if r["clean_above_moved"] < r["seeds"]]
    already = sum(r["clean_above_trained"] == r["seeds"] for r in own)
    factors = {f"{r['network']}, {r['measure']}": float(np.median([c["high"] / c["value"] for c in r["clean"]])) for r in own}
    return Claim(
        "a clean network can be made to look sharper than one that memorized",
        "lambda_max, trace and epsilon-sharpness can be made as large as one likes (theorems 4 and 5)",
        f"in every seed by {len(own) - len(missed)} of {len(own)} (network, measure), by {already} already as trained"
        + (f"; not by {', '.join(missed)} with factors as small as these" if missed else "")
        + f"; they grow {min(factors.values()):.3g} to {max(factors.values()):.3g} times",
        None if missed else True,  # no factor shows that a larger one does not do it
        exceptions(len(rows[0]["clean"]), SPARED),
        numbers={"growth": factors, "missed": missed, "as trained": already},
    )


def _bound(runs: Sequence[Item]) -> Claim:
    own = [r for r in runs if r["flattening"]]
    error = [abs(r["flattening"]["reached"] / r["flattening"]["bound"] - 1) for r in own]
    # The estimate of the toolkit, of random probes, against the exact trace as trained: two computations without common code.
    inside = [abs(r["values"]["trace"] - r["flattening"]["trained"]) <= r["errors"]["trace"] for r in own]
    around = [trace / r["flattening"]["bound"] for r in own for _, trace in r["flattening"]["around"]]
    # Held by fewer than 80 %, the claim is refuted.
    missing = detectable_share(len(own), len(own) - math.ceil(COVERED * len(own)) + 1)
    saved = mean([r["flattening"]["bound"] / r["flattening"]["trained"] for r in own])
    return Claim(
        "flattening is bounded: rescaling one layer takes the trace to 2 sqrt(tr H11 tr H22) and no further",
        "the smallest trace over alpha (section 4.2)",
        f"largest relative difference of the bound and the trace of the network rescaled to it, {len(own)} networks: "
        f"{_small(max(error))}; at {len(around)} other factors the trace is {min(around):.3g} to {max(around):.3g} times the "
        f"bound; the bound is {saved} of the trace as trained; the trace by probes agrees with the exact one in "
        f"{sum(inside)} of {len(own)} 95 % intervals",
        max(error) <= KEPT and min(around) >= 1 and sum(inside) >= COVERED * len(own),
        f"intervals of the trace by probes that hold it in {100 * (1 - missing):.0f} % of networks",
        numbers={
            "largest_difference": max(error),
            "bound_over_trained": saved.to_json(),
            "inside": sum(inside),
            "around": [min(around), max(around)],
        },
    )


def _flatter(known: dict[str, list[Pair]]) -> Claim:
    def logs(both: Sequence[Pair], flat: str, other: str) -> list[float]:
        return [math.log(n["flattening"][flat] / c["flattening"][other]) for c, n in both]

    own = {kind: both for kind, both in known.items() if both[0][0]["flattening"]}
    found = {
        f"{kind}, {word}": logs(both, flat, other)
        for kind, both in own.items()
        for word, flat, other in (
            ("as trained", "trained", "trained"),
            ("one factor a layer", "flattest layer", "trained"),
            ("one a neuron", "flattest node", "trained"),
            ("both flattest", "flattest node", "flattest node"),
        )
    }
    told = {k: mean(v).exp() for k, v in found.items()}
    return Claim(
        "a network that memorized can be rescaled to a smaller trace than the clean one has as trained",
        "no number; the smallest trace over all factors is the minimum of a convex function: what is below it is impossible",
        "trace over that of the clean network: " + "; ".join(f"{k}: {v}" for k, v in told.items()),
        everywhere([direction(v, equal=1.0) for k, v in told.items() if k.endswith("one a neuron")], sign=-1),
        f"a factor of {max(exp(detectable(v, [0.0] * len(v))) for v in found.values()):.3g}",
        {k: v.to_json() for k, v in told.items()},
        question=True,
    )


def _reverse(rows: Sequence[dict[str, Any]]) -> Claim:
    own = [r for r in rows if r["measure"] in UNBOUNDED]
    missed = [f"{r['network']} {r['measure']}" for r in own if r["noise_below_moved"] < r["seeds"]]
    already = sum(r["noise_below_trained"] == r["seeds"] for r in own)
    return Claim(
        "the reverse: a network that memorized can be made to look flatter than a clean one",
        "no number; the paper bounds how far a network can be flattened",
        f"in every seed by {len(own) - len(missed)} of {len(own)} (network, measure), by {already} already as trained"
        + (f"; not by {', '.join(missed)}" if missed else ""),
        not missed,
        exceptions(len(rows[0]["clean"]), SPARED),
        numbers={"missed": missed, "as trained": already},
        question=True,
    )


def _faked(rows: Sequence[dict[str, Any]]) -> Claim:
    def count(test: Callable[[dict[str, Any]], bool], among: Sequence[dict[str, Any]]) -> str:
        return f"{sum(test(r) for r in among)} of {len(among)}"

    free = [r for r in rows if not r["proven"]]
    fixed = [r for r in rows if r["proven"]]
    up = [r for r in free if r["clean_above_trained"] == 0]
    flipped = [r for r in up if r["clean_above_moved"] == r["seeds"] or r["noise_below_moved"] == r["seeds"]]
    moved = [r for r in fixed if _moved(r)]
    spared = [f"{r['network']}, {r['measure']}" for r in up if r not in flipped]
    return Claim(
        "every measure without a proof that it survives can be faked, no measure with one",
        "lambda_max, trace and epsilon-sharpness cannot tell networks apart (section 4)",
        f"where memorizing networks are above clean ones in every seed, rescaling makes clean ones larger in every seed for "
        f"{count(lambda r: r['clean_above_moved'] == r['seeds'], up)}, and memorizing ones smaller for "
        f"{count(lambda r: r['noise_below_moved'] == r['seeds'], up)} (network, measure); of {len(fixed)} with a proof "
        f"{len(moved)} moved; not faked with factors as small as these: {', '.join(spared) or 'none'}",
        len(flipped) == len(up) and not moved,
        exceptions(len(rows[0]["clean"]), SPARED),
        numbers={
            "faked": [f"{r['network']}, {r['measure']}" for r in flipped],
            "not faked": spared,
            "memorizing made smaller": [f"{r['network']}, {r['measure']}" for r in up if r["noise_below_moved"] == r["seeds"]],
            "proven": [f"{r['network']}, {r['measure']}" for r in fixed],
            "proven, but moved": [f"{r['network']}, {r['measure']}" for r in moved],
        },
        question=True,  # the paper speaks of lambda_max, the trace and epsilon-sharpness
    )


def _survive(runs: Sequence[Item], rows: Sequence[dict[str, Any]]) -> Claim:
    verdicts = [(name, v) for r in runs for m in r["moves"] for name, v in m["verdicts"].items()]
    claimed = [name for name, v in verdicts if v in ("invariant", "CLAIM BROKEN")]
    broken = [name for name, v in verdicts if v == "CLAIM BROKEN"]
    constant = {
        name
        for r in runs
        for m in r["moves"]
        for name, v in m["verdicts"].items()
        if m["family"] in CONSTANTS and v == "moved" and proven(r, name)
    }
    apart = {
        f"{r['network']}, {r['measure']}": r["clean_above_trained"]
        for r in rows
        if r["proven"] and r["clean_above_trained"] in (0, r["seeds"])
    }
    return Claim(
        "measures that are proven to survive a family of symmetries do survive it",
        "not in the paper; the proofs are cited at each measure",
        f"{len(claimed) - len(broken)} of {len(claimed)} comparisons agree to rounding; {len(apart)} of "
        f"{sum(r['proven'] for r in rows)} (network, measure) that no rescaling moves order clean and memorizing the same way "
        f"in every seed; a constant added to biases, which no rescaling is, moves {len(constant)} of those measures",
        not broken,
        numbers={
            "comparisons": len(claimed),
            "broken": sorted(set(broken)),
            "clean_above_memorizing": apart,
            "moved by constants": sorted(constant),
        },
        question=True,
    )


def _slices(lines: Sequence[Item]) -> list[Claim]:
    def apart(curves: dict[tuple[str, str], np.ndarray], kind: str, norm: str) -> float:
        own, other = curves["trained", norm], curves[kind, norm]
        return float(np.nanmax(np.abs(np.log(other / own))))

    found: dict[str, list[float]] = {}
    for line in lines:
        curves = {(c["version"], c["norm"]): np.array(c["loss"], dtype=float) for c in line["curves"]}
        for kind, norm in (("layer", "none"), ("layer", "filter"), ("node", "none"), ("node", "filter")):
            found.setdefault(f"{kind}-wise, {'raw' if norm == 'none' else 'filter-normalized'}", []).append(
                apart(curves, kind, norm)
            )
    told = {k: math.exp(max(v)) - 1 for k, v in found.items()}
    least = {k: math.exp(min(v)) - 1 for k, v in found.items()}

    def words(kind: str) -> str:
        own = {norm: told[f"{kind}, {norm}"] for norm in ("raw", "filter-normalized")}
        return "largest relative change of the loss on a line: " + "; ".join(f"{n}: {_small(v)}" for n, v in own.items())

    published = "filter-normalized plots are not misled by rescaling (Li et al. 2018, section 4)"
    return [
        Claim(
            "filter normalization makes the picture of a network independent of layer-wise rescaling",
            published,
            words("layer-wise"),
            told["layer-wise, filter-normalized"] <= KEPT and least["layer-wise, raw"] > 0.01,
            numbers={k: v for k, v in told.items() if k.startswith("layer")},
        ),
        Claim(
            "and of neuron-wise rescaling, too",
            f"{published}; not said for single neurons",
            words("node-wise"),
            told["node-wise, filter-normalized"] <= KEPT,
            numbers={k: v for k, v in told.items() if k.startswith("node")},
            question=True,
        ),
    ]


def _small(value: float) -> str:
    """A relative change; 0 is a change below the six digits that are kept."""
    return f"below {KEPT:g}" if value <= KEPT else f"{value:.2g}"


def _moved(row: dict[str, Any]) -> bool:
    """Whether a measure moved in some network."""
    return any(v["high"] - v["low"] > _tolerance(v["value"]) for side in ("clean", "noise") for v in row[side])


def _tolerance(value: float) -> float:
    """How far two float64 computations of a measure may differ: maximisations agree to this, too."""
    return 1e-5 * max(abs(value), 1e-9)
