"""Surfaces onto matplotlib axes: lines, planes, their minima, and what was trained on the way."""
