"""Dinh et al. 2017 (arXiv:1703.04933) for transformers: a clean network that looks sharper than one that memorized.

Small transformers on patches of the digits, trained on true and on random labels to loss 0.01. The clean ones are moved along
the symmetries of attention, without a change of their function: along the pairs alone (a matrix between
queries and keys, and between values and the output, of every head), and along every family of symmetries that they have, but
for norm-in, which holds only nearly here. Float64, the first 256 training samples.
"""
