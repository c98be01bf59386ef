"""The commands of `landscape`, one module each."""
