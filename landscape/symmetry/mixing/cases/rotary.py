"""Rotary embeddings: x cos + rotate(x) sin, written with two products and a sum."""

from typing import Any

import numpy as np
import torch

from landscape.symmetry.mixing.cases.fixed_values import value_of
from landscape.symmetry.mixing.steps import Step
from landscape.symmetry.mixing.tracked import Tracked, channel, vector


def rotary(step: Step, a: Tracked, b: Tracked) -> Any:
    """x cos + rotate(x) sin: each channel is turned with its partner, by an angle that depends on the position."""
    x, y = (v.codes.expand(step.shape) for v in (a, b))
    pairs = np.unique(np.stack([channel(x).reshape(-1), channel(y).reshape(-1)], 1), axis=0)
    if (pairs < 0).any():
        return step.unread()
    own, other = ([step.store.same.get(c, c) for c in side] for side in pairs.T.tolist())
    partner = dict(zip(own, other, strict=True))
    # p cos - q sin and q cos + p sin: what is added must have opposite signs.
    factor = {p: step.store.factor.get(c, 1.0) for p, c in zip(own, pairs[:, 1].tolist(), strict=True)}
    turns = all(partner.get(q) == p != q and factor[p] == -factor[q] for p, q in partner.items()) and _alike(
        step, a, b, partner
    )
    if len(partner) < len(own) or not turns:
        step.store.doubt(pairs.reshape(-1), f"{step.place} joins channels times fixed numbers")
        return step.nothing()
    step.store.partner.update(partner)
    step.store.apart(np.array([*own, *pairs[:, 0]]))  # from channels that are not turned
    step.store.turned.update(c for c in pairs[:, 1].tolist() if c in step.store.same)
    step.store.fixed.update([*own, *pairs[:, 0].tolist()])
    return Tracked(x, True)


def _alike(step: Step, a: Tracked, b: Tracked, partner: dict[int, int]) -> bool:
    """Whether a channel and its partner are multiplied by the same cosine, and by the same sine, at every position."""
    codes = a.codes.expand(step.shape)
    kinds, which = np.unique(channel(codes).reshape(-1), return_inverse=True)
    own = [step.store.same.get(c, c) for c in kinds.tolist()]
    least = np.array([min(c, partner[c]) for c in own])
    order = np.lexsort((least[which.reshape(-1)], vector(codes).reshape(-1)))
    for value in (a, b):
        number = None if value.mark is None else value_of(value.mark.by, step.store.made, step.store.tensors)
        if number is None or len(order) % 2:
            return False
        both = number.double().expand(step.shape).reshape(-1)[torch.from_numpy(order)].view(-1, 2)
        if not torch.allclose(both[:, 0], both[:, 1], rtol=1e-4, atol=1e-6):
            return False
    return True
