"""Data sets by name, as tensors; corruption of labels and images; augmentation."""
