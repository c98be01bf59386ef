"""Run the study, write its results and draw its figure: see `experiments.control`."""

import experiments.control as study
from experiments.common.document import write
from experiments.common.options import options
from experiments.common.work import each
from experiments.control.claims import judged
from experiments.control.figure import draw
from experiments.control.runs import bases, one, planned
from experiments.control.table import areas, table

if __name__ == "__main__":
    given = options(study.__doc__)
    if not given.draw:
        runs = each("control", one, planned(given), given)
        rows = table(runs)
        found = {d: areas(rows, d) for d in bases(given)}
        write("control", given, runs, {"verdict": judged(rows, given), "table": rows, "areas": found, "runs": runs})
    draw()
