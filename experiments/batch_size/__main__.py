"""Run the study, write its results and draw its figure: see `experiments.batch_size`."""

import experiments.batch_size as study
from experiments.batch_size.claims import claims, columns, headline, plus_one
from experiments.batch_size.figure import draw
from experiments.batch_size.plan import EPOCHS, EQUAL_EPOCHS, LI, LI_IMAGES, SMALL, items, items_of_equal_steps, settings
from experiments.batch_size.ratios import rows
from experiments.batch_size.ratios import settings as settings_of
from experiments.batch_size.runs import line, lines, one
from experiments.common.document import verdict, write
from experiments.common.options import options
from experiments.common.work import each

if __name__ == "__main__":
    given = options(study.__doc__)
    if not given.draw:
        planned = settings(given)
        runs = each("batch_size", one, items(planned, given.seeds), given)
        runs += each("batch_size", one, items_of_equal_steps(planned, runs), given)
        between = each("batch_size", line, lines(planned, runs), given)
        table = rows(runs)
        images = f"; {given.samples} CIFAR-10 images, perceptron and C1 of width {given.width}" if given.data else ""
        judged = verdict(
            claims(runs, table, between),
            headline=headline(table),
            scale=f"{len(given.seeds)} seeds; 1,347 digits, perceptron 64-128-64-10{images}",
            departures=[
                f"The small batch has {SMALL} samples: the 256 of the paper would be a fifth to a quarter of these data.",
                "All runs but those of equal steps and epochs stop at a training loss of 0.01, looked at after whole epochs; "
                "the paper trains until the loss stops improving. Where the losses of the two batches differ by more than a "
                "quarter, a network counts as sharper only if it is so per unit of loss, too.",
                "Rules changed after the first results: every network is judged by itself, sharpness at unequal loss is told "
                "per unit of loss, and the size of the effect is a question of ours.",
                f"Li's reversal is tried with SGD ({'; '.join(settings_of(runs, EPOCHS))}); all have {EQUAL_EPOCHS} epochs and "
                f"no schedule. The learning rate is {LI['lr']:g}, and {LI_IMAGES['lr']:g} for the perceptron on images, whose "
                "small batch did not fit at the other, by one seed that is not judged (100). Images were added after the "
                "result on digits had been seen, C1 after that of the perceptron.",
                "Adam is the paper's optimizer; SGD has momentum 0.9. The learning rate is the same for all batches, but where "
                "it is scaled; the paper does not say.",
                "phi is maximised by climbs from corner to corner, which find more than the ten iterations of L-BFGS-B of the "
                "paper; the random directions are standard normal, the paper does not say.",
                "Li et al. compare pictures of a line; here phi is compared, for small networks, at batch 16 and 10 %.",
                "phi and the other measures of images are those of the first 512 (C1: 256) training images.",
                plus_one(table),
            ],
        )
        document = {"verdict": judged, "table": columns(runs), "ratios": table, "lines": between, "runs": runs}
        write("batch_size", given, [*runs, *between], document)
    draw()
