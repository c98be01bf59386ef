"""Is the plot right? The evidence that is printed and stored with every surface."""
