"""Telling what was found: for people, worst first; for scripts, as JSON."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from oqtod.admin.doctor.examination import Told
from oqtod.admin.doctor.finding import Severity
from oqtod.admin.output import printable

_LOOKS: dict[Severity, tuple[str, str]] = {
    "problem": ("PROBLEM", "red"),
    "warning": ("warning", "yellow"),
    "note": ("note", "cyan"),
    "ok": ("ok", "green"),
}
_NARROWEST, _WIDEST = 60, 120
_INDENT = " " * 9


def document(told: Iterable[Told], fixed: Iterable[Told]) -> list[dict[str, Any]]:
    """Return what is printed as JSON: what is left, and what was repaired."""
    return [
        {
            "check": one.check,
            "severity": one.finding.severity,
            "subject": one.finding.subject,
            "found": one.finding.found,
            "matters": one.finding.matters,
            "advice": one.finding.advice,
            "fixable": one.finding.repair is not None,
            "fixed": is_fixed,
        }
        for group, is_fixed in ((told, False), (fixed, True))
        for one in group
    ]


def lines(told: Sequence[Told], fixed: Sequence[Told], *, tried: bool) -> Iterator[str]:
    """Return the report for people, a line each."""
    for severity in ("problem", "warning", "note"):
        for one in told:
            if one.finding.severity == severity:
                yield from _one(one, tried=tried)
                yield ""
    for one in fixed:
        yield _headed("fixed", "green", f"{one.finding.subject}: {one.finding.found}")
    good = [one.check for one in told if one.finding.severity == "ok"]
    if good:
        yield _headed("ok", "green", ", ".join(good))
    yield _summary(told, tried=tried)


def _one(one: Told, *, tried: bool) -> Iterator[str]:
    finding = one.finding
    word, colour = _LOOKS[finding.severity]
    yield _headed(word, colour, f"{finding.subject}: {finding.found}  [{one.check}]")
    if finding.matters:
        yield from _wrapped("why: ", finding.matters)
    if finding.advice:
        # Not wrapped: it is there to be copied.
        yield f"{_INDENT}do:  {printable(finding.advice)}"
    if finding.repair is not None and not tried:
        yield f"{_INDENT}     (oqtoctl doctor --fix does it)"


def _headed(word: str, colour: str, text: str) -> str:
    first, *rest = _fold(text, len(_INDENT)) or [""]
    head = click.style(word.ljust(len(_INDENT) - 1), fg=colour, bold=True)
    return "\n".join([f"{head} {first}", *(f"{_INDENT}{line}" for line in rest)])


def _wrapped(head: str, text: str) -> Iterator[str]:
    for number, line in enumerate(_fold(text, len(_INDENT) + len(head))):
        yield f"{_INDENT}{head if number == 0 else ' ' * len(head)}{line}"


def _fold(text: str, indent: int) -> list[str]:
    width = max(_NARROWEST, min(shutil.get_terminal_size((100, 24)).columns, _WIDEST))
    return textwrap.wrap(printable(text), width - indent, break_long_words=False, break_on_hyphens=False)


def _summary(told: Sequence[Told], *, tried: bool) -> str:
    counts: dict[str, int] = {word: sum(one.finding.severity == word for one in told) for word in _LOOKS}
    parts = [
        f"{counts[word]} {name}{'' if counts[word] == 1 else 's'}"
        for word, name in (("problem", "problem"), ("warning", "warning"), ("note", "note"))
        if counts[word]
    ]
    fixable = sum(one.finding.repair is not None for one in told)
    offer = f"; oqtoctl doctor --fix can repair {fixable}" if fixable and not tried else ""
    return f"\n{', '.join(parts) if parts else 'Nothing is wrong'}{offer}."
