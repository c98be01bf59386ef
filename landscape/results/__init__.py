"""Frozen results: a value, its error, its status and its cost. They know numpy and JSON, and no network."""

from landscape.results.barrier import Barrier
from landscape.results.breakdown import Block
from landscape.results.certificate import Certificate, CertificateRow
from landscape.results.comparison import FALSE_DISCOVERY, Comparison, Difference, Granulated, GroupValue, RankCorrelation
from landscape.results.estimate import Estimate, Evaluation
from landscape.results.sharpness import Measurement, Sharpness
from landscape.results.slice import Slice, SliceCheck
from landscape.results.spectrum import Eigenpairs, SpectralDensity
from landscape.results.spent import Spent

__all__ = [
    "FALSE_DISCOVERY",
    "Barrier",
    "Block",
    "Certificate",
    "CertificateRow",
    "Comparison",
    "Difference",
    "Eigenpairs",
    "Estimate",
    "Evaluation",
    "Granulated",
    "GroupValue",
    "Measurement",
    "RankCorrelation",
    "Sharpness",
    "Slice",
    "SliceCheck",
    "SpectralDensity",
    "Spent",
]
