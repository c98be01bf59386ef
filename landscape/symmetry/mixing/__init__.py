"""Matrices, shifts and biases: the symmetries that are no positive factor an element."""
