"""Measures of sharpness: a registry and one file per family. A new one is one file and one import here."""

# isort: split  (the order from here on is the order of every table)
from landscape.measures.eigenvalues import adaptive_lambda_max, lambda_max, lambda_min
from landscape.measures.registry import MEASURES, Measure, chosen, measure, measure_all
from landscape.measures.table import provenance, sharpness

# isort: split
from landscape.measures.traces import adaptive_trace, frobenius, trace

# isort: split
from landscape.measures.epsilon_sharpness import keskar

__all__ = [
    "MEASURES",
    "Measure",
    "adaptive_lambda_max",
    "adaptive_trace",
    "chosen",
    "frobenius",
    "keskar",
    "lambda_max",
    "lambda_min",
    "measure",
    "measure_all",
    "provenance",
    "sharpness",
    "trace",
]
