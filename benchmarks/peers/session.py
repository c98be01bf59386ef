"""What an adapter offers. A tool that cannot do a thing has no such method, and the table says so."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers.plan import Plan


@dataclass
class Pairs:
    """Eigenpairs that a tool found: values (k,), vectors (k, P), its products, and how it was run."""

    values: Float[np.ndarray, " k"]
    vectors: Float[Tensor, "k P"]
    products: int
    note: str = ""


@dataclass
class Trace:
    """A trace: the value, half the width of its 95 % interval where the tool gives one, its products, and how it was run."""

    value: float
    half_width: float | None
    products: int
    note: str = ""


@dataclass
class Density:
    """A density: its integral, the largest eigenvalue it shows where it shows one, its products, and how it was run."""

    integral: float
    largest: float | None
    products: int
    note: str = ""


class Session(ABC):
    """One tool on one case.

    Attributes:
        keeps: whether a second product is cheaper than the first.
        batched: whether several products at once are cheaper than one after another.
    """

    keeps: ClassVar[bool] = False
    batched: ClassVar[bool] = False

    def __init__(self, case: Case) -> None:
        self.case = case

    def ready(self, plan: Plan | None = None) -> None:
        """What is done once and charged to nobody: whoever compiles does it here, for products or for the trace of a plan."""
        return

    @abstractmethod
    def alone(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """H v from nothing but network and data."""

    def more(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """H v after another one: as in the middle of an eigensolver."""
        return self.alone(v)

    def many(self, v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """H v for k vectors in the way that the tool has for it."""
        return torch.stack([self.more(row) for row in v])


def in_best_format(kind: type[Session], case: Case) -> tuple[Session, str]:
    """The tool on the case in the memory format that suits it better, by a short trial; and which."""
    if not case.images:
        return kind(case.laid_out(channels_last=False)), ""
    trial, times = case.first(16), {}
    g = torch.Generator().manual_seed(0)
    v = torch.randn(case.weights, generator=g)
    for last in (True, False):
        session: Any = kind(trial.laid_out(last))
        session.alone(v)
        each = []
        for _ in range(3):
            started = time.perf_counter()
            session.more(v)
            each.append(time.perf_counter() - started)
        times[last] = min(each)
    best = min(times, key=lambda last: times[last])
    return kind(case.laid_out(best)), "channels_last" if best else "channels_first"
