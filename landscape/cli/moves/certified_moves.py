"""Move a network along families of symmetries, measure it before and at every point, and print the certificates."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from landscape.cli.moves.asked_families import SWEPT, TOGETHER, WITH_ALPHA, Asked
from landscape.cli.terminal import Terminal

if TYPE_CHECKING:
    from torch import nn

    from landscape.objective import Objective
    from landscape.reparam import Attack, Symmetries
    from landscape.results import Certificate, CertificateTable
    from landscape.symmetry.families import Family
    from landscape.tasks import Task


@dataclass
class Line:
    """Moves along one family, or along several together: at alpha, then at the other values of a sweep.

    Attributes:
        name: of the family, or "together".
        families: what it is moved along.
        alphas: the factors, the first one asked for.
        condition: condition number of the matrices.
        other: the network at the first factor; given beforehand where a search found it.
        attack: that search.
        certificates: one for each factor.
    """

    name: str
    families: "tuple[Family, ...]"
    alphas: list[float]
    condition: float
    other: "nn.Module | None" = None
    attack: "Attack | None" = None
    certificates: "list[Certificate]" = field(default_factory=list)

    @property
    def settings(self) -> str:
        """What made the change as large as it is, as text."""
        said = [f"alpha = {self.alphas[0]:.6g}"] if set(self.families) & set(WITH_ALPHA) else []
        said += [f"condition number {self.condition:.4g}"] if "pair" in self.families else []
        return ", ".join(said)

    def title(self, where: dict[str, str]) -> str:
        """The head of its table."""
        words = {"layer": f"layer-wise, {where['layer']}", "node": f"node-wise, {where['node']}"}
        several = f", {'together' if self.attack else 'one after another'}" if len(self.families) > 1 else ""
        words[TOGETHER] = ", ".join(self.families) + several
        return ", ".join(part for part in (words.get(self.name, self.name), self.settings) if part)

    def json(self, i: int) -> dict[str, Any]:
        """The section of this line in the JSON."""
        own: dict[str, Any] = {"rescaling": self.name, "alpha": self.alphas[i]}
        own |= {"condition": self.condition} if "pair" in self.families else {}
        own |= {"attack": self.attack.to_json()} if self.attack is not None else {}
        return own | self.certificates[i].to_json()


def lines_of(asked: Asked, there: "tuple[Family, ...]", factor: float, condition: float) -> list[Line]:
    """One line for each family, and one along all together where every family was asked for."""
    families = asked.among(there)
    lines = [Line(family, (family,), [factor], condition) for family in families]
    if asked.every and len(families) > 1:
        lines.append(Line(TOGETHER, families, [factor], condition))
    return lines


def close_enough(
    terminal: Terminal, task: "Task", objective: "Objective", symmetries: "Symmetries", asked: Asked, seed: int
) -> "tuple[Family, ...]":
    """The families that the network has, without norm-in where an eps makes it change the outputs too much at this alpha.

    Asked for by name it stays, and is refused.
    """
    from landscape.errors import NumericalError

    there = symmetries.families
    if asked.families or asked.attack is not None or symmetries.nearly is None or "norm-in" not in asked.among(there):
        return there
    alone = Line("norm-in", ("norm-in",), [asked.factor], asked.ratio)
    joint = [line for line in lines_of(asked, there, asked.factor, asked.ratio) if line.name == TOGETHER]
    try:
        for line in (alone, *joint):  # what another family does to a small eps shows only together
            line.other = _moved(task, objective, symmetries, line, asked.factor, None, seed)
            _check_near(objective, symmetries, line)
    except NumericalError as error:
        left = tuple(family for family in there if family != "norm-in")
        if not left:
            raise
        terminal.note(f"norm-in is left out: {error}")
        return left
    return there


def _check_near(objective: "Objective", symmetries: "Symmetries", line: Line) -> None:
    """Refuse a move along norm-in that changes the outputs of some sample by more than an eps may."""
    from landscape.reparam.certify import change_of_outputs, moved_objective
    from landscape.reparam.moving.same_function import NEARLY, too_far

    if "norm-in" not in line.families or symmetries.nearly is None:
        return
    assert line.other is not None  # made before
    change = change_of_outputs(objective, moved_objective(objective, line.other), line.families)
    if not change <= NEARLY:
        matrices = "a smaller condition number or " if "pair" in line.families else ""
        raise too_far(change, ", ".join(line.families), f"use {matrices}an alpha closer to 1")


def sweep_of(
    terminal: Terminal, task: "Task", symmetries: "Symmetries", line: Line, further: int, layers: list[str] | None
) -> None:
    """Add the other factors of a sweep, without those too small for a BatchNorm's running variance to absorb."""
    from landscape.reparam import smallest_scales, spaced

    if line.name not in SWEPT:
        return
    low = 0.0
    if line.name == "layer":
        units = [symmetries[name] for name in layers] if layers else [symmetries.default]
        low = max(float(smallest_scales(task.model, symmetries)[unit.neurons].max()) for unit in units)
    found = spaced(line.alphas[0], further)
    kept = [alpha for alpha in found if alpha > low]
    if len(kept) < len(found):
        terminal.note(f"left out of the layer-wise sweep: alpha below {low:.3g}, too small for BatchNorm's running variance")
    line.alphas += kept


def certify(
    terminal: Terminal,
    task: "Task",
    objective: "Objective",
    symmetries: "Symmetries",
    lines: Sequence[Line],
    layers: list[str] | None,
    names: str | list[str] | None,
    seed: int,
) -> None:
    """Measure the network before and at every moved point, and print one table for each line, and one of all."""
    import torch

    from landscape.machine import progress
    from landscape.machine.progress import duration
    from landscape.measures import measure_all
    from landscape.measures.running.remaining_time import UNSURE
    from landscape.measures.running.time_forecast import forecast
    from landscape.reparam import certificate
    from landscape.reparam.certify import moved_objective

    for line in lines:  # what rounding or an eps does not allow is refused before anything is measured
        if line.other is None:
            line.other = _moved(task, objective, symmetries, line, line.alphas[0], layers, seed)
        _check_near(objective, symmetries, line)
    points = sum(len(line.alphas) for line in lines)
    expected = forecast(objective, names)
    whole = expected.total * (points + 1)
    terminal.note(f"forecast: {len(expected.seconds)} measures of {points + 1} networks, about {duration(whole)}")
    with progress.stage("networks", points + 1) as advance:
        advance.left(whole, whole / UNSURE, whole * UNSURE)
        started = time.perf_counter()
        before = measure_all(objective, names, seed=seed, plan=expected)
        each = time.perf_counter() - started
        # The forecast of one network is uncertain; the time of the next ones is much like that of the first.
        advance.left(each * points, each * points / 1.5, each * points * 1.5)
        advance(1)
        for line in lines:
            for i, alpha in enumerate(line.alphas):
                other = line.other if i == 0 else _moved(task, objective, symmetries, line, alpha, layers, seed)
                assert other is not None  # made above
                # Whole layers that are scaled in whole tensors are told from parts of them by the weights.
                claim = None if line.name == "layer" else line.families
                # Half precision is told from the network itself.
                whole = all(p.dtype in (torch.float32, torch.float64) for p in other.parameters())
                there = moved_objective(objective, other) if whole else other
                line.certificates.append(
                    certificate(objective, there, measures=names, symmetry=claim, seed=seed, before=before)
                )
                advance(1)
    where = {"layer": " and ".join(layers or [symmetries.default.name] if symmetries.units else []), "node": "every neuron"}
    _show(terminal, objective, lines, where)


def _moved(
    task: "Task",
    objective: "Objective",
    symmetries: "Symmetries",
    line: Line,
    alpha: float,
    layers: list[str] | None,
    seed: int,
) -> "nn.Module":
    """The network at one point. Every point draws the same numbers: a neuron's factor is alpha to a power that stays."""
    from landscape.cli.setup import seeded
    from landscape.reparam import move, rescale

    if layers:
        return rescale(task.model, alpha, layers=layers, example=objective.example)
    return move(
        task.model,
        symmetries,
        line.families,
        alpha=alpha,
        condition=line.condition,
        example=objective.example,
        generator=seeded(seed),
    )


def _show(terminal: Terminal, objective: "Objective", lines: Sequence[Line], where: dict[str, str]) -> None:
    """Print the tables, what is not comparable and why, and the verdicts."""
    from landscape.measures.running.marks import surviving
    from landscape.results.certificate import HEAD

    reasons: dict[str, str] = {}
    for line in lines:
        result = line.certificates[0]
        terminal.line()
        terminal.line(line.title(where))
        terminal.line(result.function_line())
        if line.name == "layer" and result.symmetry != "layer":
            terminal.line("some tensors are scaled only in part, so the table tests the claims about neuron-wise rescaling")
        terminal.table(HEAD, result.table())
        for further in line.certificates[1:]:
            reasons |= _reasons(further)
        reasons |= _reasons(result)
    terminal.line()
    for name, reason in reasons.items():
        terminal.line(f"{name}: {reason}")
    for line in lines:
        for alpha, result in sorted(zip(line.alphas, line.certificates, strict=True), key=lambda pair: pair[0]):
            at = {"layer": f"layer-wise, {where['layer']}", "node": "node-wise"}.get(line.name, line.name)
            size = f", alpha = {alpha:.6g}" if set(line.families) & set(WITH_ALPHA) else ""
            terminal.line(f"{at}{size}: {result.verdict_line()}")
    table = table_of(lines)
    if set(table.columns) - {"layer", "node"} and len(table.columns) > 1:
        terminal.line()
        terminal.table(table.head, table.table())
        terminal.line(table.headline())
        if not table.survivors:
            others = [name for name in surviving(objective) if name not in table.measures]
            terminal.line(f"proven to survive every symmetry of this network, but not measured: {', '.join(others) or 'none'}")


def table_of(lines: Sequence[Line]) -> "CertificateTable":
    """The certificates at the first factor of every line, as one table."""
    from landscape.results import CertificateTable

    return CertificateTable({line.name: line.certificates[0] for line in lines})


def _reasons(certificate: "Certificate") -> dict[str, str]:
    """The reason why a measure has no value to compare, by its name."""
    out = {}
    for row in certificate.rows:
        if row.verdict in ("not defined", "not comparable"):
            out[row.name] = next((e.reason for e in (row.before, row.after) if e.reason), row.verdict)
    return out
