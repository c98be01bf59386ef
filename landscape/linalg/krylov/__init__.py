"""Lanczos methods: eigenpairs, spectral densities, eigenvalues of blocks, traces."""
