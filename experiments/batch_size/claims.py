"""What Keskar et al. claim, what they did not separate, and what these runs say of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.batch_size.plan import DECAY, EPOCHS, EPOCHS_DECAY, INVARIANT, LARGE, MAIN, PHI, SCALED, STEPS
from experiments.batch_size.ratios import Row, Runs, direction, directions, find, paired, readings, settings, smallest
from experiments.common.document import Claim
from experiments.common.statistics import LEVEL, adjusted, asked, detectable, difference, every, everywhere, exp, mean, paired_p
from experiments.common.statistics import direction as interval_direction

# Keskar et al. 2017: (small, large batch) of the accuracies in %, and of phi at 1e-3 and 5e-4, in full space and in 100 random
# directions.
PUBLISHED: dict[str, tuple[tuple[float, float], ...]] = {
    "F1, MNIST": ((99.66, 99.92), (98.03, 97.81), (1.23, 205.14), (0.61, 42.90), (0.11, 9.22), (0.05, 9.17)),
    "F2, TIMIT": ((99.99, 98.35), (64.02, 59.45), (1.39, 310.64), (0.90, 93.15), (0.29, 23.63), (0.05, 6.28)),
    "C1, CIFAR-10": ((99.89, 99.66), (80.04, 77.26), (28.58, 707.23), (7.08, 227.31), (2.18, 137.25), (0.71, 29.50)),
    "C2, CIFAR-10": ((99.99, 99.99), (89.24, 87.26), (8.68, 925.32), (2.07, 175.31), (0.95, 25.09), (0.31, 5.82)),
    "C3, CIFAR-100": ((99.56, 99.88), (49.58, 46.45), (29.85, 258.75), (8.56, 105.11), (17.02, 236.03), (4.03, 86.96)),
    "C4, CIFAR-100": ((99.10, 99.57), (63.08, 57.81), (12.83, 421.84), (4.07, 109.35), (6.05, 72.99), (1.89, 19.85)),
}
COLUMNS = ("train_accuracy", "test_accuracy", *PHI)
SMALLEST = min(large / small for small, large in (row[2] for row in PUBLISHED.values()))
# The paper's claims on one network: (quantity, claim, published, sign of large against small).
PAPER = (
    ("keskar", "a large batch (10 %) is sharper by Keskar's phi, box of 1e-3", "LB/SB of 8.7 to 223 in six networks", 1),
    ("test accuracy", "a large batch (10 %) tests worse", "0.2 to 5.3 points worse", -1),
    ("distance", "a large batch (10 %) stays closer to its start",
     "large batches tend to zoom in on the minimum that is closest to the start", -1),
)  # fmt: skip
SEPARATE = {
    SCALED: "with a learning rate that is scaled with the batch (linearly for SGD, by its square root for Adam)",
    STEPS: "after as many steps as the small batch took",
    DECAY: "with weight decay",
}


def columns(runs: Runs) -> list[dict[str, Any]]:
    """The paper's table and ours: small / large, the latter at 10 % of the data."""
    out: list[dict[str, Any]] = [
        {"network": name, "published": True} | {k: list(v) for k, v in zip(COLUMNS, row, strict=True)}
        for name, row in PUBLISHED.items()
    ]
    for setting in settings(runs, MAIN):
        row: dict[str, Any] = {"network": setting, "published": False}
        for name in COLUMNS:
            row[name] = []
            for batch in ("16", "10 %"):
                wanted = {"setting": setting, "arm": MAIN, "batch": batch}
                found = [r for r in runs if r["fitted"] and all(r["item"][k] == v for k, v in wanted.items())]
                values = [100 * r[name] if "accuracy" in name else r["measures"][name] for r in found]
                row[name].append(mean(values).to_json() if values and None not in values else None)
        out.append(row)
    return out


def claims(runs: Runs, table: Sequence[Row], lines: Sequence[Row]) -> list[Claim]:
    """All claims: the paper's and Li's for every network by itself, and questions of ours over all networks."""
    out = []
    ends = {name: _beyond(name, lines) for name in settings(runs, MAIN)}
    known = [name for name, pair in ends.items() if pair]
    q = dict(zip(known, adjusted([paired_p(*ends[name]) for name in known]), strict=True))
    for name in settings(runs, MAIN):
        for quantity, text, published, sign in PAPER:
            rows = {batch: find(table, quantity, arm=MAIN, batch=batch).get(name) for batch in LARGE}
            out.append(_of_one(name, text, published, rows, sign))
        out.append(_steeper(name, ends[name], q))
    out += [_reversal(name, table) for name in settings(runs, EPOCHS)]
    out += [_as_large(runs, table), _agree(runs, table)]
    return out + [_separate(runs, table, arm, words) for arm, words in SEPARATE.items()]


def _of_one(name: str, text: str, published: str, rows: dict[str, Row | None], sign: int) -> Claim:
    """A claim on one network, with 10 % of the data; the whole data are told beside it."""
    ten, whole = rows["10 %"], rows["all"]
    if ten is None:
        return Claim(f"{name}: {text}", published, "a run did not come down to its loss", None)
    told = told_row(ten) + (f" (all of the data: {told_row(whole)})" if whole else "")
    answer = everywhere([direction(ten)], sign)
    return Claim(
        f"{name}: {text}", published, told, answer, power([ten]), _numbers({k: r for k, r in rows.items() if r is not None})
    )


def _separate(runs: Runs, table: Sequence[Row], arm: str, words: str) -> Claim:
    """Whether phi is still larger in every network of an arm."""
    ten = find(table, "keskar", arm=arm, batch="10 %")
    unknown = [name for name in settings(runs, arm) if name not in ten]
    told = "; ".join(f"{name}: {told_row(r)}" for name, r in ten.items())
    told += f"; a run did not come down to its loss: {', '.join(unknown)}" if unknown else ""
    return Claim(
        f"a large batch (10 %) is still sharper by phi {words}, in every network that was tried",
        "not separated",
        told,
        everywhere(directions(runs, arm, ten)),
        power(list(ten.values())),
        _numbers(ten),
        question=True,
    )


def _as_large(runs: Runs, table: Sequence[Row]) -> Claim:
    """The size of the effect."""
    found = find(table, "keskar", arm=MAIN, batch="10 %")
    sides = {n: int(r["ratio"]["low"] >= SMALLEST) - int(r["ratio"]["high"] < SMALLEST) for n, r in found.items()}
    reach = [sides.get(name, 0) for name in settings(runs, MAIN)]
    told = "; ".join(f"{name}: {told_row(r)}" for name, r in found.items())
    phi = [[(s["measures"]["keskar"], b["measures"]["keskar"]) for s, b in paired(runs, n, MAIN, "10 %")] for n in found]
    seen = max((smallest(pairs, LEVEL, logarithmic=True) for pairs in phi), default=None)
    return Claim(
        f"the ratio of phi is at least the smallest of the paper, {SMALLEST:.1f}, in every network",
        "8.7 to 223",
        told,
        everywhere(reach),
        "" if seen is None else f"a factor of {seen:.2f} from {SMALLEST:.1f}",
        question=True,
    )


def _beyond(name: str, lines: Sequence[Row]) -> list[list[float]]:
    """For every seed, the logarithms of the loss half the distance beyond the large and the small batch; [] if not for all."""
    own = [r for r in lines if (r["item"]["setting"], r["item"]["batch"]) == (name, "10 %")]
    pairs = [[_at(r, "loss", place) for r in own] for place in (1.5, -0.5)]
    if not own or any(v is None or v <= 0 for p in pairs for v in p):
        return []
    return [np.log(np.array(p, dtype=float)).tolist() for p in pairs]


def _steeper(name: str, ends: list[list[float]], q: dict[str, float]) -> Claim:
    """The loss beyond the two ends of the line between the minima, half its length away."""
    text = (
        f"{name}: on the line through both minima the loss rises more beyond the large batch (10 %) than beyond the small one"
    )
    published = "large-batch minima are strikingly sharper along the line (figure 3)"
    if not ends:
        return Claim(text, published, "no line for every seed", None)
    found = difference(*ends).exp()
    return Claim(
        text,
        published,
        f"loss half the distance beyond the large over that beyond the small: {found}, q = {q[name]:.2g}",
        everywhere([interval_direction(found, q[name], equal=1.0)]),
        f"a factor of {exp(detectable(*ends, level=asked(list(q.values())))):.2f}",
        found.to_json() | {"q": q[name]},
    )


def _agree(runs: Runs, table: Sequence[Row]) -> Claim:
    """Measures that no rescaling of layers and neurons moves."""
    told, numbers, signs, rows = [], {}, [], []
    for setting in settings(runs, MAIN):
        found = {n: find(table, n, arm=MAIN, batch="10 %").get(setting) for n in INVARIANT}
        known = {n: direction(r) for n, r in found.items() if r is not None}
        rows += [r for r in found.values() if r is not None]
        up, down, open_ = ([n for n, d in known.items() if d == sign] for sign in (1, -1, 0))
        numbers[setting] = {"sharper": up, "flatter": down, "cannot be told": open_}
        signs += list(known.values()) or [0]
        told.append(f"{setting}: {len(up)} sharper, {len(down)} flatter, {len(open_)} cannot be told")
    return Claim(
        "the measures that survive a rescaling of layers and neurons agree that a large batch (10 %) is sharper",
        'not measured; the "+ 1" of the box of phi is what a rescaling defeats',
        "; ".join(told),
        everywhere(signs),
        power(rows),
        numbers=numbers,
        question=True,
    )


def _reversal(name: str, table: Sequence[Row]) -> Claim:
    """Li et al. on one network: for equal epochs, the large batch looks sharper without weight decay, the small one with it."""
    signs = {EPOCHS: 1, EPOCHS_DECAY: -1}
    found = {arm: find(table, "keskar", arm=arm, batch="10 %").get(name) for arm in signs}
    text = f"{name}: for equal epochs the large batch (10 %) is sharper by phi without weight decay, and the small one with it"
    published = "Li et al. 2018, VGG-9, batch 128 against 8192: the picture of the interpolation flips"
    arms = {arm: row for arm, row in found.items() if row is not None}
    if len(arms) < len(signs):
        return Claim(text, published, "a run did not end, or its sharpness is not a positive number", None)

    def flips(reading: str) -> bool | None:
        """Whether the two arms point as claimed in one reading."""
        return every([everywhere([readings(arms[arm])[reading]], sign) for arm, sign in signs.items()])

    # What neither reading says is refuted, though the two contradict each other.
    answers = {flips("as measured"), flips("per unit of loss")}
    return Claim(
        text,
        published,
        "; ".join(f"{arm}: {told_row(row)}" for arm, row in arms.items()),
        answers.pop() if len(answers) == 1 else None,
        power(list(arms.values())),
        {arm: _numbers({name: row}) for arm, row in arms.items()},
    )


def headline(table: Sequence[Row]) -> str:
    """The ratio of phi in every network."""
    found = find(table, "keskar", arm=MAIN, batch="10 %")
    return "sharpness of minima of large batches over those of small ones, by Keskar's phi: " + "; ".join(
        f"{name} {_interval(r['ratio'])}" for name, r in found.items()
    )


def plus_one(table: Sequence[Row]) -> str:
    """How much of phi comes from the "+ 1" of its box, in a sentence."""
    phi, relative = (find(table, name, arm=MAIN, batch="10 %") for name in ("keskar", "keskar_relative"))
    told = [
        f"{name}: {r['small']['value'] / relative[name]['small']['value']:.0f} times"
        for name, r in phi.items()
        if name in relative
    ]
    return (
        'The "+ 1" of the box makes it nearly the same for all of these small weights, which is why a rescaling moves phi; '
        f"for batch 16, phi is larger than without it by {', '.join(told)}."
    )


def power(found: Sequence[Row]) -> str:
    """The largest over settings of the smallest effect that would have been seen."""
    sizes = [r["detectable"] for r in found]
    if not sizes:
        return ""
    return f"a factor of {max(sizes):.2f}" if "ratio" in found[0] else f"{max(sizes):.1f} points"


def told_row(row: Row) -> str:
    """A ratio or a difference with its interval, and the q-value of a measure."""
    q = f", q = {row['q']:.2g}" if "q" in row else ""
    if row.get("per_loss"):
        q += f", per unit of loss {_interval(row['per_loss'])}"
    return (_interval(row["ratio"]) if "ratio" in row else _interval(row["difference"], "+") + " points") + q


def _interval(found: dict[str, Any], sign: str = "") -> str:
    return f"{found['value']:{sign}.3g} [{found['low']:{sign}.3g}, {found['high']:{sign}.3g}]"


def _numbers(found: dict[str, Row]) -> dict[str, Any]:
    """What is kept of rows in a claim."""
    return {name: {k: r[k] for k in ("ratio", "per_loss", "difference", "p", "q") if k in r} for name, r in found.items()}


def _at(line: Row, name: str, place: float) -> float | None:
    """A value on a line at the grid point that is nearest to `place`."""
    nearest = min(range(len(line["at"])), key=lambda i: abs(line["at"][i] - place))
    value: float | None = line["values"][name][nearest]
    return value
