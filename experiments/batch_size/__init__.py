"""Keskar et al. 2017 (arXiv:1609.04836): do large batches find sharper minima that test worse, and why?

Batch 16 against 10 % and all of the training data, on digits and, with --data, on CIFAR-10 images, to one training loss. Then
one thing at a time: the learning rate scaled with the batch, equal steps, weight decay, and equal epochs with and without
weight decay (Li et al. 2018, arXiv:1712.09913).
"""
