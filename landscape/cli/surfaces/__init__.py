"""What `landscape surface` takes and leaves behind: its options, its axes, its files."""
