"""Tables of figures: as JSON, on the console and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tabulate import tabulate

Cell: TypeAlias = str | float | Sequence[float | None] | None
"""A label; a figure; a figure and its standard error; or nothing."""


@dataclass(frozen=True)
class Table:
    """A table of figures.

    Attributes:
        columns: the title of each
        rows: one cell for each column
        digits: decimal places of each column's figures; None writes a figure as it is stored
        best_in_row: whether the largest figure of a row is shown in bold in Markdown
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    digits: Sequence[int | None]
    best_in_row: bool = False

    @classmethod
    def of(cls, columns: Mapping[str, int | None], rows: Sequence[Sequence[Cell]], best_in_row: bool = False) -> Table:
        """A table whose columns are given as titles with their decimal places."""
        return cls(list(columns), rows, list(columns.values()), best_in_row)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Table:
        """Read what :meth:`to_json` wrote."""
        return cls(**stored)

    def to_json(self) -> dict[str, Any]:
        """The table as JSON's types."""
        return dict(vars(self))

    def select(self, columns: Sequence[str] = (), rows: Sequence[str] = ()) -> Table:
        """Some columns beside the first, and some rows by their first cell; all of them where none are named.

        Raises:
            ValueError: if the table has no such column or row
        """
        for asked, known in ((columns, list(self.columns)), (rows, [row[0] for row in self.rows])):
            if missing := [name for name in asked if name not in known]:
                raise ValueError(f"The table has no {', '.join(missing)}; it has {', '.join(map(str, known))}.")
        places = [0, *map(list(self.columns).index, columns)] if columns else range(len(self.columns))
        by_label = {row[0]: row for row in self.rows}
        chosen = [by_label[label] for label in rows] if rows else self.rows
        return Table(
            [self.columns[place] for place in places],
            [[row[place] for place in places] for row in chosen],
            [self.digits[place] for place in places],
            self.best_in_row,
        )

    def markdown(self) -> str:
        """The table for a document."""
        return self._format("github", bold=self.best_in_row)

    def console(self) -> str:
        """The table for a terminal."""
        return self._format("simple", bold=False)

    def _format(self, style: str, bold: bool) -> str:
        rows = []
        for row in self.rows:
            figures = [figure_of(cell) for cell in row]
            best = max((figure for figure in figures if figure is not None), default=None)
            texts = [cell_text(cell, digits) for cell, digits in zip(row, self.digits)]
            marks = ["**" if bold and figure is not None and figure == best else "" for figure in figures]
            rows.append([f"{mark}{text}{mark}" for text, mark in zip(texts, marks)])
        return tabulate(rows, list(self.columns), tablefmt=style, disable_numparse=True)


def figure_of(cell: Cell) -> float | None:
    """The figure in a cell, without its error; None where there is none."""
    if cell is None or isinstance(cell, str):
        return None
    return cell if isinstance(cell, (int, float)) else cell[0]


def cell_text(cell: Cell, digits: int | None) -> str:
    """A cell as it is shown: "0.998 ± 0.006"; an error that is None is left out."""
    if cell is None or isinstance(cell, str):
        return cell or ""
    parts = [cell] if isinstance(cell, (int, float)) else [part for part in cell if part is not None]
    return " ± ".join(str(part) if digits is None else f"{part:.{digits}f}" for part in parts)


def figure_cell(figures: Mapping[str, float], name: str) -> Cell:
    """A figure with its standard error, which is called ``<name>_se``; None where it was not measured."""
    if name not in figures:
        return None
    error = figures.get(f"{name}_se")
    return figures[name] if error is None else [figures[name], error]
