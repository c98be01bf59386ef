"""Measures of the function that the network computes; they do not depend on its parametrization."""
