"""The command line: parsing and printing only. No heavy import happens before a command's body runs."""


def main() -> None:
    """Entry point of `landscape` and `python -m landscape`."""
    from landscape.cli.app import run

    run()
