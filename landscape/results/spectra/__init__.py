"""Eigenvalues, their density, and the blocks of single layers."""
