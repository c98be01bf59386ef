"""Matrices that mix channels of which some weights are held: whether any but the identity leaves these as they are."""

from collections.abc import Mapping

import torch
from torch import Tensor

from landscape.symmetry.mixing.mixtures import Mixing

_ROWS = 2  # held rows that are looked at, in units of the number of channels
_ROUNDING = 1e-10  # of a squared singular value, relative to the largest


def free_mixings(
    mixings: tuple[Mixing, ...], held: frozenset[str], tensors: Mapping[str, Tensor]
) -> tuple[tuple[Mixing, ...], tuple[str, ...]]:
    """The mixings that move no held weight, and the names of those of which a part may be left.

    A matrix A leaves held rows W that write the channels as they are if A w = w for each of them, and rows R that read them
    if r A = r. For an invertible A = I + u v^T that needs v orthogonal to W and u to R: there is none if W or R has the rank h,
    the number of channels. For an orthogonal A it needs two dimensions that are orthogonal to all of them. Where there is room,
    what is left of the group is not worked out.
    """
    free, doubtful = [], []
    for mixing in mixings:
        rows = [r for r in mixing.rows if r.name in held]
        if not rows:
            free.append(mixing)
            continue
        written, read = (
            torch.cat([tensors[r.name].detach().cpu().double().reshape(-1)[r.index] for r in rows if r.inverse is side])
            if any(r.inverse is side for r in rows)
            else torch.zeros(0, mixing.size, dtype=torch.float64)
            for side in (False, True)
        )
        if mixing.family == "pair":
            nothing = max(_rank(written), _rank(read)) == mixing.size
        else:
            nothing = _rank(torch.cat((written, read))) >= mixing.size - 1
        if not nothing:
            doubtful.append(f"{mixing.name}, part of which is held")
    return tuple(free), tuple(doubtful)


def _rank(rows: Tensor) -> int:
    """Rank of a matrix, from some of its rows if it has many."""
    most = _ROWS * rows.shape[1]
    rows = rows[torch.linspace(0, len(rows) - 1, min(len(rows), most)).round().long()] if len(rows) else rows
    squares = torch.linalg.eigvalsh(rows.t() @ rows)
    return int((squares > _ROUNDING * squares.max()).sum())
