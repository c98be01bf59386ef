"""Run the study, write its results and draw its figure: see `experiments.memorized_samples`."""

import experiments.memorized_samples as study
from experiments.common.document import write
from experiments.common.options import options
from experiments.common.work import each
from experiments.memorized_samples.claims import Table, judged
from experiments.memorized_samples.figure import draw
from experiments.memorized_samples.growth import followed, planned_growth
from experiments.memorized_samples.growth_claims import Growth
from experiments.memorized_samples.runs import one, peer_runs, planned

if __name__ == "__main__":
    given = options(study.__doc__)
    if not given.draw:
        items = planned(given)
        runs = each("memorized_samples", one, items, given)
        more = each("memorized_samples", followed, planned_growth(given), given)
        peer, growth = peer_runs(items, given), Growth(runs, more, given.samples)
        write(
            "memorized_samples", given, [*runs, *more, *(peer["runs"] if peer["now"] == "installed" else [])],
            {
                "verdict": judged(runs, peer, growth, given), "table": Table(runs, peer["runs"]).rows(),
                "growth": growth.rows(), "runs": runs, "growth_runs": more, "peer": peer,
            },
            larger=True,
        )  # fmt: skip
    draw()
