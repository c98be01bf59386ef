"""This toolkit beside its peers: the same trained networks, the same data, the same accuracy asked, in one run that alternates.

    python -m benchmarks                    # or: make bench
    python -m benchmarks --quick            # a minute: does everything run?
    python -m benchmarks.train              # makes the trained networks in benchmarks/networks/ again

Writes benchmarks/results/peers.json (every single time), benchmarks/results/peers.md (a table) and figures/benchmarks.png.
"""
