"""The claims of the study against its runs."""

from collections.abc import Sequence

from experiments.common.document import KEPT, Claim, verdict
from experiments.common.statistics import exceptions
from experiments.common.work import Item
from experiments.symmetries.figure import ALL, CLEAN, NOISE, PAIR
from experiments.symmetries.runs import MEASURES, SAMPLES


def compared(networks: Sequence[Item]) -> list[Item]:
    """For each measure: its values by network and seed, what it is proven to survive, and what the moves did to it."""
    values = {(n["network"], n["seed"], name): n["sharpness"]["measures"][name] for n in networks for name in MEASURES}
    seeds = sorted({n["seed"] for n in networks})
    rows = []
    for name in MEASURES:
        row: Item = {"measure": name, "invariant_to": values[CLEAN, seeds[0], name]["invariant_to"]}
        row["values"] = {kind: [values[kind, s, name]["value"] for s in seeds] for kind in (CLEAN, NOISE, PAIR, ALL)}
        own, noise = row["values"][CLEAN], row["values"][NOISE]
        row["clean_below_random_labels"] = sum(a < b for a, b in zip(own, noise, strict=True))
        for arm in (PAIR, ALL):
            families = next(n["moved"] for n in networks if n["network"] == arm)
            after = row["values"][arm]
            row[arm] = {
                "survives": set(families) <= set(row["invariant_to"]),
                "largest_change": max(abs(b / a - 1) if a else abs(b) for a, b in zip(own, after, strict=True)),
                "above_random_labels": sum(a > b for a, b in zip(after, noise, strict=True)),
            }
        rows.append(row)
    return rows


def judged(rows: Sequence[Item], seeds: int) -> Item:
    """The verdict: pairs fake every measure without a proof against them, and nothing moves that is proven not to."""
    open_ = [row for row in rows if not row[PAIR]["survives"]]
    faked = [row["measure"] for row in open_ if row[PAIR]["above_random_labels"] == seeds]
    claimed = [(row, arm) for arm in (PAIR, ALL) for row in rows if row[arm]["survives"]]
    broken = [f"{row['measure']} ({arm})" for row, arm in claimed if row[arm]["largest_change"] > KEPT]
    still = {
        arm: [row["measure"] for row, a in claimed if a == arm and row[arm]["largest_change"] <= KEPT] for arm in (PAIR, ALL)
    }
    claims = [
        Claim(
            "a clean transformer, moved along its pairs, looks sharper than a memorizing one by every measure without a proof",
            "Dinh et al. 2017 for rectified networks: any sharpness for one function",
            f"{len(faked)} of {len(open_)} such measures, in all of {seeds} seeds",
            len(faked) == len(open_),
            exceptions(seeds, "seeds in which a measure is not faked"),
            numbers={"faked": faked, "can be faked": [row["measure"] for row in open_]},
            question=True,
        ),
        Claim(
            "measures that are proven to survive a family of symmetries do not move along it",
            "the proofs in the docstrings",
            f"{len(still[PAIR])} measures stay along the pairs, {len(still[ALL])} along every family; {len(broken)} moved",
            not broken,
            numbers={"still along the pairs": still[PAIR], "still along every symmetry": still[ALL], "moved": broken},
            question=True,
        ),
    ]
    return verdict(
        claims,
        headline=f"a clean transformer looks sharper than one that memorized by {len(faked)} of {len(open_)} measures without "
        f"a proof, in every seed; {len(broken)} with a proof moved",
        scale=f"{seeds} seeds; 512 digits in 16 patches, 1 block, 2 heads; measured on {SAMPLES} training samples in float64",
        departures=[
            "The paper treats rectified networks; this is its argument for the symmetries of attention, which no paper claims.",
            f"A measure has not moved if it is the same to the six digits that are kept ({KEPT:g}).",
        ],
    )
