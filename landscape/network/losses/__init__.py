"""Losses as weighted means over samples: what they are, how they come apart, and whether they take their data."""
