"""Parts of the commands that follow a training run."""
