"""One network moved along several families of symmetries: which measures survive which."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from landscape.errors import UsageError
from landscape.results.certificate import Certificate, CertificateRow, Verdict
from landscape.results.drawing import plotted
from landscape.results.printed import Cells, Printed

WORDS: dict[Verdict, str] = {
    "invariant": "ok",
    "moved": "moved",
    "within doubt": "doubt",
    "unmoved here": "unmoved",
    "CLAIM BROKEN": "BROKEN",
    "not comparable": "",
    "not defined": "",
}


_TOGETHER = "together"  # the column of a network moved along several families


@dataclass(frozen=True)
class CertificateTable(Printed):
    """Certificates of one network, one for each family of symmetries that it was moved along. Prints as a table.

    Attributes:
        columns: family -> Certificate; all have the same measures.

    Raises:
        UsageError: no certificate, or certificates of different measures.
    """

    columns: dict[str, Certificate]

    def __post_init__(self) -> None:
        measured = {tuple(row.name for row in certificate.rows) for certificate in self.columns.values()}
        if len(measured) != 1:
            found = "none" if not self.columns else "certificates of different measures"
            raise UsageError(f"expected certificates of the same measures, found {found}")

    @property
    def measures(self) -> tuple[str, ...]:
        """Their names, in the order of the certificates."""
        return tuple(row.name for row in next(iter(self.columns.values())).rows)

    def rows(self, measure: str) -> dict[str, CertificateRow]:
        """Family -> row of this measure."""
        return {
            family: next(row for row in certificate.rows if row.name == measure) for family, certificate in self.columns.items()
        }

    @property
    def survivors(self) -> tuple[str, ...]:
        """The measures that are claimed invariant to every family here, and did not change."""
        return tuple(m for m in self.measures if all(r.verdict == "invariant" for r in self.rows(m).values()))

    @property
    def broken(self) -> list[str]:
        """The measures with a broken claim."""
        return [m for m in self.measures if any(r.verdict == "CLAIM BROKEN" for r in self.rows(m).values())]

    @property
    def ranked(self) -> tuple[str, ...]:
        """The measures in the order of how many families move them: broken claims, survivors, then the others."""

        def rank(measure: str) -> tuple[bool, bool, int]:
            verdicts = [row.verdict for row in self.rows(measure).values()]
            return measure not in self.broken, set(verdicts) <= {"not defined", "not comparable"}, verdicts.count("moved")

        return tuple(sorted(self.measures, key=rank))

    def headline(self) -> str:
        """Which measures survive everything here, in one line."""
        alone = [family for family in self.columns if family != _TOGETHER]
        over = f"all of {', '.join(alone)}" if len(alone) > 1 else (alone or list(self.columns))[0]
        over += ", and all together" if alone and len(alone) < len(self.columns) else ""
        still = {"invariant", "unmoved here"}
        lucky = [
            m for m in self.measures if m not in self.survivors and all(row.verdict in still for row in self.rows(m).values())
        ]
        parts = [f"CLAIM BROKEN: {', '.join(self.broken)}"] if self.broken else []
        parts.append(f"survive {over}, as claimed: {', '.join(self.survivors)}" if self.survivors else f"none survives {over}")
        parts += [f"unmoved here, without a proof: {', '.join(lucky)}"] if lucky else []
        return "; ".join(parts)

    def table(self) -> list[tuple[str, ...]]:
        """Cells, one row per measure: ratio after / before and the verdict, for each family."""
        return [(m, *(cell(row) for row in self.rows(m).values())) for m in self.measures]

    @property
    def head(self) -> tuple[str, ...]:
        """The heads of the table's columns."""
        return ("after / before", *self.columns)

    def function_lines(self) -> list[str]:
        """The comparison of the outputs, one line per family."""
        width = max(map(len, self.columns))
        return [f"{family.ljust(width)}  {certificate.function_line()}" for family, certificate in self.columns.items()]

    def cells(self) -> Cells:
        """Whether the functions are the same, the ratios, and the headline."""
        return Cells(self.head, self.table(), self.function_lines(), (self.headline(),))

    def records(self) -> list[Mapping[str, Any]]:
        """One row per measure and family."""
        return [{"symmetry": family, **row} for family, own in self.columns.items() for row in own.records()]

    def plot(self, ax: Any = None, *, caption: bool = False, **options: Any) -> Any:
        """Draw it as a map, measures against families; see `landscape.results.drawing.plotted`."""
        return plotted(self, ax, caption, **options)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {
            "survivors": list(self.survivors),
            "columns": {family: certificate.to_json() for family, certificate in self.columns.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "CertificateTable":
        """Inverse of `to_json`; other keys are ignored."""
        return cls({family: Certificate.from_json(column) for family, column in data["columns"].items()})


def cell(row: CertificateRow) -> str:
    """The ratio in two digits, and the verdict in a word.

    Example:
        >>> from landscape.results import Estimate
        >>> cell(CertificateRow("trace", Estimate(2.0), Estimate(2.4e6), False, "moved"))
        '1.2e6 moved'
    """
    return f"{ratio_text(row)} {WORDS[row.verdict]}".strip()


def ratio_text(row: CertificateRow) -> str:
    """after / before in two digits; a dash where there is none."""
    if not WORDS[row.verdict] or not math.isfinite(row.ratio):
        return "–"
    close = row.verdict != "invariant" and abs(row.ratio - 1) < 0.05  # two digits would say that nothing changed
    number = f"{row.ratio:.4g}" if close else f"{row.ratio:.2g}"
    mantissa, e, exponent = number.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else number
