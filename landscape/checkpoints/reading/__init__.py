"""Convert a file's bytes to plain tensors, in a separate process if the format could be harmful."""
