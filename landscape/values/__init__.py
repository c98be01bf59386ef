"""Loss, accuracy and activations of layers at a point of weight space, without derivatives."""
