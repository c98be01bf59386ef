"""The claims against the table of every data set."""

import math
from collections.abc import Sequence

from scipy import stats

from experiments.common.document import Claim, verdict
from experiments.common.options import Options
from experiments.common.statistics import (
    LEVEL,
    Interval,
    adjusted,
    asked,
    detectable_of,
    detectable_tau,
    every,
    everywhere,
    p_of,
    within,
)
from experiments.common.work import Item
from experiments.which_measure.networks import MEASURED
from experiments.which_measure.ranking_table import measured, side
from landscape.measures import MEASURES

# Largest relative change of a measure that has not moved, in float32; a maximum ends elsewhere within 5 %.
SAME, SAME_MAXIMUM = 1e-2, 5e-2
MAGNITUDE, BEST = "pac_bayes_magnitude", 0.25  # the best quarter


def judged(populations: dict[str, Item], given: Options) -> Item:
    """The claims against the tables."""
    rows = [(data, row) for data, p in populations.items() for row in measured(p["table"])]
    known = {(data, row["measure"]): row for data, row in rows}
    claims = [
        _faked(populations, rows), _proven(rows), _disagree(populations, known), _magnitude(populations, known),
        _products(populations, known), _robust(rows), _granulated(rows), _beyond(rows, labels=False),
        _beyond(rows, labels=True),
    ]  # fmt: skip
    counts = "; ".join(
        f"{data}: {p['generalized']} networks with true labels, {p['memorized']} with wrong ones"
        for data, p in populations.items()
    )
    samples = " and ".join(f"{MEASURED[data]} ({data})" for data in populations)
    kept = {d: [r for e, r in rows if e == d and r["separates"]] for d in populations}
    return verdict(
        claims,
        headline="; ".join(
            f"{d}: {len(own)} of {sum(e == d for e, _ in rows)} measures tell memorizing networks apart before and after an "
            f"adversary{_best_of(own)}"
            for d, own in kept.items()
        )
        + f"; with the share of wrong labels fixed {len(claims[-1].numbers) or 'none'} of them ranks the gap",
        scale=f"{len(given.seeds)} seeds a recipe; {counts}; measured on {samples} training samples in float32",
        departures=[
            "One architecture, a small perceptron, instead of a large grid of architectures; no run is dropped. The networks "
            "are a grid of their own and not those of the other studies, so that every hyperparameter varies alone.",
            "Memorized means that labels were redrawn; a network with 20 % of them also generalizes.",
            "The gap of a network trained on wrong labels is dominated by their share; Psi and the sign errors change one "
            "hyperparameter at a time, the labels among them.",
            "Intervals and tests treat all networks as independent draws from the mixture of recipes.",
            "Rules changed after the first results: finding no measure is not finding that there is none, and a sign error "
            "counts where its interval is on one side of 1/2.",
            "Later: a measure is among the best by an interval of its rank, whatever the sign of τ (before: by the rank "
            "itself, and τ), and Ψ has q-values, too.",
        ],
    )


def _best_of(rows: Sequence[Item]) -> str:
    """The measures whose AUC after the attack is furthest from chance."""
    if not rows:
        return ""
    apart = {r["measure"]: abs(r["attacked"]["auc"]["value"] - 0.5) for r in rows}
    best = [name for name, value in apart.items() if value == max(apart.values())]
    return f", best {', '.join(best)} (AUC {0.5 + max(apart.values()):.2f} or its mirror)"


def _told(found: Item) -> str:
    """A statistic with its interval, if there is one."""
    if found["low"] is None:
        return f"{found['value']:.2f}"
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _faked(populations: dict[str, Item], rows: Sequence[tuple[str, Item]]) -> Claim:
    apart = [(d, r) for d, r in rows if not r["proven"] and side(r["trained"]["auc"], 0.5)]
    turned = [(d, r) for d, r in apart if side(r["attacked"]["auc"], 0.5) == -side(r["trained"]["auc"], 0.5)]
    spared = [f"{r['measure']} ({d})" for d, r in apart if (d, r) not in turned]
    return Claim(
        "a measure without a proof against rescaling says the opposite once the adversary has rescaled",
        "Dinh et al. 2017: the same function can be made as sharp as one likes",
        f"{len(turned)} of {len(apart)} such measures that separate the networks as trained separate them the other way round"
        + (f"; not {', '.join(spared)}" if spared else ""),
        len(turned) == len(apart) if apart else None,
        _detectable(populations),
        numbers={"turned": [f"{r['measure']} ({d})" for d, r in turned], "not turned": spared},
        question=True,
    )


def _proven(rows: Sequence[tuple[str, Item]]) -> Claim:
    own = [(d, r) for d, r in rows if r["proven"]]
    limit = {m.name: SAME_MAXIMUM if m.name in ("keskar_relative", "asam") else SAME for m in MEASURES.values()}
    broken = [f"{r['measure']} ({d})" for d, r in own if r["largest_change"] > limit[r["measure"]]]
    kept = [f"{r['measure']} ({d})" for d, r in own if r["separates"]]
    return Claim(
        "measures proven to survive the rescaling do not move",
        "the proofs in the docstrings",
        f"{len(own) - len(broken)} of {len(own)} move by less than 1 % (maxima 5 %); {len(kept)} of them separate the networks",
        not broken,
        numbers={"moved": broken, "separate before and after": kept},
        question=True,
    )


def _disagree(populations: dict[str, Item], known: dict[tuple[str, str], Item]) -> Claim:
    found = {d: {m: known[d, m]["trained"]["auc"] for m in ("trace", "lambda_max")} for d in populations}
    return Claim(
        "trace and λ_max disagree about memorization: at a matched loss memorizing networks have the larger trace and the "
        "smaller λ_max",
        "a trial of two seeds, one batch size",
        "; ".join(f"{d}: AUC of the trace {_told(f['trace'])}, of λ_max {_told(f['lambda_max'])}" for d, f in found.items()),
        everywhere([s for f in found.values() for s in (side(f["trace"], 0.5), -side(f["lambda_max"], 0.5))]),
        _detectable(populations),
        found,
        question=True,
    )


def _magnitude(populations: dict[str, Item], known: dict[tuple[str, str], Item]) -> Claim:
    found = {d: known[d, MAGNITUDE]["trained"]["tau"] for d in populations}
    ranks = {d: p["rank"] for d, p in populations.items()}
    best = [within(Interval(r["rank"], r["low"], r["high"], 0), 1.0, BEST * r["of"]) for r in ranks.values()]
    return Claim(
        "magnitude-aware PAC-Bayes ranks the gap among the best",
        "among the best of 40 measures (Jiang et al. 2020)",
        "; ".join(
            f"{d}: τ = {_told(t)}, rank by |τ| {ranks[d]['rank']} [{ranks[d]['low']}, {ranks[d]['high']}] of {ranks[d]['of']}"
            for d, t in found.items()
        )
        + f" (among the best: all of the interval in the best {BEST:.0%})",
        every([everywhere([side(t, 0.0) for t in found.values()]), *best]),
        _smallest_tau(populations, known),
        numbers={d: t | {"rank": ranks[d]} for d, t in found.items()},
    )


def _products(populations: dict[str, Item], known: dict[tuple[str, str], Item]) -> Claim:
    found = {d: known[d, "spectral_product"]["trained"]["tau"] for d in populations}
    return Claim(
        "the product of spectral norms correlates negatively with the gap",
        "negative (Jiang et al. 2020)",
        "; ".join(f"{d}: τ = {_told(t)}" for d, t in found.items()),
        everywhere([side(t, 0.0) for t in found.values()], -1),
        _smallest_tau(populations, known),
        numbers=found,
    )


def _robust(rows: Sequence[tuple[str, Item]]) -> Claim:
    errors = [(d, r["measure"], r["trained"]["sign_error"]) for d, r in rows if r["trained"]["sign_error"]["low"] is not None]
    good = [f"{m} ({d}) {_told(e)}" for d, m, e in errors if e["value"] < 0.5]
    sure = sum(e["low"] > 0.5 for *_, e in errors)
    seen = [0.5 + detectable_of(e["low"], e["high"]) for *_, e in errors]
    return Claim(
        "no measure orders the gap in every environment: the worst sign error of each is at least that of a coin",
        "every measure fails in at least one environment (Dziugaite et al. 2020)",
        f"{len(errors) - len(good)} of {len(errors)} have a worst sign error of 1/2 or more, {sure} with an interval above 1/2"
        + (f"; below: {', '.join(good)}" if good else ""),
        every([e["low"] > 0.5 or (False if e["high"] < 0.5 else None) for *_, e in errors]),
        f"an error of {min(seen):.2f} by the measure with the shortest interval; by {sum(s > 1 for s in seen)} of {len(seen)} "
        "not even one of 1",
        numbers={"below one half": good, "surely above": sure, "all": len(errors)},
    )


def _granulated(rows: Sequence[tuple[str, Item]]) -> Claim:
    tests = [(d, r, r["attacked"]["psi"]) for d, r in rows if r["attacked"]["psi"]["low"] is not None]
    # As for `_beyond`, q-values are over all measures of a data set.
    q: dict[tuple[str, str], float] = {}
    for d in dict.fromkeys(d for d, *_ in tests):
        own = {r["measure"]: p_of(psi["value"], psi["low"], psi["high"]) for e, r, psi in tests if e == d}
        q |= {(d, name): x for name, x in zip(own, adjusted(list(own.values())), strict=True)}
    level = {d: asked([x for (e, _), x in q.items() if e == d]) for d, _ in q}
    known = {f"{r['measure']} ({d})": psi | {"q": q[d, r["measure"]]} for d, r, psi in tests if r["proven"]}
    kept = {name: psi for name, psi in known.items() if psi["low"] > 0 and psi["q"] <= LEVEL}
    best = max(known, key=lambda name: known[name]["value"])
    return Claim(
        "some measure that survives ranks the gap where one hyperparameter changes at a time (granulated Ψ, the share of wrong "
        "labels being one of them)",
        "the granulated Kendall coefficient of Jiang et al. 2020",
        f"{len(kept)} of {len(known)} have an interval above 0 and a q-value of at most 5 %; the largest, {best}: Ψ = "
        f"{_told(known[best])}, by what changes "
        + ", ".join(f"{name} {value:.2f}" for name, value in known[best]["by_hyperparameter"].items() if value is not None),
        True if kept else None,
        _least_certain("Ψ", [(d, r["attacked"]["psi"]) for d, r in rows if r["proven"]], level),
        numbers=kept,
        question=True,
    )


def _beyond(rows: Sequence[tuple[str, Item]], *, labels: bool) -> Claim:
    tests = [(d, r, r["within_labels"] if labels else r["attacked"]["partial"]) for d, r in rows]
    found = {f"{r['measure']} ({d})": rho for d, r, rho in tests if r["proven"]}
    # q-values are over all measures of a data set, with a proof or without.
    level = {d: asked([rho["q"] for e, _, rho in tests if e == d]) for d, *_ in tests}
    kept = {name: rho for name, rho in found.items() if side(rho, 0.0)}
    best = max(found, key=lambda name: abs(found[name]["value"]))
    return Claim(
        "some measure that survives ranks the gap at fixed learning rate, batch size and training loss"
        + (", and the share of wrong labels fixed, too" if labels else ""),
        "not separated" if labels else "conditional dependence on the gap (Jiang et al. 2020)",
        f"{len(kept)} of {len(found)}; the strongest, {best}: partial ρ = {_told(found[best])}"
        + ("" if labels else "; the share of wrong labels varies with the gap and is not fixed here"),
        True if kept else None,  # finding none is not finding that there is none
        _least_certain("|ρ|", [(d, rho) for d, r, rho in tests if r["proven"]], level),
        numbers=kept,
        question=labels,
    )


def _detectable(populations: dict[str, Item]) -> str:
    """The smallest AUC that these numbers of networks find with probability 0.8 at 5 %, by Noether's formula."""
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    sizes = {d: (p["generalized"], p["memorized"]) for d, p in populations.items()}
    return "; ".join(f"{d}: an AUC of {0.5 + z * math.sqrt((m + n + 1) / (12 * m * n)):.2f}" for d, (m, n) in sizes.items())


def _smallest_tau(populations: dict[str, Item], known: dict[tuple[str, str], Item]) -> str:
    """The smallest |τ| that these numbers of networks find with probability 0.8, among the tests of all measures."""
    level = {d: asked([r["trained"]["tau"]["q"] for (e, _), r in known.items() if e == d]) for d in populations}
    sizes = {d: p["generalized"] + p["memorized"] for d, p in populations.items()}
    return "; ".join(f"{d}: |τ| = {detectable_tau(n, level=level[d]):.2f}" for d, n in sizes.items())


def _least_certain(symbol: str, found: Sequence[tuple[str, Item]], level: dict[str, float]) -> str:
    """The smallest correlation that is found with probability 0.8 where its interval is the longest, for each data set."""
    seen = {}
    for d in dict.fromkeys(d for d, _ in found):
        ends = [(v["low"], v["high"]) for e, v in found if e == d and v["low"] is not None]
        seen[d] = max((detectable_of(*pair, level=level.get(d, LEVEL)) for pair in ends), default=math.inf)
    told = (f"{d}: {f'{symbol} = {v:.2f}' if v < 1 else f'no {symbol} below 1'}" for d, v in seen.items())
    return "; ".join(told) + " by the least certain measure"
