"""Lanczos runs, and what they give: eigenpairs, spectral densities, eigenvalues of blocks."""
