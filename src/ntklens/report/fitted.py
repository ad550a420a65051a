"""Tables that fit the terminal: no number is ever cut.

What is too wide loses decimals first, then breaks its headings, then becomes several tables with the same first
columns, and at last a list of its rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

FRAME = 3  # columns that a cell takes beside its text: a space on both sides, and a line
BREAKS = "._/ "  # behind which a heading may be broken


@dataclass
class Column:
    """A column: its heading, and for each row the ways to write the cell, the widest first.

    Attributes:
      name: the heading.
      cells: for each row a text, or several of falling width.
      key: it names the row, and is repeated in every part of a table that is divided.
      left: it is text, and stands on the left.
    """

    name: str
    cells: Sequence[str | Sequence[str]]
    key: bool = False
    left: bool = False

    def write(self, level: int) -> list[str]:
        """Return the cells in the `level`-th of their ways, or the last there is."""
        return [cell if isinstance(cell, str) else cell[min(level, len(cell) - 1)] for cell in self.cells]

    def count_levels(self) -> int:
        """Return how many ways there are."""
        return max((1 if isinstance(cell, str) else len(cell) for cell in self.cells), default=1)


@dataclass
class FittedTable:
    """Rows of cells; renders as one table, as several below each other, or as a list, whatever the width asks for."""

    title: str
    columns: Sequence[Column]
    caption: str = ""
    level_titles: Sequence[str] = field(default=())  # what to add to the title for each way of writing cells

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield what fits into the width."""
        width = options.max_width
        levels = max((column.count_levels() for column in self.columns), default=1)
        for level in range(levels):
            for broken in (False, True):
                if self._measure(self.columns, level, broken) <= width:
                    yield self._build(self.columns, level, broken)
                    yield from self._end()
                    return
        level = levels - 1
        parts = self._divide(width, level)
        if parts is None:
            yield from self._list_rows(level)
        else:
            for number, part in enumerate(parts):
                yield self._build(part, level, True, first=number == 0)
        yield from self._end()

    def _title(self, level: int) -> str:
        return self.title + (self.level_titles[level] if level < len(self.level_titles) else "")

    def _end(self) -> Iterator[Text]:
        if self.caption:
            yield Text(self.caption, style="dim italic")

    def _measure(self, columns: Sequence[Column], level: int, broken: bool) -> int:
        return 1 + sum(FRAME + _find_width(column, level, broken) for column in columns)

    def _divide(self, width: int, level: int) -> list[list[Column]] | None:
        """Return the columns of each part, the keys first; None if not even one column fits beside the keys."""
        keys = [column for column in self.columns if column.key]
        parts: list[list[Column]] = []
        for column in (column for column in self.columns if not column.key):
            if parts and self._measure([*parts[-1], column], level, True) <= width:
                parts[-1].append(column)
            elif self._measure([*keys, column], level, True) <= width:
                parts.append([*keys, column])
            else:
                return None
        return parts or None

    def _build(self, columns: Sequence[Column], level: int, broken: bool, first: bool = True) -> Table:
        table = Table(title=Text(self._title(level), style="italic") if first else None, title_justify="left")
        for column in columns:
            heading = break_heading(column.name, _find_cells(column, level)) if broken else column.name
            table.add_column(Text(heading), justify="left" if column.left else "right", no_wrap=True)
        for row in zip(*(column.write(level) for column in columns), strict=True):
            table.add_row(*map(Text, row))
        return table

    def _list_rows(self, level: int) -> Iterator[Text]:
        """Yield every cell on a line of its own; what is longer than a line the terminal itself folds."""
        yield Text(self._title(level), style="italic")
        for row in zip(*(column.write(level) for column in self.columns), strict=True):
            for number, (column, cell) in enumerate(zip(self.columns, row, strict=True)):
                if cell:
                    yield Text(f"{'•' if number == 0 else ' '} {column.name}  {cell}", overflow="fold")


def _find_cells(column: Column, level: int) -> int:
    return max(map(cell_len, column.write(level)), default=0)


def _find_width(column: Column, level: int, broken: bool) -> int:
    cells = _find_cells(column, level)
    heading = break_heading(column.name, cells) if broken else column.name
    return max([cells, *map(cell_len, heading.split("\n"))])


def break_heading(name: str, width: int) -> str:
    """Return a heading in lines of a width or, where its parts are longer, of its longest part."""
    parts, part = [], ""
    for letter in name:
        part += letter
        if letter in BREAKS:
            parts.append(part)
            part = ""
    parts += [part] if part else []
    width = max([width, *(cell_len(part.strip()) for part in parts)])
    lines = [""]
    for part in parts:
        if cell_len((lines[-1] + part).rstrip()) <= width:
            lines[-1] += part
        else:
            lines.append(part)
    return "\n".join(line.rstrip() for line in lines)
