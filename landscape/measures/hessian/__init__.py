"""Measures of the curvature at the weights: eigenvalues, traces, information matrices, relative flatness."""
