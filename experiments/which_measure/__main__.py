"""Which measure tells networks that memorized from networks that generalized, and which ranks the generalization gap?

Perceptrons on scikit-learn's digits, with true labels, 20 to 80 % redrawn ones and random ones, at two batch sizes and two
learning rates; with --data also perceptrons on CIFAR-10 images. All are trained to one training loss. Every network is measured
twice: as trained, and after a move along its symmetries that keeps its function, a layer-wise factor of 10 and then a factor
between 1/10 and 10 for every neuron.

An adversary hands in moved copies: for each measure either of all networks that generalized, or of all that memorized,
whichever hides the difference better. What still separates them, and still ranks the gap, survives. AUC, Kendall's tau,
granulated Psi, partial correlation at fixed learning rate, batch size and training loss, and the worst-environment sign
error are those of `landscape compare`.
"""

from typing import Any

from experiments.common.document import write
from experiments.common.options import options
from experiments.common.work import each
from experiments.which_measure.claims import judged
from experiments.which_measure.figure import draw
from experiments.which_measure.networks import one, planned
from experiments.which_measure.ranking_table import is_clean, table


def main() -> None:
    """Run what is missing, judge, write, draw."""
    given = options(__doc__)
    if not given.draw:
        runs = each("which_measure", one, planned(given), given)
        populations: dict[str, Any] = {}
        for data in dict.fromkeys(r["item"]["data"] for r in runs):
            own = [r for r in runs if r["item"]["data"] == data]
            populations[data] = {
                "generalized": sum(map(is_clean, own)),
                "memorized": sum(not is_clean(r) for r in own),
                "outputs_change": max(r["outputs_change"] for r in own),
                "train_loss": [min(r["train_loss"] for r in own), max(r["train_loss"] for r in own)],
                "table": table(own),
            }
        write("which_measure", given, runs, {"verdict": judged(populations, given), "populations": populations, "runs": runs})
    draw()


if __name__ == "__main__":
    main()
