"""Which measure tells memorizing from generalizing networks: the runs, their statistics, the claims, the figure."""
