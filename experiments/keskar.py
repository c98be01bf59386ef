"""Keskar et al. 2017 (arXiv:1609.04836) at toy scale: does a large batch find a sharper minimum?

Perceptrons on digits, SGD, batch 16 against the full batch, both stopped at training loss 0.01 so that the losses are matched.
"""

from experiments.groups import study

if __name__ == "__main__":
    study("keskar", __doc__, ["small-batch", "large-batch"], "Small and large batches, digits, SGD, matched training loss 0.01")
