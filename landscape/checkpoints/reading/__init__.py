"""From the bytes of a file to plain tensors, in a process of its own where the format could do harm."""
