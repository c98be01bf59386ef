"""Training by a recipe: deterministic, resumable, with saved weights for a trajectory."""
