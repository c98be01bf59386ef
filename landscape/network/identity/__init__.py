"""Code and constants of a network, a loss or a metric, as text that can be hashed."""
