"""Move a network along one family of its symmetries: the weights change, the function does not."""
