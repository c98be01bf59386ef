"""Drawing of slices of the loss surface: lines, planes, minima, projected trajectories and checkpoints."""
