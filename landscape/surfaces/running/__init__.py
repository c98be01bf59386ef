"""Evaluation of surfaces point by point: quantities at a point, order of the points, storage of finished points."""
