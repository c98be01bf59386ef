"""All that can be changed in a network without changing its function, as blocks that a search moves within a budget."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from landscape.reparam.moving.added_constants import add, count, random_state
from landscape.reparam.moving.matrices import centred_basis, mix, random_matrix, turning
from landscape.reparam.moving.move import Size
from landscape.reparam.moving.scaled import floor, scale
from landscape.reparam.moving.wide_weights import rounded, wide
from landscape.symmetry.families import Family
from landscape.symmetry.mixing.mixtures import Constant, Mixing
from landscape.symmetry.symmetries import Symmetries

Values = dict[str, Tensor]


class Block(Protocol):
    """Changes of one kind, each given by a state."""

    @property
    def family(self) -> Family:
        """The family of these changes."""

    def identity(self) -> Tensor:
        """The state that changes nothing."""

    def draw(self, generator: torch.Generator) -> Tensor:
        """A random state at the edge of the budget."""

    def near(self, state: Tensor, step: float, generator: torch.Generator) -> Tensor:
        """A random state near another, within the budget."""

    def apply(self, values: Values, state: Tensor) -> None:
        """Change the weights, in place."""


@dataclass(frozen=True, eq=False)
class Factors:
    """Factors of neurons, powers of alpha between -1 and 1; `alike`: one for all."""

    family: Family
    symmetries: Symmetries
    neurons: Tensor
    size: Size
    alike: bool

    def identity(self) -> Tensor:
        return torch.zeros(1 if self.alike else len(self.neurons), dtype=torch.float64)

    def draw(self, generator: torch.Generator) -> Tensor:
        """All alpha, all 1/alpha, or each at random one of both."""
        kind = int(torch.randint(3, (1,), generator=generator))
        signs = torch.randint(2, self.identity().shape, generator=generator).double() * 2 - 1
        return signs if kind == 2 else torch.full_like(signs, 1.0 if kind else -1.0)

    def near(self, state: Tensor, step: float, generator: torch.Generator) -> Tensor:
        return (state + step * _normal(state.shape, generator)).clamp(-1, 1)

    def apply(self, values: Values, state: Tensor) -> None:
        scales = self.symmetries.identity()
        scales[self.neurons] = torch.exp(state * math.log(self.size.alpha))
        scale(values, self.symmetries, scales.maximum(floor(values, self.symmetries)))


@dataclass(frozen=True, eq=False)
class Matrices:
    """A matrix of a mixing's group; singular values of an invertible one between 1/sqrt(condition) and sqrt(condition)."""

    family: Family
    mixing: Mixing
    size: Size

    def identity(self) -> Tensor:
        return torch.eye(self.mixing.size, dtype=torch.float64)

    def draw(self, generator: torch.Generator) -> Tensor:
        return random_matrix(self.mixing, self.size.condition, generator)

    def near(self, state: Tensor, step: float, generator: torch.Generator) -> Tensor:
        h, bound = self.mixing.size, math.log(self.size.condition) / 2
        if self.mixing.group == "rotary":
            assert self.mixing.turned is not None  # a rotary mixing says what it turns
            first, second = self.mixing.turned.T
            along, across = state[first, first], state[second, first]
            logs, angles = (torch.stack([torch.hypot(along, across).log(), torch.atan2(across, along)])
                            + step * _normal((2, len(first)), generator))  # fmt: skip
            return turning(self.mixing, logs.clamp(-bound, bound).exp(), angles)
        noise = step * _normal((h, h), generator) / math.sqrt(h)
        if self.mixing.group == "general":
            u, s, v = torch.linalg.svd(torch.linalg.matrix_exp(noise) @ state)
            return u * s.log().clamp(-bound, bound).exp() @ v
        if self.mixing.group == "centred":
            basis = centred_basis(h)[:, 1:]
            noise = basis @ (basis.T @ noise @ basis) @ basis.T
        return torch.linalg.matrix_exp(noise - noise.T) @ state

    def apply(self, values: Values, state: Tensor) -> None:
        mix(values, self.mixing, state)


@dataclass(frozen=True, eq=False)
class Constants:
    """Constants of a shift or a bias, with an rms of at most alpha times that of what they are added to."""

    family: Family
    one: Constant
    size: Size

    def identity(self) -> Tensor:
        return torch.zeros(count(self.one), dtype=torch.float64)

    def draw(self, generator: torch.Generator) -> Tensor:
        state = random_state(self.one, generator)
        return state / state.square().mean().sqrt()

    def near(self, state: Tensor, step: float, generator: torch.Generator) -> Tensor:
        moved = state + step * random_state(self.one, generator)
        return moved / max(1.0, float(moved.square().mean().sqrt()))

    def apply(self, values: Values, state: Tensor) -> None:
        add(values, self.one, state, self.size.alpha)


def blocks_of(symmetries: Symmetries, families: tuple[Family, ...], size: Size) -> list[Block]:
    """All changes of these families, one after another: matrices, constants, then factors.

    Factors come last, so that a measure which survives them gains nothing from them: they do not commute with the matrices.
    """
    found: list[Block] = [Matrices(m.family, m, size) for m in symmetries.mixings if m.family in families]
    found += [Constants(one.family, one, size) for one in symmetries.constants if one.family in families]
    for unit in symmetries.units:
        own: list[Family] = ["norm-in"] if unit.buffers else ["norm-out"] if unit.normed else []
        kind = next((family for family in ("node", *own, "layer") if family in families), None)
        if kind is not None:
            family: Family = own[0] if own and own[0] in families else kind
            found.append(Factors(family, symmetries, unit.neurons, size, alike=kind == "layer"))
    if "norm-in" in families and symmetries.nearly is not None:
        for neuron in range(1, symmetries.nearly.neurons + 1):
            found.append(Factors("norm-in", symmetries.nearly, torch.tensor([neuron]), size, alike=True))
    return found


def network_at(model: nn.Module, blocks: list[Block], states: list[Tensor]) -> nn.Module:
    """A copy of the network with every block at its state, computed in float64 and rounded once."""
    values = wide(model)
    for block, state in zip(blocks, states, strict=True):
        if not torch.equal(state, block.identity()):
            block.apply(values, state)
    return rounded(model, values)


def _normal(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)
