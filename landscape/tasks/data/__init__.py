"""Data sets by name, as tensors; labels and images that are corrupted on purpose; augmentation."""
