"""Dinh et al. 2017 (arXiv:1703.04933): the same function, any sharpness; and the measures that no rescaling moves.

Networks trained on right and on random labels to one loss, moved along their symmetries without a change of the function: one
layer times alpha and the next divided by it, every neuron by its own factor, and what else a network has. Can the clean network
be made to look sharper than the one that memorized, and that one flatter than the clean one? How flat can a network be made?
"""
