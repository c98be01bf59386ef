"""Measures of the weights alone: norms, and the path norm of the traced network."""
