"""Run the study, write its results and draw its figure: see `experiments.patterns_first`."""

import experiments.patterns_first as study
from experiments.common.document import write
from experiments.common.options import options
from experiments.common.work import each
from experiments.patterns_first.claims import judged, table
from experiments.patterns_first.figure import draw
from experiments.patterns_first.runs import one, planned

if __name__ == "__main__":
    given = options(study.__doc__)
    if not given.draw:
        runs = each("patterns_first", one, planned(given), given)
        write("patterns_first", given, runs, {"verdict": judged(runs, given), "table": table(runs), "runs": runs})
    draw()
