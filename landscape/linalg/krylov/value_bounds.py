"""Bounds of the errors of Ritz values, which go with the square of the residual."""

import numpy as np
from jaxtyping import Float


def value_bounds(
    values: Float[np.ndarray, " m"], residuals: Float[np.ndarray, " m"], wanted: int, widest: float = np.inf
) -> Float[np.ndarray, " wanted"]:
    """How far the largest eigenvalues λ_1 >= λ_2 >= ... of a symmetric H can be above the largest Ritz values.

    θ_i <= λ_i holds for the Ritz values θ_i of any space (Cauchy). With true residuals r_i = ||H y_i - θ_i y_i|| and any j >= i
    with θ_j > ρ = θ_{j+1} + r_{j+1}

        λ_i - θ_i <= r_1^2 / (θ_1 - ρ) + ... + r_j^2 / (θ_j - ρ),

    if H has no more than j eigenvalues above ρ; for i = j = 1 this is Temple's bound r^2 / gap. Where no j has a gap, (r_1^2 +
    ... + r_i^2)^(1/2) is taken, if H has no value above θ_i on what is orthogonal to y_1, ..., y_i. Both conditions say that
    no eigenvalue was missed; they are assumed, and cannot be known from residuals. The least of all these is returned.

    Args:
        values: (m,) Ritz values of one space in decreasing order, at least `wanted`.
        residuals: (m,) true residual norms of their vectors.
        wanted: how many bounds.
        widest: wider gaps count as this one, which makes the bounds larger and what is assumed less: an eigenvalue that
            was missed does no harm unless it is above θ_j - widest.

    Returns:
        The bounds, without the rounding of the products.

    Proof: with B = H - ρ, Y the j Ritz vectors, D = Θ - ρ > 0 and R = H Y - Y Θ, orthogonal to Y, the compression of the
    inverse of B to B Y is that of D to D^2 + R^T R. Its eigenvalues are below those of the inverse, 1 / (λ_i - ρ), so that λ_i
    - ρ is at most the i-th eigenvalue of D + D^(-1/2) R^T R D^(-1/2), whose second part has the trace above.

    Reference: Temple 1928; Kato 1949; Lehmann 1949; Parlett, The Symmetric Eigenvalue Problem, 1998, chapter 10.

    Example:
        >>> value_bounds(np.array([10.0, 5.0]), np.array([0.1, 0.0]), 1).round(6).tolist()
        [0.002]
    """
    squares = np.asarray(residuals, dtype=np.float64) ** 2
    bounds = np.sqrt(np.cumsum(squares))[:wanted]
    for j in range(1, len(values)):
        gaps = np.minimum(values[:j] - (values[j] + residuals[j]), widest)
        if gaps[-1] > 0:
            bounds[:j] = np.minimum(bounds[:j], (squares[:j] / gaps).sum())
    return bounds
