"""The command `landscape surface`: options, axes and output files."""
