"""Run the study, write its results and draw its figure: see `experiments.symmetries`."""

import experiments.symmetries as study
from experiments.common.document import write
from experiments.common.options import options
from experiments.common.work import each
from experiments.symmetries.claims import compared, judged
from experiments.symmetries.figure import draw
from experiments.symmetries.runs import SAMPLES, SIZES, one, planned

if __name__ == "__main__":
    given = options(study.__doc__, images=False)
    if not given.draw:
        runs = each("symmetries", one, planned(given), given)
        networks = [network for run in runs for network in run["networks"]]
        rows = compared(networks)
        document = {
            "samples": SAMPLES,
            "sizes": SIZES,
            "families": runs[0]["exist"],
            "outputs_change": max(n["outputs_change"] for n in networks),
            "verdict": judged(rows, len(given.seeds)),
            "rows": rows,
            "runs": runs,
        }
        write("symmetries", given, runs, document, images=False)
    draw()
