"""Run the study, write its results and draw its figure: see `experiments.memorized_samples`."""

import experiments.memorized_samples as study
from experiments.common.document import write
from experiments.common.options import options
from experiments.common.work import each
from experiments.memorized_samples.claims import Table, judged
from experiments.memorized_samples.figure import draw
from experiments.memorized_samples.runs import one, peer_runs, planned

if __name__ == "__main__":
    given = options(study.__doc__)
    if not given.draw:
        items = planned(given)
        runs = each("memorized_samples", one, items, given)
        peer = peer_runs(items, given)
        write(
            "memorized_samples", given, [*runs, *(peer["runs"] if peer["now"] == "installed" else [])],
            {"verdict": judged(runs, peer, given), "table": Table(runs, peer["runs"]).rows(), "runs": runs, "peer": peer},
        )  # fmt: skip
    draw()
