"""The command line: parsing and printing only. No heavy import happens before a command's body runs."""

import os


def main() -> None:
    """Entry point of `landscape` and `python -m landscape`."""
    # Threads that wait by spinning take a shared machine's cores from the threads that work; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from landscape.cli.app import run

    run()
