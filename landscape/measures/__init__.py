"""Measures of sharpness: a registry and one file per family. A new one is one file, one import here, one row in tests/cases.py."""

from landscape.measures.keskar import keskar
from landscape.measures.registry import MEASURES, Measure, chosen, measure, measure_all
from landscape.measures.sharpness import provenance, sharpness
from landscape.measures.spectrum import adaptive_lambda_max, lambda_max, lambda_min
from landscape.measures.trace import adaptive_trace, frobenius, trace

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
