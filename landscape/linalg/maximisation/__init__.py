"""The largest value of a function over a box or a ball."""
