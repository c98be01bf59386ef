"""Surfaces with a tolerance: points are computed where interpolation would be further off, the others are interpolated.

1. A lattice of 11 points on each axis is computed (`next_points`), with what the check of the surface needs: the centre and
   three points on each side of it, ends of a path, and the points that the check computes again.
2. Two splines of different order go through the known values (`smooth_fit`). Where they are further apart than 0.2 of the
   tolerance, new points are computed, the worst first and spaced apart, at most a tenth more than are known; then again
   (`rounds`). So a narrow minimum in a wide plane is resolved, and the flat rest is not. A point beside one without a finite
   value is computed.
3. When no point is left, 40 or more interpolated ones drawn at random (of a small grid an eighth) are computed, and those of
   the smallest and the largest interpolated value. If one is off by more than 0.6 of the tolerance, its surroundings are
   computed, and it goes on at 2. Else what was held out is the stated error.
4. The rest is interpolated (`between_points`) and has a status of its own. The points of every round are kept in the folder of
   the run; what is in none of these lists is interpolated.
"""
