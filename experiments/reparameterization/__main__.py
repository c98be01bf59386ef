"""Run the study, write its results and draw its figure: see `experiments.reparameterization`."""

import experiments.reparameterization as study
from experiments.common.document import write
from experiments.common.options import options
from experiments.common.work import each
from experiments.reparameterization.claims import judged, table
from experiments.reparameterization.figure import draw
from experiments.reparameterization.runs import one, planned, surface, surfaces

if __name__ == "__main__":
    given = options(study.__doc__)
    if not given.draw:
        runs = each("reparameterization", one, planned(given), given)
        lines = each("reparameterization", surface, surfaces(given), given)
        found = {"verdict": judged(runs, lines, given), "table": table(runs), "runs": runs, "surfaces": lines}
        write("reparameterization", given, runs + lines, found)
    draw()
