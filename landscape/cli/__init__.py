"""The command line: parsing and printing only. Heavy imports wait until a command's body runs."""

import os


def main() -> None:
    """Entry point of `landscape` and `python -m landscape`."""
    # Waiting OpenMP threads should sleep: spinning ones take cores from other work. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from landscape.cli.app import run

    run()
