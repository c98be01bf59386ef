"""Run the command line as `python -m landscape`."""

from landscape.cli import main

main()
