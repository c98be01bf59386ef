"""This toolkit beside its peers: the same trained networks, the same data, the same accuracy asked, in one run that alternates.

    python -m benchmarks                    # or: make bench
    python -m benchmarks --quick            # a minute: does everything run?
    python -m benchmarks.train              # makes the trained networks in benchmarks/networks/ again

Writes every single time to benchmarks/results/peers/PROCESSOR.json and draws figures/benchmarks.png from the results of all
processors there; README.md and docs/speed.md have their tables from these files (tests/readme.py --write).
"""
