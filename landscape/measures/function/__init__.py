"""Measures of the function that the network computes, whatever its weights are."""
