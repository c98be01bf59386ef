"""Matrices between two linear maps: the random ones, the check of a given one, and what they do to the weights."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from landscape.errors import UsageError
from landscape.reparam.moving.same_function import TOLERANCE
from landscape.symmetry.mixing.mixtures import Mixing, Rows

Matrix = Float[Tensor, "h h"]

# How far a given matrix may be from the group of its mixing, relative to its size.
_GROUP = 1e-8


def mix(values: dict[str, Tensor], mixing: Mixing, matrix: Matrix) -> None:
    """z becomes A z in all that writes and reads the channels of a mixing, in place."""
    inverse = torch.linalg.inv(matrix)
    for rows in mixing.rows:
        flat = values[rows.name].view(-1)
        old = flat[rows.index]
        gain = _gain(values, rows)
        flat[rows.index] = ((old * gain) @ inverse) / gain if rows.inverse else ((old / gain) @ matrix.T) * gain


def random_matrix(mixing: Mixing, condition: float, generator: torch.Generator) -> Matrix:
    """A random element of a mixing's group, float64, that depends on the generator and, smoothly, on the condition number.

    A general one is U diag(s) V^T with U and V uniform (Haar) and s log-spaced from 1/sqrt(condition) to sqrt(condition). A
    rotary one turns every pair by a uniform angle and multiplies it by one of such s. An orthogonal one is uniform and ignores
    the condition number.
    """
    h = mixing.size
    if mixing.group == "general":
        left, right = uniform_orthogonal(h, generator), uniform_orthogonal(h, generator)
        return left * _spaced(h, condition) @ right.T
    if mixing.group == "rotary":
        assert mixing.turned is not None  # a rotary mixing says what it turns
        k = len(mixing.turned)
        order = torch.randperm(k, generator=generator, device=generator.device).cpu()
        angle = 2 * math.pi * torch.rand(k, generator=generator, device=generator.device, dtype=torch.float64).cpu()
        return turning(mixing, _spaced(k, condition)[order], angle)
    if mixing.group == "orthogonal":
        return uniform_orthogonal(h, generator)
    basis = centred_basis(h)
    return basis[:, :1] @ basis[:, :1].T + basis[:, 1:] @ uniform_orthogonal(h - 1, generator) @ basis[:, 1:].T


def checked_matrix(mixing: Mixing, matrix: Tensor, weights: Iterable[torch.dtype]) -> Matrix:
    """The matrix in float64, if it keeps the function and weights of these dtypes can hold it.

    Raises:
        UsageError: a wrong shape, a condition number that is too large, or a matrix outside the group of the mixing.
    """
    h = mixing.size
    if tuple(matrix.shape) != (h, h):
        raise UsageError(f"expected a {h} x {h} matrix for {mixing.name}, found shape {tuple(matrix.shape)}")
    wide = matrix.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(wide).all()):
        raise UsageError(f"expected a matrix of finite numbers for {mixing.name}, found one with nan or inf")
    check_condition(float(torch.linalg.cond(wide)), weights, what=f"the matrix for {mixing.name}")
    away = _distance(mixing, wide) / float(torch.linalg.matrix_norm(wide, 2))
    if not away <= _GROUP:
        words = {
            "rotary": "a factor and a rotation for each pair of channels that the rotary embedding turns",
            "orthogonal": "an orthogonal matrix",
            "centred": "an orthogonal matrix that keeps (1, ..., 1)",
        }
        raise UsageError(
            f"expected {words[mixing.group]} for {mixing.name}, found one {away:.2e} away",
            fix="other matrices change the function",
        )
    return wide


def largest_condition(weights: Iterable[torch.dtype]) -> float:
    """The largest condition number that weights of these dtypes can hold: 8e3 in float32, 5e6 in float64.

    Rounding of the weights changes their product by up to eps times the condition number; ten times the outputs' tolerance is
    allowed for it, since rounding errors of many channels partly cancel.
    """
    known = [kind for kind in weights if kind in TOLERANCE]
    return min((10 * TOLERANCE[kind] / torch.finfo(kind).eps for kind in known), default=math.inf)


def check_condition(condition: float, weights: Iterable[torch.dtype], *, what: str = "the matrices") -> None:
    """Refuse a condition number below 1, or above what weights of these dtypes can hold.

    Raises:
        UsageError: it is out of range; the message has both numbers.
    """
    kinds = sorted(set(weights), key=str)
    most = largest_condition(kinds)
    if not 1 - 1e-9 <= condition <= most:
        names = ", ".join(str(kind).removeprefix("torch.") for kind in kinds)
        raise UsageError(
            f"expected a condition number from 1 to {most:.2g} of {what}, with {names} weights, found {condition:.3g}",
            fix="1 is that of an orthogonal matrix"
            if condition < 1
            else "use a matrix closer to orthogonal" + ("" if set(kinds) == {torch.float64} else ", or float64 weights"),
        )


def dtypes_of(model: nn.Module, mixings: Iterable[Mixing]) -> list[torch.dtype]:
    """The dtypes of all weights that the mixings change."""
    named = dict(model.named_parameters())
    return [named[rows.name].dtype for mixing in mixings for rows in mixing.rows if rows.name in named]


def uniform_orthogonal(h: int, generator: torch.Generator) -> Matrix:
    """A uniform (Haar) orthogonal matrix."""
    normal = torch.randn(h, h, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    q, r = torch.linalg.qr(normal)
    return q * r.diagonal().sign()


def turning(mixing: Mixing, factors: Float[Tensor, " k"], angles: Float[Tensor, " k"]) -> Matrix:
    """The matrix of a rotary mixing that multiplies each turned pair by a factor and turns it by an angle."""
    assert mixing.turned is not None  # a rotary mixing says what it turns
    first, second = mixing.turned.T
    matrix = torch.eye(mixing.size, dtype=torch.float64)
    matrix[first, first] = matrix[second, second] = factors * angles.cos()
    matrix[first, second] = -factors * angles.sin()
    matrix[second, first] = factors * angles.sin()
    return matrix


def centred_basis(h: int) -> Matrix:
    """An orthonormal basis whose first column is (1, ..., 1) / sqrt(h)."""
    start = torch.eye(h, dtype=torch.float64)
    start[:, 0] = 1.0
    q, r = torch.linalg.qr(start)
    return q * r.diagonal().sign()


def _gain(values: dict[str, Tensor], rows: Rows) -> Float[Tensor, " h"] | float:
    """The gain between the channels and these rows, 1 without one."""
    if rows.gain is None:
        return 1.0
    own = values[rows.gain].view(-1)
    return own if rows.gain_index is None else own[rows.gain_index]


def _spaced(count: int, condition: float) -> Float[Tensor, " k"]:
    """Factors log-spaced from 1/sqrt(condition) to sqrt(condition)."""
    half = math.log(condition) / 2
    return torch.linspace(-half, half, count, dtype=torch.float64).exp()


def _distance(mixing: Mixing, matrix: Matrix) -> float:
    """How far a matrix is from the group of its mixing."""
    eye = torch.eye(mixing.size, dtype=torch.float64)
    if mixing.group == "general":
        return 0.0
    if mixing.group == "rotary":
        assert mixing.turned is not None  # a rotary mixing says what it turns
        first, second = mixing.turned.T
        along = (matrix[first, first] + matrix[second, second]) / 2
        across = (matrix[second, first] - matrix[first, second]) / 2
        nearest = turning(mixing, torch.hypot(along, across), torch.atan2(across, along))
        return float((matrix - nearest).abs().max())
    away = float((matrix.T @ matrix - eye).abs().max())
    return away if mixing.group == "orthogonal" else max(away, float((matrix.sum(1) - 1).abs().max()))
