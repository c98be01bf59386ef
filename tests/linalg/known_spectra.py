"""Dense float64 matrices whose spectrum is chosen, and the table of spectra that the solvers are held against."""

import numpy as np
import torch
from torch import Tensor


def conjugated(values: np.ndarray, seed: int = 0) -> Tensor:
    """Q diag(values) Qᵀ with a random orthogonal Q, float64."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))
    q = q * np.sign(np.diag(r))
    matrix = (q * np.asarray(values, dtype=float)) @ q.T
    return torch.from_numpy((matrix + matrix.T) / 2)


def _bulk(size: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.abs(np.random.default_rng(7).standard_normal(size))


SPECTRA = {
    "like a Hessian": np.r_[10, 7, 5, 3, 2.5, _bulk(194, 0.05), -0.3],
    "even": np.linspace(-1, 1, 200),
    "negative": -(np.linspace(1, 2, 200) ** 4),
    "clustered top": np.r_[1 + 1e-5 * np.arange(5), np.linspace(0, 0.5, 195)],
    "fivefold top": np.r_[[5.0] * 5, [3.0] * 3, np.linspace(0, 1, 192)],
    "two values": np.r_[[5.0] * 10, [1.0] * 190],
    "rank three": np.r_[4.0, 3.0, -2.0, np.zeros(197)],
    "zero": np.zeros(200),
    "identity": np.ones(200),
    "far apart": np.r_[1e6, 1e3, np.linspace(-1, 1, 198)],
}
