"""Measures of the loss around the weights: its growth in boxes and balls, and under Gaussian noise."""
