"""Published numbers that other studies measure: wrong labels found (memorized_samples) and Arpit's order (patterns_first).

Their claims are read from experiments/results/, not computed again.
"""

import json

from experiments.bars.bar import Bar, alone
from experiments.common.document import RESULTS, Claim
from experiments.common.options import Options
from experiments.common.work import Item

# The claims of each study that are bars, by their keys.
WANTED = {
    "memorized_samples": ("best AUROC", "published AUROC"),
    "patterns_first": ("critical samples", "critical samples rise", "loss sensitivity"),
}


def items(options: Options) -> list[Item]:
    """None: the numbers are there, or they are not."""
    return []


def bar(done: list[Item], options: Options) -> Bar:
    """The claims of the other studies whose results are there."""
    claims, missing = [], []
    for study, keys in WANTED.items():
        path = RESULTS / f"{study}.json"
        found = json.loads(path.read_text())["verdict"]["claims"] if path.exists() else []
        chosen = [c for c in found if c["key"] in keys]
        claims += [Claim(**(c | {"claim": f"{c['claim']} ({study})"})) for c in chosen]
        missing += [] if chosen else [study]
    reason = f"no such claim in experiments/results/ from: {', '.join(missing)}" if missing else ""
    return Bar(claims, {}, (), reason)


if __name__ == "__main__":
    alone("from_studies")
