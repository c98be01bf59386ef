"""Numerical linear algebra and constrained maximisation, on callables; independent of any network."""

from landscape.linalg.krylov.blocks import block_eigenvalues
from landscape.linalg.krylov.deflation import Known, trace_within
from landscape.linalg.krylov.density import spectral_density
from landscape.linalg.krylov.eigen import eigenpairs
from landscape.linalg.krylov.lanczos import KrylovBasis, Lanczos, lanczos
from landscape.linalg.maximisation.corners import FEW
from landscape.linalg.maximisation.maximise import maximise_ball, maximise_box
from landscape.linalg.maximisation.maximum import Maximum, Run
from landscape.linalg.products import MatVec
from landscape.linalg.trace import ProbeSweep, frobenius, hutchinson, hutchpp, mean_estimate, quadratic_forms
from landscape.linalg.vector_store import Place

__all__ = [
    "FEW",
    "Known",
    "KrylovBasis",
    "Lanczos",
    "MatVec",
    "Maximum",
    "Place",
    "ProbeSweep",
    "Run",
    "block_eigenvalues",
    "eigenpairs",
    "frobenius",
    "hutchinson",
    "hutchpp",
    "lanczos",
    "maximise_ball",
    "maximise_box",
    "mean_estimate",
    "quadratic_forms",
    "spectral_density",
    "trace_within",
]
