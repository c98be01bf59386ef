"""Run the study, write its results and draw its figure: see `experiments.information_plane`."""

import experiments.information_plane as study
from experiments.common.document import write
from experiments.common.options import options
from experiments.common.work import each
from experiments.information_plane.claims import judged
from experiments.information_plane.figure import draw
from experiments.information_plane.runs import one, planned
from experiments.information_plane.table import entropies, table

if __name__ == "__main__":
    given = options(study.__doc__, seeds=10, images=False)
    if not given.draw:
        found = each("information_plane", one, planned(given), given)
        rows = table(found)
        write(
            "information_plane",
            given,
            found,
            {"verdict": judged(rows, found, given), "table": rows, "entropy": entropies(), "runs": found},
            images=False,
        )
    draw()
