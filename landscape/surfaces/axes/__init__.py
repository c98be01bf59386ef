"""The points of a surface: directions, trained curves, trajectories, and charts."""
