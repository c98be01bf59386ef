"""Run the study, write its results and draw its figure: see `experiments.which_measure`."""

from typing import Any

import experiments.which_measure as study
from experiments.common.document import write
from experiments.common.options import options
from experiments.common.work import each
from experiments.which_measure.claims import MAGNITUDE, judged
from experiments.which_measure.figure import draw
from experiments.which_measure.networks import one, planned
from experiments.which_measure.ranking_table import is_clean, measured, ranks, table

if __name__ == "__main__":
    given = options(study.__doc__)
    if not given.draw:
        runs = each("which_measure", one, planned(given), given)
        populations: dict[str, Any] = {}
        for data in dict.fromkeys(r["item"]["data"] for r in runs):
            own = [r for r in runs if r["item"]["data"] == data]
            rows = table(own)
            populations[data] = {
                "generalized": sum(map(is_clean, own)),
                "memorized": sum(not is_clean(r) for r in own),
                "outputs_change": max(r["outputs_change"] for r in own),
                "train_loss": [min(r["train_loss"] for r in own), max(r["train_loss"] for r in own)],
                "rank": ranks(own, MAGNITUDE, [row["measure"] for row in measured(rows)]),
                "table": rows,
            }
        write("which_measure", given, runs, {"verdict": judged(populations, given), "populations": populations, "runs": runs})
    draw()
