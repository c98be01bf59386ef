"""Published numbers that the toolkit should reproduce: for each the number, ours with an interval, and whether it is inside."""
