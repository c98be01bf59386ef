"""The Hessian's spectrum of an Objective: eigenpairs, spectral density, and curvature by layer."""

from landscape.spectra.block_curvature import breakdown
from landscape.spectra.hessian_spectrum import TOLERANCE, Curvature, eigenpairs, krylov, spectral_density, spectrum, uses
from landscape.spectra.minibatch_extremes import minibatch_spectra

__all__ = [
    "TOLERANCE",
    "Curvature",
    "breakdown",
    "eigenpairs",
    "krylov",
    "minibatch_spectra",
    "spectral_density",
    "spectrum",
    "uses",
]
