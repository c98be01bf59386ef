"""The scaling symmetries of a network: weights that can be multiplied and divided without changing its function."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from landscape.errors import UsageError
from landscape.symmetry.families import FAMILIES, Family
from landscape.symmetry.mixing.mixtures import OUTPUTS, BatchNormMean, Centring, Constant, Mixing, Shift, Trade

_SHOWN = 12  # of each kind, in print


@dataclass(frozen=True, eq=False)
class Scaling:
    """How a parameter or buffer follows the neurons' scales: its elements are multiplied by s[num] / s[den].

    Attributes:
        num, den: indices of neurons (0: none), broadcasting to `shape`.
        shape: of the tensor.
        eps: of a running variance v, where (v + eps) is multiplied by (s[num] / s[den])^2; None otherwise.
    """

    num: Int[Tensor, "..."]
    den: Int[Tensor, "..."]
    shape: torch.Size
    eps: float | None = None

    def factor(self, scales: Float[Tensor, " n"]) -> Float[Tensor, "..."]:
        """s[num] / s[den], broadcasting to `shape`."""
        return scales[self.num] / scales[self.den]

    def exponent(self, neurons: Int[Tensor, " k"]) -> Int[Tensor, "..."]:
        """+1 where elements are multiplied by these neurons' scale, -1 where divided, else 0; broadcasts to `shape`."""
        return torch.isin(self.num, neurons).long() - torch.isin(self.den, neurons).long()


@dataclass(frozen=True, eq=False)
class Unit:
    """Neurons or channels that share a scale in layer-wise scaling: outputs of one layer, or of all that write to one stream.

    Attributes:
        name: its producing layers, joined by " + ".
        producers: the layers that write it; each name also selects the unit.
        neurons: (k,) their indices; each may have its own factor.
        multiplied, divided: parameters that its scale multiplies or divides.
        buffers: BatchNorm statistics that absorb the scale.
        normed: whether all its producers are gains of normalizations.
    """

    name: str
    producers: tuple[str, ...]
    neurons: Int[Tensor, " k"]
    multiplied: tuple[str, ...]
    divided: tuple[str, ...]
    buffers: tuple[str, ...]
    normed: bool = False

    def __str__(self) -> str:
        parts = [f"{_shortened(self.producers, ' + ')} ({len(self.neurons)} neurons):"]
        for word, names in (("×", self.multiplied), ("÷", self.divided), ("taken up by", self.buffers)):
            parts += [f"{word} {_shortened(names, ', ')}"] if names else []
        return "  ".join(parts)


@dataclass(frozen=True)
class Pinned:
    """A layer some of whose outputs cannot be scaled: how many of them, out of how many, and why."""

    layer: str
    outputs: int
    width: int
    reason: str

    def __str__(self) -> str:
        part = "" if self.outputs == self.width else f" ({self.outputs} of {self.width} outputs)"
        return f"{self.layer}{part}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Symmetries:
    """All scaling symmetries of a network. Prints as a list.

    An element of the symmetry group is a vector `scales` of positive numbers, one for each neuron, with scales[0] = 1 for
    everything that cannot be scaled; see `identity`, `layerwise` and `Scaling.factor`.

    Attributes:
        units: in network order.
        pinned: layers without a symmetry.
        scalings: parameter or buffer name -> how it follows the scales; tensors that never change are omitted.
        neurons: number of independent factors.
        mixings: channels that a matrix may mix.
        shifts, trades: constants that the function ignores, or that one bias may take from another.
        centrings: rows of weights to which a constant may be added, because they read what a LayerNorm has centred.
        means: BatchNorms whose running mean and shift may change together.
        nearly: the scales that a normalization takes away but for its eps; None if there are none.
        unread: operations that no rule reads, each with its place; what they hide is not known.
        unread_factors: places where factors might be inverse to each other, or powers of each other, which is not looked for.
        unread_matrices: places that a matrix might pass, which is not looked for.
        unread_constants: places behind which a constant might be taken away, which is not looked for.
    """

    units: tuple[Unit, ...]
    pinned: tuple[Pinned, ...]
    scalings: dict[str, Scaling]
    neurons: int
    mixings: tuple[Mixing, ...] = ()
    shifts: tuple[Shift, ...] = ()
    trades: tuple[Trade, ...] = ()
    centrings: tuple[Centring, ...] = ()
    means: tuple[BatchNormMean, ...] = ()
    nearly: "Symmetries | None" = None
    unread: tuple[str, ...] = ()
    unread_factors: tuple[str, ...] = ()
    unread_matrices: tuple[str, ...] = ()
    unread_constants: tuple[str, ...] = ()

    @property
    def all_unread(self) -> tuple[str, ...]:
        """All places that are not read, each once."""
        return tuple(dict.fromkeys((*self.unread, *self.unread_factors, *self.unread_matrices, *self.unread_constants)))

    @property
    def constants(self) -> tuple[Constant, ...]:
        """All shifts, trades, centrings and means."""
        return (*self.shifts, *self.trades, *self.centrings, *self.means)

    def with_equal_outputs(self) -> "Symmetries":
        """Without what moves all outputs by a constant, for a loss that does not ignore it."""
        shifts = tuple(shift for shift in self.shifts if not shift.outputs)
        trades = tuple(trade for trade in self.trades if not trade.outputs)
        unread = tuple(place for place in self.unread_constants if place != OUTPUTS)
        return replace(self, shifts=shifts, trades=trades, unread_constants=unread)

    @property
    def moves_outputs(self) -> bool:
        """Whether any shift or trade moves all outputs by a constant, or might."""
        found = any(shift.outputs for shift in self.shifts) or any(trade.outputs for trade in self.trades)
        return found or OUTPUTS in self.unread_constants

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The families that exist in this network, in the order of `FAMILIES`."""
        there: dict[Family, bool] = {
            "layer": bool(self.units),
            "node": bool(self.units),
            "pair": any(mixing.family == "pair" for mixing in self.mixings),
            "rotation": any(mixing.family == "rotation" for mixing in self.mixings),
            "norm-out": any(unit.normed for unit in self.units),
            "norm-in": self.nearly is not None or any(unit.buffers for unit in self.units),
            "shift": any(constant.family == "shift" for constant in self.constants),
            "bias": any(constant.family == "bias" for constant in self.constants),
        }
        return tuple(family for family in FAMILIES if there[family])

    @cached_property
    def _by_layer(self) -> dict[str, Unit]:
        """Units by each of their names."""
        return {name: unit for unit in self.units for name in (unit.name, *unit.producers)}

    def __iter__(self) -> Iterator[Unit]:
        return iter(self.units)

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, name: str) -> Unit:
        """The unit with this name, or the one that this layer writes.

        Raises:
            UsageError: there is none; for a known layer the message says why.
        """
        if name in self._by_layer:
            return self._by_layer[name]
        why = next((f": {p.reason}" for p in self.pinned if p.layer == name), "")
        known = ", ".join(unit.name for unit in self.units) or "none"
        raise UsageError(f"expected the name of a layer that can be rescaled, found {name}{why}", fix=f"choose from: {known}")

    def require(self) -> "Symmetries":
        """Self, if there is any symmetry.

        Raises:
            UsageError: there is none; the message says why.
        """
        if not self.units:
            why = "; ".join(str(p) for p in self.pinned[:5]) or "it has no weights between its input and its output"
            raise UsageError(f"expected a scaling symmetry, found none ({why})", fix="only rectified networks have one")
        return self

    @property
    def default(self) -> Unit:
        """The first unit that multiplies one layer's weights and divides another's, as in Dinh et al.; otherwise the first."""
        return next((unit for unit in self.require().units if unit.multiplied and unit.divided), self.units[0])

    def identity(self) -> Float[Tensor, " n"]:
        """The scales of the identity: ones, (neurons + 1,), float64."""
        return torch.ones(self.neurons + 1, dtype=torch.float64)

    def layerwise(self, factors: Mapping[str, float | Tensor]) -> Float[Tensor, " n"]:
        """Scales from one factor for each unit: a number, or one value for each of its neurons.

        Raises:
            UsageError: a name is unknown, a unit is given twice, a length is wrong, or a factor is not finite and positive.
        """
        scales, seen = self.identity(), dict[str, str]()
        for name, value in factors.items():
            unit = self[name]
            if unit.name in seen:
                raise UsageError(
                    f"expected one factor for {unit.name}, found two, as {seen[unit.name]} and as {name}", fix="give it once"
                )
            seen[unit.name] = name
            factor = torch.as_tensor(value, dtype=torch.float64, device="cpu")
            if factor.ndim > 1 or (factor.ndim == 1 and len(factor) != len(unit.neurons)):
                raise UsageError(f"expected 1 or {len(unit.neurons)} factors for {name}, found shape {tuple(factor.shape)}")
            if not bool((torch.isfinite(factor) & (factor > 0)).all()):
                bad = factor[~(torch.isfinite(factor) & (factor > 0))].flatten()[0]
                raise UsageError(
                    f"expected finite factors above 0 for {name}, found {float(bad):g}", fix="a scale is a positive number"
                )
            scales[unit.neurons] = factor
        return scales

    def __str__(self) -> str:
        head = (
            f"scaling symmetries: {len(self.units)} layer-wise, {self.neurons} neuron-wise"
            if self.units
            else "no scaling symmetry"
        )
        lines = [head, *self._families_line(), *(f"  {line}" for line in counted(map(str, self.units)))]
        if self.pinned:
            lines += ["cannot be scaled", *(f"  {pinned}" for pinned in self.pinned)]
        further: tuple[tuple[str, Sequence[object]], ...] = (
            ("pair, rotation: channels that a matrix may mix", self.mixings),
            ("shift: constants that the function ignores", self.shifts),
            ("bias, shift: constants that one takes from another", self.trades),
            ("bias: constants that a row of weights takes from a bias", self.centrings),
            ("bias: running means that change together with a shift", self.means),
            (
                "norm-in: scales that a normalization takes away but for its eps",
                self.nearly.units if self.nearly is not None else (),
            ),
            ("not read, so that what they hide is not known", self.all_unread),
        )
        for title, found in further:
            if found:
                distinct = counted(map(str, found))
                lines += [f"{title}: {len(found)}", *(f"  {line}" for line in distinct[:_SHOWN])]
                lines += [f"  and {len(distinct) - _SHOWN} more"] if len(distinct) > _SHOWN else []
        return "\n".join(lines)

    def _families_line(self) -> list[str]:
        """What the families layer and node are in a network with normalizations; nothing where there are only rectifiers."""
        normed = sum(unit.normed for unit in self.units)
        if not normed:
            return []
        count = "all" if normed == len(self.units) else f"{normed} of {len(self.units)}"
        rest = "" if normed == len(self.units) else "; the others are linear maps or rectified layers"
        return [
            f"  families layer, node and norm-out: {count} are the gain and shift of a normalization, whose factor the weights "
            f"that read it take back{rest}"
        ]


_CHANNELS = re.compile(r", channels [^(]*(?= \()")


def counted(lines: Iterable[str]) -> list[str]:
    """Each line once; how often it comes, and the first channels, where several differ in nothing or in channels only.

    Example:
        >>> counted(["a, channels 0 to 3 (4 channels): any", "a, channels 4 to 7 (4 channels): any", "b", "b", "c"])
        ['a (4 channels): any, × 2, the first: channels 0 to 3', 'b, × 2', 'c']
    """
    alike: dict[str, list[str]] = {}
    for line in lines:
        alike.setdefault(_CHANNELS.sub("", line), []).append(line)
    out = []
    for short, own in alike.items():
        first = _CHANNELS.search(own[0])
        said = f", the first: {first[0].removeprefix(', ')}" if first and len(set(own)) > 1 else ""
        out.append(own[0] if len(own) == 1 else f"{short}, × {len(own)}{said}")
    return out


def _shortened(names: tuple[str, ...], joint: str) -> str:
    """Names joined; only the first two if there are more than four."""
    return joint.join(names if len(names) <= 4 else (*names[:2], f"{len(names) - 2} more"))
