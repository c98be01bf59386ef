"""A result that is a table: as text, as HTML in a notebook, and as a pandas DataFrame, from one description of its cells."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from landscape.errors import UsageError

if TYPE_CHECKING:
    import numpy
    import pandas


@dataclass(frozen=True)
class Cells:
    """What a result prints.

    Attributes:
        head: titles of the columns; empty if the result has no table.
        rows: cells under them.
        before, after: lines above and below the table.
    """

    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    before: Sequence[str] = ()
    after: Sequence[str] = ()

    def text(self) -> str:
        """Plain text with aligned columns."""
        table = aligned([tuple(self.head), *map(tuple, self.rows)]) if self.head else []
        return "\n".join((*self.before, *table, *self.after))

    def html(self) -> str:
        """The same as HTML; names from files are escaped."""
        head = "".join(f"<th>{escape(h)}</th>" for h in self.head)
        body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in self.rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if self.head else ""
        return "".join(
            (*(f"<p>{escape(b)}</p>" for b in self.before), table, *(f"<p>{escape(a)}</p>" for a in self.after if a))
        )


class Printed(ABC):
    """Base of the results that print as a table; a subclass gives `cells`, and `records` for the numbers behind them."""

    @abstractmethod
    def cells(self) -> Cells:
        """What is printed."""

    @abstractmethod
    def records(self) -> list[Mapping[str, Any]]:
        """The numbers of the table, one dictionary a row; the rows of `to_dataframe`."""

    def __str__(self) -> str:
        return self.cells().text()

    def _repr_html_(self) -> str:
        return self.cells().html()

    def to_dataframe(self) -> "pandas.DataFrame":
        """The numbers as a pandas DataFrame; needs the optional package pandas.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UsageError(
                "expected pandas for a DataFrame, found it not installed", fix="pip install 'landscape-sharpness[pandas]'"
            ) from None
        return pandas.DataFrame.from_records(self.records())


def rows_of(columns: Mapping[str, "numpy.ndarray"]) -> list[Mapping[str, Any]]:
    """Columns of the same length as one dictionary a row."""
    lists = [column.tolist() for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of plain text with aligned columns.

    Example:
        >>> aligned([("a", "b"), ("longer", "2")])
        ['a       b', 'longer  2']
    """
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
