"""The Lanczos recurrence with its last two vectors only, where a Krylov basis does not fit."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from landscape.linalg.vector_store import Place, Rows


class Recurrence:
    """The coefficients of Lanczos from one start, with new vectors kept orthogonal to the last two only.

    In floating point the vectors lose their orthogonality once an outer eigenvalue has been found to rounding; from then on it
    is found again, as a further node beside the first. The quadrature stays that of a measure whose eigenvalues are spread over
    tiny intervals: the copies of an eigenvalue share its weight.

    Attributes:
        diagonal: (m,) the coefficients alpha so far.

    Args:
        dim: P.
        dtype, device: of the vectors.
        place: where the two vectors are stored.

    Reference: Greenbaum 1989, Linear Algebra Appl. 113; Chen, Trogdon, Ubaru 2021, arXiv:2105.06595.
    """

    def __init__(self, dim: int, dtype: torch.dtype, device: torch.device | str, place: Place | None = None) -> None:
        self.diagonal = np.empty(0)
        self._store = Rows(2, dim, dtype, device, place)  # the last vector, then the one before it
        self._scale = 0.0

    def begin(self, start: Float[Tensor, " P"]) -> None:
        """Set the first vector to `start`, of any length but zero."""
        part = self._store.part(start)
        self._store[0] = part / self._store.norm(part)

    @property
    def next_row(self) -> Float[Tensor, "1 P"]:
        """The vector to multiply next, as a block of one."""
        return self._store[0:1]

    def absorb(self, product: Float[Tensor, " P"]) -> float:
        """Add the product of the next vector; returns beta, the norm of its new component, 0 if the recurrence has ended."""
        w, coefficients = self._store.orthogonalize(self._store.part(product), min(len(self.diagonal) + 1, 2))
        self.diagonal = np.append(self.diagonal, float(coefficients[0]))
        beta = self._store.norm(w)
        self._scale = max(self._scale, float(np.hypot(float(torch.linalg.vector_norm(coefficients)), beta)))
        if beta <= 10 * torch.finfo(w.dtype).eps * self._scale:
            return 0.0
        self._store.move(0, 1)
        self._store[0] = w.div_(beta)
        return beta
