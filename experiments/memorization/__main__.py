"""Run the study, write its results and draw its figure: see `experiments.memorization`."""

import experiments.memorization as study
from experiments.common.document import write
from experiments.common.options import options
from experiments.common.work import each
from experiments.memorization.claims import judged
from experiments.memorization.figure import draw
from experiments.memorization.runs import one, planned, table

if __name__ == "__main__":
    given = options(study.__doc__)
    if not given.draw:
        runs = each("memorization", one, planned(given), given)
        write("memorization", given, runs, {"verdict": judged(runs, given), "table": table(runs), "runs": runs})
    draw()
