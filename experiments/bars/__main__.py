"""Every bar, and what it says in one table: python -m experiments.bars; one alone: python -m experiments.bars.NAME.

A bar is a published number, the toolkit's number with an interval, and whether the first is inside the second.
"""

from experiments.bars import bar, figure
from experiments.common.document import verdict, write
from experiments.common.options import Options, options

BARS = (
    "diagonal_networks", "synthetic_spectrum", "class_outliers", "edge_of_stability", "random_axes",
)  # fmt: skip
ELSEWHERE = "Bars too, and judged there: wrong labels found (memorized_samples), Arpit's order (patterns_first)."
NOT_MEASURED = (
    "Not measured: the learning coefficient of K = 1/2 sum w_i^p_i (sum 1 / p_i), which the toolkit does not estimate, and the "
    "trace that few images carry in a public ResNet-20, whose weights these scripts do not download."
)


def study(given: Options) -> None:
    """Run all bars and write experiments/results/bars.json."""
    claims, departures, found, runs = [], [NOT_MEASURED, ELSEWHERE], {}, {}
    for name in BARS:
        one, done = bar.run(name, given)
        claims += one.claims
        departures += one.departures
        departures += [one.reason] if one.reason else []
        found[name], runs[name] = one.data, done
    scale = f"{len(given.seeds)} seeds each, on a CPU; a digits network and synthetic data" + (
        ", 1,000 CIFAR-10 images for the edge of stability" if given.data else "; the edge of stability on digits only"
    )
    work = [run for done in runs.values() for run in done]
    met, own = ([c.holds for c in claims if c.question is question] for question in (False, True))
    headline = (
        f"of {len(met)} published numbers of experiments {met.count(True)} met, {met.count(None)} cannot be told; of "
        f"{len(own)} checks "
        f"of theory, of the solver and of what is published without a number {own.count(True)} hold"
    )
    judged = verdict(claims, headline=headline, scale=scale, departures=departures)
    write(bar.STUDY, given, work, {"verdict": judged, "bars": found, "runs": runs})


if __name__ == "__main__":
    given = options(__doc__)
    if not given.draw:
        study(given)
    figure.draw()
