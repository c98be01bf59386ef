"""Measures of the curvature at the weights: eigenvalues, traces, Gauss-Newton and Fisher matrices, relative flatness."""
