"""One module a command of `landscape`."""
