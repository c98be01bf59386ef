"""A network on its data, before derivatives: parameters, batches, losses, the forward pass and the traced graph."""
