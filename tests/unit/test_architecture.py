"""Which part of oqtod may import which: the design as a table, and the pictures in docs/architecture.md."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
DOCUMENT = CHECKOUT / "docs/architecture.md"

ROOMS = {
    "oqtod": "version",
    "oqtod.clock": "clock",
    "oqtod.errors": "errors",
    "oqtod.config": "config",
    "oqtod.commands": "commands",
    "oqtod.admin": "admin",
    "oqtod.api": "api",
    "oqtod.gateway": "gateway",
    "oqtod.accounts": "accounts",
    "oqtod.sessions": "sessions",
    "oqtod.sessions.model": "session model",
    "oqtod.sessions.ports": "session model",
    "oqtod.placements": "placements",
    "oqtod.integrations": "integrations",
    "oqtod.store": "store",
    "oqtod.telemetry": "telemetry",
    "oqtod.supervisor": "supervisor",
    "oqtod.supervisor.messages": "broker calls",
    "runner": "runner",
    "runner.protocol": "protocol",
    "runner.logs": "journal",
    "runner.cgroups": "processes",
    "runner.listeners": "processes",
    "runner.processes": "processes",
    "runner.programs": "processes",
    "runner.usage": "processes",
    "runner.websocket": "websocket",
    "runner.websocket_stream": "websocket",
    "runner.sandbox": "sandbox",
    "runner.files": "oqto-files",
    "runner.terminal": "oqto-ttyd",
    "runner.browser": "oqto-browserd",
}
"""What a room is: modules by the longest name that fits."""

ANYWHERE = {"version", "clock", "errors", "config"}
"""Rooms that all of oqtod/ may import; they import nothing but each other."""

PERMITTED = {
    "commands": {
        *(
            "api",
            "gateway",
            "accounts",
            "sessions",
            "placements",
            "store",
            "telemetry",
            "supervisor",
        ),
        *("integrations", "session model", "broker calls", "sandbox", "protocol"),
    },
    "admin": {
        *("accounts", "commands", "telemetry", "supervisor", "broker calls", "session model", "sandbox"),
        "processes",
    },
    "api": {
        *("accounts", "sessions", "session model", "integrations", "store", "telemetry", "broker calls"),
        *("protocol", "oqto-ttyd"),
    },
    "gateway": {"accounts", "sessions", "session model", "store", "telemetry", "protocol"},
    "sessions": {
        *("accounts", "placements", "session model", "integrations", "store", "telemetry", "protocol"),
    },
    "integrations": {"accounts", "session model", "store", "telemetry"},
    "accounts": {"store", "telemetry"},
    "placements": {"broker calls", "session model", "telemetry", "protocol", "processes"},
    "session model": set(),
    "store": set(),
    "telemetry": {"journal"},
    "supervisor": {"broker calls", "telemetry", "protocol"},
    "broker calls": {"protocol"},
    # The per-user side: nothing of oqtod/, and little of each other, since it starts for everybody's session.
    "runner": {"protocol", "journal", "processes", "sandbox"},
    "sandbox": {"processes", "protocol"},
    "processes": {"protocol"},
    "oqto-files": {"journal", "websocket"},
    "oqto-ttyd": {"journal", "websocket"},
    "oqto-browserd": {"journal", "websocket"},
    "websocket": set(),
    "protocol": set(),
    "journal": set(),
}
"""What each room may import, beside itself and what may be imported anywhere."""

SLOW_TO_IMPORT = {
    "asyncio",
    "click",
    "rich",
    "httpx",
    "starlette",
    "anyio",
    "jeepney",
    "cryptography",
    "psutil",
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


def modules() -> list[Path]:
    return sorted(x for top in ("oqtod", "runner") for x in (CHECKOUT / top).rglob("*.py"))


def room(name: str) -> str:
    """The room of a module, or of a name in one."""
    while name not in ROOMS:
        name = name.rpartition(".")[0]
    return ROOMS[name]


@cache
def imports(path: Path) -> frozenset[str]:
    """The dotted names that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # A level of 1 is the folder that the file is in.
            folder = path.relative_to(CHECKOUT).parts[: -node.level] if node.level else ()
            origin = ".".join([*folder, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return frozenset(found)


def crossings() -> Iterator[tuple[str, str, str]]:
    """Each import from one room into another: the module, its room, the other room."""
    for path in modules():
        own = room(module_name(path))
        for name in imports(path):
            if name.partition(".")[0] in ("oqtod", "runner") and room(name) != own:
                yield module_name(path), own, room(name)


def arrows() -> set[tuple[str, str]]:
    """The arrows of the diagrams in the document."""
    found = set()
    for diagram in re.findall(r"^```mermaid\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE):
        named = dict(re.findall(r'(\w+)\["?([^\]"<]+)', diagram))
        for start, ends in re.findall(r"^\s*(\w+)(?:\[[^\]]*\])? --> (.+)$", diagram, re.MULTILINE):
            for end in re.findall(r"(\w+)(?:\[[^\]]*\])?", ends):
                if end in named:
                    found.add((named[start], named[end]))
    return found


def reachable(start: str, edges: set[tuple[str, str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        here = waiting.pop()
        further = {b for a, b in edges if a == here} - found
        found |= further
        waiting += further
    return found


def test_every_import_is_permitted() -> None:
    wrong = [
        f"{module} imports of {other}, which {own} may not"
        for module, own, other in crossings()
        if not (other in PERMITTED.get(own, ()) or (other in ANYWHERE and own not in runner_rooms()))
    ]
    assert not wrong, "\n".join(wrong)


def runner_rooms() -> set[str]:
    return {name for module, name in ROOMS.items() if module.partition(".")[0] == "runner"}


def test_the_table_says_what_the_design_says() -> None:
    for own, others in PERMITTED.items():
        assert not others & {"api", "gateway"} or own == "commands"
        if own in runner_rooms():
            assert others <= runner_rooms(), f"{own} of runner/ may import nothing of oqtod/"
    assert not any(own in PERMITTED for own in ANYWHERE)


def test_rooms_do_not_go_round_in_circles() -> None:
    edges = {(own, other) for own, others in PERMITTED.items() for other in others}
    assert [own for own in PERMITTED if own in reachable(own, edges)] == []


def test_the_diagram_is_true() -> None:
    """Every arrow is an import, and every import follows from the arrows."""
    real = {(own, other) for _, own, other in crossings() if other not in ANYWHERE}
    drawn = arrows()
    assert drawn - real == set(), "arrows that are no import"
    assert [(a, b) for a, b in sorted(real) if b not in reachable(a, drawn)] == [], (
        "imports that are not drawn"
    )


def test_every_folder_is_told_of() -> None:
    text = DOCUMENT.read_text()
    folders = {path.parent.relative_to(CHECKOUT) for path in modules()}
    assert [str(folder) for folder in folders if f"`{folder}/`" not in text] == []


@pytest.mark.parametrize("path", [x for x in modules() if "runner" in x.parts], ids=module_name)
def test_the_runners_side_starts_quickly(path: Path) -> None:
    assert {name.partition(".")[0] for name in imports(path)} & SLOW_TO_IMPORT == set()


def test_only_what_is_declared_is_imported() -> None:
    declared = (CHECKOUT / "pyproject.toml").read_text()
    called = {"jwt": "pyjwt", "systemd": "systemd-python", "PIL": "pillow"}
    called |= {"prometheus_client": "prometheus-client"}
    foreign = {name.partition(".")[0] for path in modules() for name in imports(path)}
    foreign -= {*sys.stdlib_module_names, "oqtod", "runner"}
    assert [name for name in foreign if f'"{called.get(name, name)}>=' not in declared] == []
