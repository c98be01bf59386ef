"""Loss and accuracy at a point of weight space, without derivatives."""
