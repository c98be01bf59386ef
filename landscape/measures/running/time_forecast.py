"""Forecast of the time that measures take."""

import math
import time
from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import dataclass, field

import torch

from landscape.machine.memory import Basis
from landscape.machine.progress import duration
from landscape.measures.registry import Measure, chosen
from landscape.measures.running.remaining_time import UNSURE
from landscape.objective import Objective
from landscape.results import Spent

_SAMPLES = 256
_BLOCK = 4
_SHORT = 60.0  # seconds that fewer samples are to take
_FEWEST = 4  # log2 of the fewest samples that are offered
_TOLD, _SMALL = 6, 0.02  # most measures whose time is told, and the least share of the whole
_MAIN = ("lambda_max", "trace")  # the measures that are offered instead of many
_ACCURACY, _WORTH = 0.05, 0.8  # of traces, which is offered where it takes at most this share of the time


@dataclass(frozen=True)
class Forecast:
    """Forecast of the cost of measures of one network.

    Attributes:
        spent: total passes over the data; shared computations are counted once.
        each: seconds of one pass of each kind, timed on this machine.
        seconds: measure -> seconds; shared computations count for the first measure that needs them.
        passes: measure -> passes over the data, counted likewise.
        kept: number of measures asked for that are kept from an earlier run; they are in none of the above.
    """

    spent: Spent
    each: Spent
    seconds: dict[str, float]
    passes: dict[str, Spent] = field(default_factory=dict)
    kept: int = 0

    def shorter(self, objective: Objective, names: str | Sequence[str] | None = None) -> list[str]:
        """Options of the command line with which the run would take less time, with the time; none if nothing would.

        Passes take time in proportion to the samples, and fewer measures make fewer passes. Traces to an accuracy make few.

        Args:
            objective, names: those of the forecast.
        """
        out, n = [], objective.samples
        asked, other = (_passes(objective, n)[0].seconds(self.each) for n in (names, [_to_accuracy(m) for m in chosen(names)]))
        if other < _WORTH * asked:
            out.append(f"--trace-error {_ACCURACY} would take about {duration(self.total * other / asked)}")
        fewer = 1 << max(int(math.log2(max(n * _SHORT / max(self.total, _SHORT), 1))), _FEWEST)
        if fewer < n:
            out.append(f"--samples {fewer} {'' if out else 'would take '}about {duration(self.total * fewer / n)}")
        spent, _ = _passes(objective, _MAIN)
        if spent.seconds(self.each) < self.total / 2:
            out.append(f"--measures {','.join(_MAIN)} about {duration(spent.seconds(self.each))}")
        return out

    def by_measure(self) -> str:
        """The measures that take most of the time, with theirs: "trace 4 min, keskar 80 s, the others 10 s"."""
        ordered = sorted(self.seconds.items(), key=lambda item: -item[1])
        most = [(name, s) for name, s in ordered[:_TOLD] if s > _SMALL * self.total]
        rest = self.total - sum(s for _, s in most)
        told = [f"{name} {duration(s)}" for name, s in most]
        return ", ".join(told + ([f"the others {duration(rest)}"] if len(most) < len(ordered) else []))

    @property
    def total(self) -> float:
        """Total seconds."""
        return sum(self.seconds.values())

    def __str__(self) -> str:
        s = self.spent
        passes = f"{s.products:.0f} curvature products, {s.gradients:.0f} gradients, {s.forwards:.0f} forward passes"
        likely, low, high = (duration(self.total * factor) for factor in (1, 1 / UNSURE, UNSURE))
        count = len(self.seconds)
        of = f" of {count + self.kept}" if self.kept else ""
        measures = f"{count}{of} measure{'s' * (count + self.kept != 1)}{' to do' if self.kept else ''}"
        return f"{measures}: {passes}; {self.each.gradients:.2g} s/gradient, about {likely} ({low} to {high})"


def forecast(objective: Objective, names: str | Sequence[str] | None = None, kept: Container[str] = ()) -> Forecast:
    """Forecast the passes and the time that measures take.

    Each measure declares its typical passes in the registry. The time of one pass is measured on at most 256 samples and scaled
    to their number. Maximisations and Lanczos runs stop by their own criteria, so the forecast is accurate to a factor of
    about two. During the run, `landscape.measures.running.remaining_time` updates it from measured times.

    Args:
        objective: the network on its data.
        names: as for `landscape.sharpness`.
        kept: names of measures that are kept from an earlier run, so that they take no time.

    Returns:
        Forecast.

    Cost: a forward pass, a gradient and five products on at most 256 samples, twice; nothing where all are kept.
    """
    wanted = [m.name for m in chosen(names)]
    spent, passes = _passes(objective, names, kept)
    each = _timed(objective) if passes else Spent()
    seconds = {name: own.seconds(each) for name, own in passes.items()}
    return Forecast(spent, each, seconds, passes, kept=len(wanted) - len(passes))


def _passes(
    objective: Objective, names: str | Sequence[str] | None, kept: Container[str] = ()
) -> tuple[Spent, dict[str, Spent]]:
    """Passes over the data in all, and of each measure; shared computations count for the first that needs them."""
    known: set[Hashable] = set()
    spent, passes = Spent(), {}
    for m in chosen(names):
        if m.name in kept:
            continue
        own = Spent()
        for key, cost in m.work(objective, m.settings).items():
            if key not in known:
                known.add(key)
                own += cost
        spent += own
        passes[m.name] = own
    return spent, passes


def room(objective: Objective, names: str | Sequence[str] | None = None) -> tuple[list[Basis], int]:
    """The bases that these measures use one after another, Krylov's and a random one, and the number of other vectors."""
    known = chosen(names)
    spaces = [m.settings.get("subspace") or m.settings.get("p") for m in known if m.name.startswith("keskar")]
    wide = max((min(int(p), objective.dim) for p in spaces if p), default=0)
    plan, vectors = objective.plan, vectors_at_work(objective)
    bases = [plan.basis(2, objective.group.size if objective.shard_basis else 1)]
    return bases + ([plan.directions(wide, vectors)] if wide else []), vectors


def vectors_at_work(objective: Objective) -> int:
    """Number of vectors at work beside a basis, in block products and in maximisations."""
    return max(4 * objective.plan.block, 12)


def _to_accuracy(m: Measure) -> str:
    """The measure's name, with the accuracy that is offered if it is a trace by a number of probes."""
    by_probes = m.settings.get("relative_error") == 0 and m.settings.get("exact") is False
    return f"{m.name}:relative_error={_ACCURACY}" if by_probes else m.name


def _timed(objective: Objective) -> Spent:
    """Seconds of one pass of each kind over all samples; the building of the graph is timed apart from a product."""
    objective.preflight()
    few = min(objective.samples, _SAMPLES)
    part, scale = objective.subset(few), objective.samples / few
    rows = torch.ones(_BLOCK, objective.dim, dtype=objective.dtype, device=objective.device)
    forward = _seconds(lambda: part.value().value)
    gradient = _seconds(lambda: part.value_and_gradient()[0])
    one = _seconds(lambda: float(part.hvp(rows[0])[0]))
    block = _seconds(lambda: float(part.hvp(rows)[0, 0]))
    product = max(block - one, 0.0) / (_BLOCK - 1)
    return Spent(scale * forward, scale * gradient, scale * max(one - product, 0.0), scale * product)


def _seconds(work: Callable[[], float]) -> float:
    """The faster of two runs, since the first may include set-up. Reading the float waits for a GPU to finish."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
