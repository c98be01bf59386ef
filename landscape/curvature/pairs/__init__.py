"""Curvature from single outputs of single samples: the Gauss-Newton matrix as a sum of squares of gradients."""
