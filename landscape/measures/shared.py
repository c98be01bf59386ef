"""Work that several measures share: computed once for one Objective, one generator state and one setting."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from landscape import linalg
from landscape.objective import Objective
from landscape.results import Eigenpairs, Estimate
from landscape.spectrum import TOLERANCE, basis_size

T = TypeVar("T")

_memory: WeakKeyDictionary[Objective, dict[tuple[object, ...], tuple[object, Tensor]]] = WeakKeyDictionary()


def once(objective: Objective, generator: torch.Generator, key: tuple[object, ...], compute: Callable[[], T]) -> T:
    """`compute()`, remembered: the same key and generator state give the same result and leave the same state."""
    known = _memory.setdefault(objective, {})
    full = (*key, generator.get_state().numpy().tobytes())
    if full not in known:
        known[full] = (compute(), generator.get_state())
    result, state = known[full]
    generator.set_state(state)
    return result  # type: ignore[return-value]  # stored under this very key


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """The caller's generator, or a fresh one with seed 0."""
    return generator if generator is not None else torch.Generator().manual_seed(0)


def extremes(objective: Objective, generator: torch.Generator, weight: Tensor | None = None) -> Eigenpairs:
    """Largest and smallest eigenpair of H, or of diag(w) H diag(w), from one Lanczos run."""
    return once(
        objective,
        generator,
        ("extremes", weight is not None),
        lambda: linalg.eigenpairs(
            operator(objective, weight),
            objective.dim,
            k=1,
            which="both",
            tol=TOLERANCE[objective.dtype],
            basis_size=basis_size(objective.dim, 2),
            generator=generator,
            dtype=objective.dtype,
            device=objective.device,
        ),
    )


def operator(objective: Objective, weight: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """v -> H v, or v -> w * H (w * v)."""
    if weight is None:
        return objective.hvp
    return lambda v: weight * objective.hvp(weight * v)


def with_data_error(objective: Objective, estimate: Estimate, directions: list[Tensor]) -> Estimate:
    """Attach the error from the finite sample to an estimate of the mean over directions of v^T H v.

    To first order an eigenvalue moves by v^T (dH) v, so that its sampling error is that of the mean of v^T H_n v. For a
    trace the directions are a few random probes; their own noise makes the error a little too large on average.
    """
    parts = [objective.sample_curvatures(v) for v in directions]
    known = [p for p in parts if p is not None]
    if len(known) < len(parts):
        return estimate
    return replace(estimate, data_stderr=objective.standard_error(torch.stack(known).mean(0)))
