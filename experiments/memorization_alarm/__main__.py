"""Run the study, write its results and draw its figure: see `experiments.memorization_alarm`."""

import experiments.memorization_alarm as study
import landscape as ls
from experiments.common.document import write
from experiments.common.options import options
from experiments.common.work import each
from experiments.memorization_alarm.claims import judged, table, threshold
from experiments.memorization_alarm.figure import draw
from experiments.memorization_alarm.runs import one, planned

if __name__ == "__main__":
    given = options(study.__doc__, images=False)
    if not given.draw:
        runs = each("memorization_alarm", one, planned(given), given)
        limit = threshold(runs)
        rows = table(runs, ls.MemorizationAlarm(threshold=limit))
        document = {"verdict": judged(runs, rows, limit, given), "threshold": limit, "table": rows, "runs": runs}
        write("memorization_alarm", given, runs, document, images=False)
    draw()
