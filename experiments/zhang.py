"""Zhang et al. 2017 (arXiv:1611.03530) at toy scale: networks fit random labels; which measure of sharpness tells?

Perceptrons on digits with clean, 40 % corrupted and random labels, all stopped at training loss 0.01.
"""

from experiments.groups import study

if __name__ == "__main__":
    study(
        "zhang",
        __doc__,
        ["small-batch", "corrupted-40", "random-labels"],
        "Clean, corrupted and random labels, digits, matched training loss 0.01",
    )
