"""The points of a surface: directions, trained curves, trajectories, and the charts that they span."""
