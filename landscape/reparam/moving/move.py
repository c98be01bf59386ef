"""Move a network at random along one family of its symmetries, or along all of them one after another."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from landscape.errors import UsageError
from landscape.network.copying import uncompiled
from landscape.network.graph import Example
from landscape.reparam.moving.added_constants import add, random_state
from landscape.reparam.moving.matrices import check_condition, checked_matrix, dtypes_of, random_matrix
from landscape.reparam.moving.matrices import mix as mix_values
from landscape.reparam.moving.same_function import NEARLY, compare, tolerance_of
from landscape.reparam.moving.scaled import floor, normed, powers, scale, taken_up
from landscape.reparam.moving.wide_weights import rounded, wide
from landscape.symmetry.families import FAMILIES, Family
from landscape.symmetry.mixing.mixtures import Mixing
from landscape.symmetry.symmetries import Symmetries


@dataclass(frozen=True)
class Size:
    """How far a network is moved.

    Attributes:
        alpha: factors are between 1/alpha and alpha, and constants have alpha times the rms of what they are added to.
        condition: condition number of the matrices.
    """

    alpha: float
    condition: float


def move(
    model: nn.Module,
    symmetries: Symmetries,
    family: Family | Sequence[Family],
    *,
    alpha: float = 5.0,
    condition: float = 10.0,
    example: Example | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A network with the same function and other weights, moved at random along one family of its symmetries.

    "layer" and "node" are T_alpha as in `rescale`, with its default arguments. "norm-out" draws the factors of "node" for the
    channels of normalizations only. "norm-in" multiplies the weights before a normalization by powers of alpha from alpha^-1 to
    alpha, the largest alpha itself. "pair" takes U diag(s) V^T for every mixing, with U, V uniform and s log-spaced
    from 1/sqrt(condition) to sqrt(condition); with a rotary embedding it is a rotation of each pair of channels times one
    of s. "rotation" takes uniform orthogonal matrices. "shift" and "bias" add normal constants of alpha times the rms of what
    they are added to. A weight in several mixings is changed by one after another.

    Args:
        model: a network; it is copied, not changed.
        symmetries: of this network, from `find_symmetries`.
        family: one, or several to move along one after another, e.g. `symmetries.families`.
        alpha: > 0; see above.
        condition: condition number of the matrices of "pair", >= 1.
        example: an input, (B, ...); if given, the outputs on it are compared before and after.
        generator: of all random numbers; seed 0 if None.

    Returns:
        A copy, in the mode, dtype and on the device of the model. New weights are computed in float64 and rounded once.

    Raises:
        UsageError: the network lacks the family; alpha is not positive; the condition number is too large for the weights'
            dtype, see `largest_condition`.
        NumericalError: a weight overflows its dtype, or the outputs on the example changed by more than rounding: for
            "norm-in", which an eps makes inexact, by more than 1 % of the largest output.

    Cost: one copy in float64, and two forward passes on two samples of the example.

    Reference: Dinh et al. 2017, arXiv:1703.04933; for "pair" da Silva et al. 2025, arXiv:2505.05409.

    Example:
        >>> from landscape.reparam import find_symmetries
        >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
        >>> other = move(net, find_symmetries(net), "layer", alpha=4.0)
        >>> float((other[0].weight / net[0].weight).detach()), float((other[2].weight / net[2].weight).detach())
        (4.0, 0.25)
    """
    families: tuple[Family, ...] = (family,) if isinstance(family, str) else tuple(family)
    check(model, symmetries, families, alpha=alpha, condition=condition)
    random = torch.Generator().manual_seed(0) if generator is None else generator
    values = wide(model)
    for one in families:
        _MOVES[one](values, symmetries, Size(alpha, condition), random)
    other = rounded(model, values)
    if example is not None:
        inexact = "norm-in" in families and symmetries.nearly is not None
        matrices = "pair" in families
        compare(
            model,
            other,
            example,
            tolerance=max(NEARLY, tolerance_of(model)) if inexact else None,
            classes=classes_of(symmetries) if "shift" in families else (),
            along=", ".join(families),
            fix="use a smaller condition number or an alpha closer to 1" if matrices else "use an alpha closer to 1",
            inexact=inexact,
        )
    return other


def mix(model: nn.Module, mixing: Mixing, matrix: Tensor, *, example: Example | None = None) -> nn.Module:
    """A network with the same function, in which the channels z of a mixing have become A z.

    Args:
        model: a network; it is copied, not changed.
        mixing: of this network, from `find_symmetries(model).mixings`.
        matrix: A, (h, h), from the group of the mixing.
        example: an input, (B, ...); if given, the outputs on it are compared before and after.

    Returns:
        A copy, in the mode, dtype and on the device of the model. New weights are computed in float64 and rounded once.

    Raises:
        UsageError: a wrong shape, a matrix outside the group of the mixing, or one that is singular or too ill-conditioned for
            the weights' dtype; the message has its condition number.
        NumericalError: a weight overflows its dtype, or the outputs on the example changed by more than rounding.
    """
    checked = checked_matrix(mixing, matrix, dtypes_of(uncompiled(model), [mixing]))
    values = wide(model)
    mix_values(values, mixing, checked)
    other = rounded(model, values)
    if example is not None:
        compare(model, other, example, along=mixing.name, fix="use a smaller condition number")
    return other


def check(
    model: nn.Module, symmetries: Symmetries, families: Sequence[Family], *, alpha: float = 5.0, condition: float = 10.0
) -> None:
    """Refuse, before any work, a move that the network or the dtype of its weights does not allow; see `move`."""
    if not symmetries.families:
        why = "; ".join(str(p) for p in symmetries.pinned[:5]) or "it has no weights between its input and its output"
        unread = f"; not read: {', '.join(symmetries.unread[:3])}" if symmetries.unread else ""
        raise UsageError(
            f"expected a symmetry, found none ({why}{unread})", fix="no change of these weights is known to keep it"
        )
    for family in families or ("",):
        if family not in FAMILIES:
            raise UsageError(f"expected a family of symmetries, found {family!r}", fix=f"choose among {', '.join(FAMILIES)}")
        if family not in symmetries.families:
            raise UsageError(
                f"expected a symmetry of the family {family}, found none in this network",
                fix=f"it has {', '.join(symmetries.families)}",
            )
    if not (math.isfinite(alpha) and alpha > 0):
        raise UsageError(f"expected alpha to be a finite number above 0, found {alpha:g}", fix="a scale is a positive number")
    if "pair" in families:
        mixings = [mixing for mixing in symmetries.mixings if mixing.family == "pair"]
        check_condition(condition, dtypes_of(uncompiled(model), mixings))


def classes_of(symmetries: Symmetries) -> tuple[int, ...]:
    """Numbers of classes whose outputs a shift moves by one constant."""
    shifts = {i.shape[1] for one in symmetries.shifts if one.outputs for i in one.rows.values()}
    tables = {i.shape[0] for one in symmetries.trades if one.outputs for i in (*one.plus.values(), *one.minus.values())}
    return tuple(shifts | tables)


def _layer(values: dict[str, Tensor], symmetries: Symmetries, size: Size, generator: torch.Generator) -> None:
    """The first unit that multiplies one layer's weights and divides another's times alpha."""
    scale(values, symmetries, symmetries.layerwise({symmetries.default.name: size.alpha}))


def _node(values: dict[str, Tensor], symmetries: Symmetries, size: Size, generator: torch.Generator) -> None:
    """Every neuron by its own factor."""
    for unit in symmetries.units:
        _scaled(values, symmetries, unit.neurons, size.alpha, generator)


def _norm_out(values: dict[str, Tensor], symmetries: Symmetries, size: Size, generator: torch.Generator) -> None:
    """Every channel of a normalization's gain by its own factor."""
    _scaled(values, symmetries, normed(symmetries), size.alpha, generator)


def _norm_in(values: dict[str, Tensor], symmetries: Symmetries, size: Size, generator: torch.Generator) -> None:
    """Everything before a normalization by its own factor, of which the largest is alpha."""
    for own, neurons in into_norms(symmetries):
        scales, exponents = own.identity(), powers(math.e, len(neurons), generator).log()
        scales[neurons] = size.alpha ** (exponents / exponents[exponents.abs().argmax()])
        scale(values, own, scales.maximum(floor(values, own)))


def into_norms(symmetries: Symmetries) -> list[tuple[Symmetries, Tensor]]:
    """The scales that normalizations take away: the symmetries that have them, and their neurons."""
    found = [(symmetries, taken_up(symmetries))]
    if symmetries.nearly is not None:
        found.append((symmetries.nearly, torch.arange(1, symmetries.nearly.neurons + 1)))
    return [(own, neurons) for own, neurons in found if len(neurons)]


def _scaled(
    values: dict[str, Tensor], symmetries: Symmetries, neurons: Tensor, alpha: float, generator: torch.Generator
) -> None:
    """These neurons by log-uniform factors between 1/alpha and alpha, none below what running variances allow."""
    scales = symmetries.identity()
    scales[neurons] = powers(alpha, len(neurons), generator)
    scale(values, symmetries, scales.maximum(floor(values, symmetries)))


def _mixed(family: Family) -> "Move":
    """A random matrix of each mixing of a family."""

    def move_along(values: dict[str, Tensor], symmetries: Symmetries, size: Size, generator: torch.Generator) -> None:
        for mixing in symmetries.mixings:
            if mixing.family == family:
                mix_values(values, mixing, random_matrix(mixing, size.condition, generator))

    return move_along


def _added(family: Family) -> "Move":
    """Random constants of one family."""

    def move_along(values: dict[str, Tensor], symmetries: Symmetries, size: Size, generator: torch.Generator) -> None:
        for one in symmetries.constants:
            if one.family == family:
                add(values, one, random_state(one, generator), size.alpha)

    return move_along


Move = Callable[[dict[str, Tensor], Symmetries, Size, torch.Generator], None]

_MOVES: dict[Family, Move] = {
    "layer": _layer,
    "node": _node,
    "pair": _mixed("pair"),
    "rotation": _mixed("rotation"),
    "norm-out": _norm_out,
    "norm-in": _norm_in,
    "shift": _added("shift"),
    "bias": _added("bias"),
}
