"""Frozen results: a value, its error, its status and its cost. They know numpy and JSON, and no network."""

from landscape.results.certificate import Certificate, CertificateRow
from landscape.results.comparison import Comparison, GroupValue
from landscape.results.estimate import Estimate, Evaluation
from landscape.results.sharpness import Measurement, Sharpness
from landscape.results.slice import Slice, SliceCheck
from landscape.results.spectrum import Eigenpairs, SpectralDensity

__all__ = [
    "Certificate",
    "CertificateRow",
    "Comparison",
    "Eigenpairs",
    "Estimate",
    "Evaluation",
    "GroupValue",
    "Measurement",
    "Sharpness",
    "Slice",
    "SliceCheck",
    "SpectralDensity",
]
