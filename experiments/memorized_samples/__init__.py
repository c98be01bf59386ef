"""Garg et al. 2024 (arXiv:2307.05831): samples that were memorized are told by their curvature, and wrong labels found by it.

Labels of 1, 2, 5 and 10 % of the training samples are made wrong. A network is trained until it has memorized them, and
`landscape samples` scores every sample: at the end of training (loss, loss sensitivity, input curvature, curvature in the
weights) and over training (cumulative loss, means of the input scores, forgetting). How well does each score find the wrong
labels (AUROC)? Beside it confident learning by cleanlab, from probabilities of networks that did not see the sample (5-fold
cross-validation with the same recipe); where cleanlab is not installed, the result of the run that had it is kept.
"""
