"""Immutable results: a value, its error, its status and its cost. They depend on numpy and JSON, not on networks."""

from landscape.results.certificate import Certificate, CertificateRow
from landscape.results.certificate_table import CertificateTable
from landscape.results.compared.comparison import Comparison
from landscape.results.compared.group_statistics import FALSE_DISCOVERY, Difference, GroupValue
from landscape.results.compared.rank_statistics import Granulated, PartialCorrelation, RankCorrelation, SignError
from landscape.results.compared.sweep import ORDERS, Sweep, Unmeasured
from landscape.results.estimate import Estimate, Evaluation
from landscape.results.found_symmetries import FoundSymmetries
from landscape.results.information import Information, LayerInformation, MutualInformation
from landscape.results.over_training.check import Alarm, Check
from landscape.results.over_training.memorization_signal import MemorizationSignal
from landscape.results.over_training.watch_history import WatchHistory
from landscape.results.passes import Spent
from landscape.results.sample_scores import Detection, SampleScores
from landscape.results.sampling import Sampling
from landscape.results.sharpness import Measurement, Sharpness
from landscape.results.spectra.breakdown import Block, Breakdown
from landscape.results.spectra.minibatch_spectra import MinibatchSpectra
from landscape.results.spectra.spectrum import Eigenpairs, SpectralDensity
from landscape.results.stationarity import Stationarity
from landscape.results.surfaces.barrier import Barrier
from landscape.results.surfaces.derivative_check import Derivatives
from landscape.results.surfaces.merge_tree import MergeTree, Minimum
from landscape.results.surfaces.path_check import PathCheck
from landscape.results.surfaces.precision_deviation import Deviation
from landscape.results.surfaces.random_axes import RandomAxes, RandomAxis
from landscape.results.surfaces.refinement import Refinement
from landscape.results.surfaces.slice import DONE, FAILED, INTERPOLATED, MISSING, NOT_FINITE, STATUS, UNCONVERGED, Slice
from landscape.results.surfaces.slice_check import NormRatios, SliceCheck
from landscape.results.surfaces.track import Track

__all__ = [
    "DONE",
    "FAILED",
    "FALSE_DISCOVERY",
    "INTERPOLATED",
    "MISSING",
    "NOT_FINITE",
    "ORDERS",
    "STATUS",
    "UNCONVERGED",
    "Alarm",
    "Barrier",
    "Block",
    "Breakdown",
    "Certificate",
    "CertificateRow",
    "CertificateTable",
    "Check",
    "Comparison",
    "Derivatives",
    "Detection",
    "Deviation",
    "Difference",
    "Eigenpairs",
    "Estimate",
    "Evaluation",
    "FoundSymmetries",
    "Granulated",
    "GroupValue",
    "Information",
    "LayerInformation",
    "Measurement",
    "MemorizationSignal",
    "MergeTree",
    "MinibatchSpectra",
    "Minimum",
    "MutualInformation",
    "NormRatios",
    "PartialCorrelation",
    "PathCheck",
    "RandomAxes",
    "RandomAxis",
    "RankCorrelation",
    "Refinement",
    "SampleScores",
    "Sampling",
    "Sharpness",
    "SignError",
    "Slice",
    "SliceCheck",
    "SpectralDensity",
    "Spent",
    "Stationarity",
    "Sweep",
    "Track",
    "Unmeasured",
    "WatchHistory",
]
