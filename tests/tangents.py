"""Directions in which the weights change along the symmetries that were found, from the formulas of each kind alone.

The coordinates are all parameters, and the running statistics of BatchNorms. Nothing here moves a network: these are the
derivatives of the moves at the identity, to be held against dense Jacobians.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from landscape.symmetry import Symmetries
from landscape.symmetry.mixing.mixtures import BatchNormMean, Centring, Mixing, Rows, Shift, Trade

Values = dict[str, Tensor]  # coordinate -> its values, flattened


def coordinates(model: nn.Module) -> Values:
    """Parameters and running statistics, flattened."""
    statistics = {n: b for n, b in model.named_buffers() if n.endswith(("running_mean", "running_var"))}
    return {n: v.detach().flatten() for n, v in {**dict(model.named_parameters()), **statistics}.items()}


def tangents(model: nn.Module, symmetries: Symmetries, *, outputs: bool = False) -> Tensor:
    """(k, P) unit vectors that span all that was found; with `outputs`, also what moves all outputs by one constant."""
    values = coordinates(model)
    found = list(_along(values, symmetries, outputs))
    flat = [torch.cat([one.get(n, torch.zeros_like(v)) for n, v in values.items()]) for one in found]
    flat = [direction / direction.norm() for direction in flat if direction.norm() > 0]
    return torch.stack(flat) if flat else torch.zeros(0, sum(v.numel() for v in values.values()), dtype=torch.float64)


def _along(values: Values, symmetries: Symmetries, outputs: bool) -> Iterator[Values]:
    """One change of the values for each free number of the symmetries."""
    for mixing in symmetries.mixings:
        for generator in generators(mixing):
            yield _mixed(values, mixing, generator)
    for shift in symmetries.shifts:
        if outputs or not shift.outputs:
            yield from _shifted(values, shift)
    for trade in symmetries.trades:
        if outputs or not trade.outputs:
            yield from _traded(values, trade)
    for centring in symmetries.centrings:
        yield from _centred(values, centring)
    for mean in symmetries.means:
        yield from _mean(values, mean)
    for own in (symmetries, symmetries.nearly):
        if own is not None:
            yield from _scaled(values, own)


def generators(mixing: Mixing) -> Iterator[Tensor]:
    """A basis of the Lie algebra of a mixing's group: matrices (h, h)."""
    h = mixing.size

    def unit(i: int, j: int) -> Tensor:
        matrix = torch.zeros(h, h, dtype=torch.float64)
        matrix[i, j] = 1
        return matrix

    if mixing.group == "general":
        yield from (unit(i, j) for i in range(h) for j in range(h))
    elif mixing.group == "rotary":
        for i, j in mixing.turned.tolist():
            yield unit(i, i) + unit(j, j)
            yield unit(i, j) - unit(j, i)
    else:
        keep = torch.eye(h, dtype=torch.float64)
        keep = keep - 1 / h if mixing.group == "centred" else keep  # then X (1, ..., 1) = 0
        yield from (keep @ (unit(i, j) - unit(j, i)) @ keep for i in range(h) for j in range(i))


def _mixed(values: Values, mixing: Mixing, x: Tensor) -> Values:
    """The derivative at t = 0 of A = exp(t X)."""
    change: Values = {}
    for rows in mixing.rows:
        _add(change, values, rows.name, rows.index, _row_change(values, rows, x))
    return change


def _row_change(values: Values, rows: Rows, x: Tensor) -> Tensor:
    """Of g A^T or g A^-1, in units of the gain if there is one."""
    g = values[rows.name][rows.index]
    c = torch.ones(rows.index.shape[1], dtype=torch.float64) if rows.gain is None else values[rows.gain][rows.gain_index]
    return -((g * c) @ x) / c if rows.inverse else ((g / c) @ x.T) * c


def _shifted(values: Values, shift: Shift) -> Iterator[Values]:
    """Each row by its own constant if it is uniform, else all rows by one vector."""
    for name, index in shift.rows.items():
        for positions in index if shift.uniform else index.T:
            change: Values = {}
            _add(change, values, name, positions, torch.ones(len(positions), dtype=torch.float64))
            yield change


def _traded(values: Values, trade: Trade) -> Iterator[Values]:
    """d in some biases, -d in others, -W d in those of the readers."""
    h = next(iter((trade.plus | trade.minus).values())).shape[1]
    for d in torch.ones(1, h, dtype=torch.float64) if trade.uniform else torch.eye(h, dtype=torch.float64):
        change: Values = {}
        for side, sign in ((trade.plus, 1), (trade.minus, -1)):
            for name, index in side.items():
                _add(change, values, name, index, sign * d.expand(index.shape))
        for reader in trade.readers:
            _add(change, values, reader.bias, reader.bias_index, -values[reader.weight][reader.weight_index] @ d)
        yield change


def _centred(values: Values, centring: Centring) -> Iterator[Values]:
    """1 / gain in a row; its bias loses sum(shift / gain)."""
    ones = torch.ones(centring.index.shape[1], dtype=torch.float64)
    per_gain = ones if centring.gain is None else 1 / values[centring.gain][centring.gain_index]
    for o, positions in enumerate(centring.index):
        change: Values = {}
        _add(change, values, centring.weight, positions, per_gain)
        if centring.shift is not None:
            lost = values[centring.shift][centring.shift_index] @ per_gain
            _add(change, values, centring.bias, centring.bias_index[o : o + 1], -lost[None])
        yield change


def _mean(values: Values, norm: BatchNormMean) -> Iterator[Values]:
    """d in the running mean, gain d / sqrt(var + eps) in the shift."""
    slope = values[norm.gain] / (values[norm.var] + norm.eps).sqrt()
    for i in range(len(slope)):
        change: Values = {}
        _add(change, values, norm.mean, torch.tensor([i]), torch.ones(1, dtype=torch.float64))
        _add(change, values, norm.shift, torch.tensor([i]), slope[i : i + 1])
        yield change


def _scaled(values: Values, symmetries: Symmetries) -> Iterator[Values]:
    """p s / s' of each neuron; a running variance v has (v + eps) (s / s')^2."""
    for neuron in range(1, symmetries.neurons + 1):
        change: Values = {}
        for name, scaling in symmetries.scalings.items():
            exponent = scaling.exponent(torch.tensor([neuron])).expand(scaling.shape).flatten()
            value = values[name]
            change[name] = exponent * (value if scaling.eps is None else 2 * (value + scaling.eps))
        yield change


def _add(change: Values, values: Values, name: str, index: Tensor, by: Tensor) -> None:
    """Add to these positions of one coordinate."""
    change.setdefault(name, torch.zeros_like(values[name]))
    change[name].index_put_((index,), by, accumulate=True)
