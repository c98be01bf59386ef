"""What a comparison of groups of runs says: statistics of groups, rank statistics with the gap, and all of them together."""
