"""The command line: parsing and printing only. Heavy imports wait until a command's body runs."""

import os

# Turns of GNU OpenMP's waiting loop before a thread sleeps (its own number is 300,000): longer than most steps between the
# operations of a network, shorter than the time for which another program has the core.
_TURNS = "10000"


def wait_briefly() -> None:
    """Let OpenMP's threads wait for one another awake for a moment, then asleep. Read when torch is first imported.

    Threads that sleep at once make a product up to twice as long; ones that wait awake for long take the cores from each other
    beside any other program, and a product takes ten times as long (`python -m benchmarks.waiting_threads`). Settings of the
    user's own stay. LLVM's OpenMP, as on macOS, knows the policy alone: asleep at once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _TURNS)
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def main() -> None:
    """Entry point of `landscape` and `python -m landscape`."""
    wait_briefly()
    # NumPy's own pool of threads, which spins as well, is used for matrices of a few hundred rows alone.
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from landscape.cli.app import run

    run()
