"""Traces from pairs of a sample and a factor of its loss's curvature in the outputs, instead of probes of all samples."""
