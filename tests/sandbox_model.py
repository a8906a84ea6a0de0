"""What sandbox files must mean, written down a second time: small, slow, and by predicates instead of mounts.

A path may be read or written when every file in the chain permits it; no list is intersected or united.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Document = Mapping[str, Any]
"""A sandbox.toml, as TOML reads it."""

LEVELS = ["development", "minimal", "strict"]
SECRETS = ["~/.ssh", "~/.aws", "~/.gnupg"]
DEVELOPMENT = ["~/.cargo", "~/.npm", "~/.cache", "/tmp"]

FILES = (
    *(".ssh/id", ".bashrc", ".config/app", ".cache/x", ".cargo/x", "docs/note", "docs/deep/note"),
    *("docs/deep/er/note", "work/file", "work/src/main", "work/secret/key"),
)
"""Files of a home with a workspace `work` and a link `shortcut` to `docs`; more are the sandbox files."""

LINK = ("shortcut", "docs")

PATHS = (
    *(
        "~",
        "~/",
        "$HOME/docs",
        "~/docs/deep",
        "~/docs//deep/./er",
        "~/shortcut",
        "~/shortcut/deep",
        "~/.cache",
    ),
    *(
        "~/.cargo",
        "~/.config",
        "~/.bashrc",
        "~/later",
        "~/work",
        "~/work/src",
        "~/work/src/main",
        "~/work/secret",
    ),
    *("~/work/later", "~/work/.oqto", "/", "/etc", "/tmp", "/usr/share", "/nowhere"),
)
RELATIVE = (".", "src", "src/", "secret/key", "later/on", ".oqto")

_paths = st.sampled_from(PATHS)
_bits = st.booleans()
NAMES = [*LEVELS, "team"]


def _keys(paths: st.SearchStrategy[str]) -> dict[str, st.SearchStrategy[Any]]:
    some = st.lists(paths, max_size=3)
    return {
        "deny_read": some,
        "deny_write": some,
        "allow_write": some,
        "isolate_network": _bits,
        "isolate_pid": _bits,
    }


def _tables(paths: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Document]]:
    own = st.fixed_dictionaries({}, optional={"extends": st.sampled_from(LEVELS), **_keys(paths)})
    built_in = st.fixed_dictionaries({}, optional=_keys(paths))
    return st.fixed_dictionaries({}, optional={"team": own, "minimal": built_in, "development": built_in})


def documents(*, relative: bool) -> st.SearchStrategy[Document]:
    """Sandbox files: all keys, tables too. In a workspace's, paths may be relative."""
    paths = st.one_of(_paths, st.sampled_from(RELATIVE)) if relative else _paths
    return st.fixed_dictionaries(
        {},
        optional={
            "enabled": _bits,
            "profile": st.sampled_from(NAMES),
            "profiles": _tables(paths),
            **_keys(paths),
        },
    )


def toml(document: Document) -> str:
    """Write a document down."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in document.items() if key != "profiles"]
    for name, table in document.get("profiles", {}).items():
        lines += [f"[profiles.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


class Refused(Exception):
    """The session may not start."""


@dataclass
class Model:
    """The meaning of a base and of what tightens it."""

    home: Path
    workspace: Path
    sources: Sequence[Path]
    base: Document
    overlays: Sequence[Document]
    level: str = "development"
    enabled: bool = True
    isolated: bool = False
    denied: list[Path] = field(default_factory=list)
    frozen: list[Path] = field(default_factory=list)
    permitted: list[list[Path]] = field(default_factory=list)
    """What may be written must be in one of each list."""

    def __post_init__(self) -> None:
        self._tables: dict[str, list[Document]] = {}
        self._base()
        for document in self.overlays:
            self._tighten(document)
        if self.enabled and any(_inside(self.workspace, place) for place in self.denied):
            raise Refused("the workspace is denied")

    @property
    def network(self) -> bool:
        """Whether the host's network is there."""
        return not (self.enabled and self.isolated)

    def can_read(self, path: Path) -> bool:
        """Whether a session may read an existing file."""
        if not self.enabled:
            return True
        if any(_inside(path, place) for place in self.denied):
            return False
        if not _inside(path, self.home):
            return _inside(path, Path("/etc")) or _inside(path, Path("/usr"))
        shown = self.level == "development" or _inside(path, self.workspace)
        return shown or self._is_permitted(path)

    def can_write(self, path: Path) -> bool:
        """Whether a session may change an existing file."""
        if not self.enabled:
            return True
        rules = [self.workspace / ".oqto", *(source.parent for source in self.sources)]
        if not self.can_read(path) or any(_inside(path, place) for place in (*self.frozen, *rules)):
            return False
        return _inside(path, self.workspace) or self._is_permitted(path)

    def _is_permitted(self, path: Path) -> bool:
        return all(any(self._covers(place, path) for place in places) for places in self.permitted)

    def _covers(self, place: Path, path: Path) -> bool:
        if not _inside(place, self.home) and _inside(place, Path("/tmp")) and _inside(path, self.home):
            return False  # the sandbox's own /tmp isn't the host's, where this home is
        return _inside(path, place)

    def _base(self) -> None:
        chosen = self.base.get("profile", "development")
        self._remember(self.base)
        tables = self._tables.get(chosen, [])
        self.level = _level(chosen, tables)
        lists = _defaults(self.level) | {"deny_write": []}
        isolated = self.level == "strict"
        for keys in (*tables, self.base):
            lists |= {key: keys[key] for key in lists if key in keys}
            if "allow_write" in keys and self.level == "development":
                lists["allow_write"] = [*keys["allow_write"], "~/.cache"]
            isolated = keys.get("isolate_network", isolated)
        self.enabled = self.base.get("enabled", True)
        self.isolated = isolated
        self.denied, self.frozen = self._places(lists["deny_read"]), self._places(lists["deny_write"])
        self.permitted = [self._writable(lists["allow_write"])]
        if any(place == Path("/") for place in self.permitted[0]):
            raise Refused("everything writable")

    def _tighten(self, document: Document) -> None:
        own = document.get("profiles", {})
        self._remember(document)
        tables = [own[name] for name in [document.get("profile", self._chosen)] if name in own]
        steps = list(tables)
        if "profile" in document:
            every = self._tables.get(document["profile"], [])
            level = _level(document["profile"], every)
            steps = list(every)
            if LEVELS.index(level) > LEVELS.index(self.level):
                self.level, self._chosen = level, document["profile"]
                steps.insert(0, _defaults(level) | {"isolate_network": level == "strict"})
        narrowed = None
        for keys in (*steps, document):
            self.denied += self._places(keys.get("deny_read", []))
            self.frozen += self._places(keys.get("deny_write", []))
            narrowed = keys.get("allow_write", narrowed)
            self.isolated = self.isolated or keys.get("isolate_network", False)
            self.enabled = self.enabled or keys.get("enabled", False)
        if narrowed is not None:
            self.permitted.append(self._writable(narrowed))

    def _remember(self, document: Document) -> None:
        for name, table in document.get("profiles", {}).items():
            if name in LEVELS and "extends" in table:
                raise Refused("built in")
            self._tables.setdefault(name, []).append(table)
        if document is self.base:
            self._chosen = document.get("profile", "development")
        for keys in (document, *document.get("profiles", {}).values()):
            self._writable(keys.get("allow_write", []))  # a link in one refuses the file, used or not

    def _places(self, entries: Sequence[str]) -> list[Path]:
        """Where these are, and where they lead."""
        named = [self._expanded(entry) for entry in entries]
        named = [Path(os.path.realpath(path.parent)) / path.name for path in named]
        return [*named, *(Path(os.path.realpath(path)) for path in named)]

    def _writable(self, entries: Sequence[str]) -> list[Path]:
        named = [self._expanded(entry) for entry in entries]
        if any(_inside(path, self.home / LINK[0]) for path in named):
            raise Refused("a link into the home")
        return named

    def _expanded(self, entry: str) -> Path:
        for start in ("~", "$HOME"):
            if entry == start or entry.startswith(start + "/"):
                return Path(os.path.normpath(f"{self.home}{entry[len(start) :]}"))
        return Path(os.path.normpath(self.workspace / entry))


def _defaults(level: str) -> dict[str, Any]:
    return {"deny_read": SECRETS, "allow_write": DEVELOPMENT if level == "development" else []}


def _level(name: str, tables: Sequence[Document]) -> str:
    if name not in LEVELS and not tables:
        raise Refused("an unknown profile")
    extended = [table["extends"] for table in tables if "extends" in table]
    return max([*extended, *([name] if name in LEVELS else [])], key=LEVELS.index, default="development")


def _inside(path: Path, place: Path) -> bool:
    return path.is_relative_to(place)
