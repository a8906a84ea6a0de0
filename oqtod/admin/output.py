"""What commands print: tables and facts for people, JSON for scripts.

On a terminal tables have colours and fit its width. Anywhere else they are aligned text, one row a line,
never cut or wrapped: to be searched and cut apart by other programs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from rich.table import Table

_GAP = "  "
_SIZES = ("B", "K", "M", "G", "T")


def document(value: object) -> None:
    """Print JSON."""
    click.echo(json.dumps(value, indent=2))


def say(text: str) -> None:
    """Tell a person what has been done. Standard output: it is what the command is for."""
    click.echo(printable(text))


def warn(text: str) -> None:
    """Tell a person, or the log of a script, on stderr."""
    click.echo(printable(text), err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str | None = None) -> None:
    """Print a table. Columns whose name begins with `>` are aligned to the right.

    Without rows, people on a terminal are told `empty`; elsewhere there is just the heading.
    """
    cells = [[cell(value) for value in row] for row in rows]
    if not cells and empty is not None and sys.stdout.isatty():
        click.echo(empty)
    elif sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from rich.console import Console  # slow, and only people need it

        Console(highlight=False).print(rich_table(columns, cells))
    else:
        click.echo(aligned(columns, cells))


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text: a heading in capitals, and a line for each row."""
    heading = [column.lstrip(">").upper() for column in columns]
    lines = [heading, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        _GAP.join(
            text.rjust(width) if column.startswith(">") else text.ljust(width)
            for column, text, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print what is known of one thing, a line each."""
    shown = [(name, cell(value)) for name, value in pairs]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        click.echo(f"{click.style(name.ljust(width), bold=True)}{_GAP}{value}")


def cell(value: object) -> str:
    """Return a value as it stands in a table: `-` for nothing, so that every row has all columns."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(cell, value)) or "-"
    return printable(str(value))


def printable(text: str) -> str:
    """Return text that can't steer a terminal or break a line: people choose names, programs write logs."""
    return "".join(x if x.isprintable() else x.encode("unicode_escape").decode() for x in text)


def moment(text: str | None) -> str | None:
    """Return a time of the API as people read it: local, to the second."""
    if text is None:
        return None
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(count: float) -> str:
    """Return a number of bytes as people read it: 1.5G."""
    for unit in _SIZES:
        if count < 1024 or unit == _SIZES[-1]:
            break
        count /= 1024
    return f"{count:.0f}{unit}" if unit == "B" or count >= 10 else f"{count:.1f}{unit}"


def rich_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table for a terminal."""
    from rich.table import Table  # slow, and only people need it
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        shown.add_column(column.lstrip(">"), justify=justify, overflow="fold")
    for row in rows:
        cells = [cell(value) for value in row]
        shown.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in cells))
    return shown


_STYLES = {
    "running": "green",
    "active": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "pending": "yellow",
    "failed": "red",
}
