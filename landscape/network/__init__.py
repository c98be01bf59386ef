"""What a network on its data is before anything is derived from it: parameters, batches, loss, forward pass, traced graph."""
