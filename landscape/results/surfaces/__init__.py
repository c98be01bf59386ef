"""Results of surfaces: values, barriers, minima, and the checks that they are correct."""
