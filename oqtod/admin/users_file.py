"""Many users at once, from a CSV file: read, made a few at a time, reported row by row."""

from __future__ import annotations

import csv
import os
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import click

from oqtod.admin import names, output
from oqtod.admin.caller import Caller
from oqtod.admin.client import Refused, Trouble
from oqtod.commands.exits import FAILED

_COLUMNS = ("username", "email", "password", "display_name", "role")

_AT_ONCE = 4
"""Users that are made at the same time: each costs the gateway a password hash, the supervisor a useradd."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the file; `line` counts from 1, the heading being the first."""

    line: int
    fields: dict[str, str]

    @property
    def username(self) -> str:
        """The user's name."""
        return self.fields.get("username", "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a row: `user` as the API shows it, or the `trouble`."""

    row: Row
    user: dict[str, Any] | None = None
    is_new: bool = True
    trouble: Trouble | None = None

    @property
    def text(self) -> str:
        """A line for people."""
        if self.trouble is not None:
            hint = f" ({self.trouble.hint})" if self.trouble.hint else ""
            return f"line {self.row.line}: {self.row.username or '-'}: failed: {self.trouble}{hint}"
        account = (self.user or {}).get("linux_user")
        done = "made" if self.is_new else "is there already"
        return f"line {self.row.line}: {self.row.username}: {done}{f', account {account}' if account else ''}"


def read(file: IO[str]) -> list[Row]:
    """Return the rows of a file. Raises UsageError for one that is no such file; nothing is made then."""
    reader = csv.reader(file, strict=True)
    rows = []
    try:
        heading = [name.strip().lower() for name in next(reader, [])]
        unknown = [name for name in heading if name not in _COLUMNS]
        if "username" not in heading or unknown or len(set(heading)) < len(heading):
            about = f"; {', '.join(map(repr, unknown))} is none of them" if unknown else ""
            raise click.UsageError(
                f"the first line must name the columns: username, and any of {', '.join(_COLUMNS[1:])}{about}"
            )
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(heading):
                raise click.UsageError(f"line {reader.line_num} has more cells than there are columns")
            named = dict(zip(heading, cells, strict=False))
            # A password is taken as it is, everything else without the blanks around it.
            fields = {name: text if name == "password" else text.strip() for name, text in named.items()}
            rows.append(Row(reader.line_num, {name: text for name, text in fields.items() if text}))
    except (csv.Error, UnicodeDecodeError) as error:
        raise click.UsageError(f"the file is no CSV in UTF-8, at line {reader.line_num}: {error}") from error
    return rows


def create(caller: Caller, file: IO[str], *, provision: bool, skip_existing: bool) -> int:
    """Make the users of a file; return the exit code. Raises what ends a run: Unreachable, NotPermitted."""
    rows = read(file)
    if "password" in {name for row in rows for name in row.fields} and _is_open_to_all(file):
        output.warn(f"Warning: {file.name} has passwords in it, and everybody on this host can read it")
    existing = {x["username"].lower(): x for x in caller.daemon.ask("GET", names.path("users"))}

    def make(row: Row) -> Outcome:
        try:
            found = existing.get(row.username.lower())
            if found is None or not skip_existing:
                asked = {"role": "user", **row.fields, "username": row.username, "provision": provision}
                return Outcome(row, caller.daemon.ask("POST", names.path("users"), asked))
            if provision:
                found = caller.daemon.ask("POST", names.path("users", found["id"], "provision"))
            return Outcome(row, found, is_new=False)
        except Refused as refused:
            return Outcome(row, trouble=refused)

    outcomes: list[Outcome] = []
    try:
        with _progress(len(rows), quiet=caller.as_json) as report:
            for outcome in _few_at_a_time(make, rows):
                outcomes.append(outcome)
                report(outcome)
    finally:
        _sum_up(caller, outcomes, total=len(rows))
    return FAILED if any(outcome.trouble for outcome in outcomes) else 0


def _few_at_a_time(make: Callable[[Row], Outcome], rows: list[Row]) -> Iterator[Outcome]:
    """Make them, and yield what came of it in the order of the rows. What isn't begun is left at an error."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        yield from pool.map(make, rows)
    finally:
        pool.shutdown(cancel_futures=True)


def _sum_up(caller: Caller, outcomes: list[Outcome], *, total: int) -> None:
    failed = [x for x in outcomes if x.trouble is not None]
    made = [x.user for x in outcomes if x.trouble is None and x.is_new]
    existing = [x.user for x in outcomes if x.trouble is None and not x.is_new]
    if caller.as_json:
        told = [
            {"line": x.row.line, "username": x.row.username, **x.trouble.body} for x in failed if x.trouble
        ]
        output.document({"created": made, "existing": existing, "failed": told})
        return
    left = total - len(outcomes)
    parts = [f"{len(made)} made"]
    parts += [f"{len(existing)} there already"] if existing else []
    parts += [f"{len(failed)} failed"] if failed else []
    parts += [f"{left} not tried, or nobody knows"] if left else []
    output.say(", ".join(parts))


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[Outcome], None]]:
    """Give something that reports an outcome: a bar and the failures on a terminal, else a line for each."""
    if quiet:
        yield lambda outcome: None
        return
    if not sys.stdout.isatty():
        yield lambda outcome: output.say(outcome.text)
        return
    from rich.console import Console  # slow, and only people need it
    from rich.progress import Progress
    from rich.text import Text

    with Progress(console=Console(), transient=True) as progress:
        task = progress.add_task("making users", total=total)

        def report(outcome: Outcome) -> None:
            if outcome.trouble is not None:
                progress.console.print(Text(output.printable(outcome.text), style="red"))
            progress.advance(task)

        yield report


def _is_open_to_all(file: IO[str]) -> bool:
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o004)
