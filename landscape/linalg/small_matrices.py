"""Eigenvalues of small dense matrices on one thread.

A BLAS with a pool of threads divides matrices of thirty rows already, and its threads wait for one another by spinning. Where
other work has a core, each of the many short steps waits for it: 100 x 100 take some hundred milliseconds instead of one.
"""

import functools
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from jaxtyping import Float
from threadpoolctl import ThreadpoolController
from torch import Tensor

# Rows up to which one thread is as fast as several on an idle machine.
MOST = 500


@functools.cache
def _pools() -> ThreadpoolController:
    """The libraries of linear algebra in this process, looked for once: NumPy's is there."""
    return ThreadpoolController()


def _threads(rows: int) -> AbstractContextManager[object]:
    """One thread for small matrices inside the block, as many as before for others."""
    return _pools().limit(limits=1, user_api="blas") if rows <= MOST else nullcontext()


def eigh(matrix: Float[np.ndarray, "*batch n n"]) -> tuple[Float[np.ndarray, "*batch n"], Float[np.ndarray, "*batch n n"]]:
    """`numpy.linalg.eigh`, on one thread for up to `MOST` rows: eigenvalues in increasing order, eigenvectors as columns."""
    with _threads(matrix.shape[-1]):
        values, vectors = np.linalg.eigh(matrix)
    return values, vectors


def eigvalsh(matrix: Float[np.ndarray, "*batch n n"]) -> Float[np.ndarray, "*batch n"]:
    """`numpy.linalg.eigvalsh`, on one thread for up to `MOST` rows."""
    with _threads(matrix.shape[-1]):
        return np.linalg.eigvalsh(matrix)


def eigh_each(matrices: Float[Tensor, "B n n"]) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B n n"]]:
    """`torch.linalg.eigh` of many small matrices in float64, on their device; on a CPU by NumPy, see `eigh`."""
    if matrices.device.type != "cpu":
        values, vectors = torch.linalg.eigh(matrices.double())
        return values, vectors
    found = eigh(matrices.detach().double().numpy())
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])
