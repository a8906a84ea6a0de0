"""What the doctor says of one thing: how bad it is, what was found, why it matters, what to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar

from msgspec import Struct

T = TypeVar("T")

Severity = Literal["ok", "note", "warning", "problem"]


class SetOwner(Struct, frozen=True):
    """A repair: give a file, folder or socket of ours the owner and mode that it should have."""

    path: str
    uid: int
    gid: int
    mode: int

    def __str__(self) -> str:
        return f"chown {self.uid}:{self.gid} {self.path}; chmod {self.mode:04o} {self.path}"


class Run(Struct, frozen=True):
    """A repair: run a program, which is one of `oqtod.admin.doctor.repairs.ORDER`."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.argv)


Repair = SetOwner | Run


class Finding(Struct, frozen=True):
    """One finding. `repair` is there where `--fix` can do what `advice` says."""

    severity: Severity
    subject: str
    found: str
    matters: str = ""
    advice: str = ""
    repair: Repair | None = None
    holds: bool = False
    """Whether nothing may be started or restarted while this lasts: something would be lost."""


def problem(subject: str, found: str, matters: str, advice: str, repair: Repair | None = None) -> Finding:
    """Something doesn't work, or isn't safe."""
    return Finding("problem", subject, found, matters, advice, repair)


def warning(subject: str, found: str, matters: str, advice: str, repair: Repair | None = None) -> Finding:
    """Something works less well than it should, or will stop working."""
    return Finding("warning", subject, found, matters, advice, repair)


def note(subject: str, found: str, matters: str, advice: str, repair: Repair | None = None) -> Finding:
    """Something that an administrator may want to know."""
    return Finding("note", subject, found, matters, advice, repair)


def not_looked_at(subject: str, error: BaseException) -> Finding:
    """Something could not be looked at: a note where only root may, else a problem of its own."""
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return note(
            subject,
            f"not looked at: {_said(error)}",
            "only root may look there, so what is wrong with it is not known",
            "run as root: sudo oqtoctl doctor",
        )
    return problem(
        subject,
        f"could not be looked at: {_said(error)}",
        "what is wrong with it is not known, and what prevented the look may prevent the daemon too",
        "repair what the message names, and run oqtoctl doctor again",
    )


def each(
    subjects: Iterable[T], look: Callable[[T], Iterable[Finding]], name: Callable[[T], str] = str
) -> Iterator[Finding]:
    """Look at each subject; what goes wrong at one is a finding about it, and keeps nobody from the next."""
    for subject in subjects:
        try:
            yield from look(subject)
        except Exception as error:
            yield not_looked_at(name(subject), error)


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f' ({error.filename})' if error.filename else ''}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
