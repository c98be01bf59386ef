"""Measures of sharpness: a registry and one file per family. A new one is one file, one import here, one row in tests/cases.py."""

from landscape.measures.registry import MEASURES, Measure, chosen, measure, measure_all
from landscape.measures.sharpness import provenance, sharpness

# isort: split  (the order from here on is the order of every table)
from landscape.measures.spectrum import adaptive_lambda_max, lambda_max, lambda_min

# isort: split
from landscape.measures.trace import adaptive_trace, frobenius, trace

# isort: split
from landscape.measures.keskar import keskar

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
