"""How can memorization be controlled, and at what cost? Seven controls with 40 % of the labels drawn anew.

Weight decay, dropout, SAM, batch size, label smoothing and mixup in three strengths each, and early stopping, on
scikit-learn's digits and, with --data, on CIFAR-10 images, with perceptrons. All runs of a data set have the same number of
epochs, in which the baseline fits the wrong labels; nothing stops them before. Two numbers of every run: the share of wrong
labels that the network reproduces on its training set, and the accuracy on the clean test set.

Early stopping needs labels that are true: one half of the test set chooses the epoch, the other half tells the accuracy, both
ways. The strengths, from weak to strong, were chosen after trials with another seed, before the runs.
"""
