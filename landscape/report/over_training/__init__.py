"""Figures of what changes through a training run."""
