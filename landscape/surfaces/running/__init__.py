"""Surfaces point by point: what is measured at one, in which order, and how nothing is ever lost."""
