"""What changes through a training run."""
