"""Training by a recipe: deterministic, resumable, with the weights kept that a trajectory needs."""
