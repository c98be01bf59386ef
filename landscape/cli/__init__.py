"""The command line: parsing and printing only. Heavy imports wait until a command's body runs."""

import os


def main() -> None:
    """Entry point of `landscape` and `python -m landscape`."""
    # Waiting OpenMP threads should sleep: spinning ones take cores from other work. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # NumPy's own pool of threads, which spins as well, is used for matrices of a few hundred rows alone.
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from landscape.cli.app import run

    run()
