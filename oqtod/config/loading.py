"""From file, environment and command line to one `Config`, or to everything that is wrong with them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Struct

from . import environment, file, unbuilt, values
from .checks import RULES
from .environment import Assignment, source_of
from .expansion import CannotExpand, absolute, expand
from .keys import Key, keys, sections
from .model import Config
from .problems import ConfigRefused, Problem, closest, describe, type_of

DEFAULT: Final = "default"
COMMAND_LINE: Final = "command line"
_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


class Loaded(Struct, frozen=True, kw_only=True):
    """A configuration that can be used, and where it came from.

    `path` is the file that was read, None when there is none. `sources` tells for every dotted key where its
    value came from, for people. `database_path` is ``$OQTO_DATABASE_PATH``, or ``oqto.db`` in
    ``paths.data_dir``.
    """

    config: Config
    path: Path | None
    sources: dict[str, str]
    database_path: Path


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] = _NOTHING,
) -> Loaded:
    """Load the configuration: built-in defaults, then file, environment and command line, later wins.

    `path` names the file; without it the usual places are searched. `overrides` maps dotted keys to values
    from the command line; None means that the option wasn't given. Raises `ConfigRefused` with every problem.
    """
    environ = os.environ if environ is None else environ
    found_file, document = file.read(path, environ)
    loading = _Loading(environ)
    if found_file is not None:
        loading.assign(*_flatten(document, os.fsdecode(found_file)))
    loading.assign(*environment.named(environ))
    loading.assign(*environment.prefixed(environ))
    loading.assign(*_from_command_line(overrides))
    return loading.finish(found_file)


def _from_command_line(overrides: Mapping[str, object]) -> tuple[list[Assignment], list[Problem]]:
    found, problems = [], []
    for path, value in overrides.items():
        if value is None:
            continue
        if path in keys():
            found.append(Assignment(key=keys()[path], value=value, source=COMMAND_LINE))
        else:
            problems.append(_unknown(path, path, COMMAND_LINE))
    return found, problems


def _flatten(document: dict[str, object], source: str) -> tuple[list[Assignment], list[Problem]]:
    """Take a document apart into values for known keys and problems with all the rest."""
    found: list[Assignment] = []
    problems: list[Problem] = []
    waiting: list[tuple[str, dict[str, object]]] = [("", document)]
    while waiting:
        section, table = waiting.pop(0)
        for name, value in table.items():
            path = f"{section}.{name}" if section else name
            if "." in name or (path not in keys() and path not in sections()):
                shown = f"{section}.{values.key_text(name)}" if section else values.key_text(name)
                problems.append(_unknown(shown, path, source, table=isinstance(value, dict)))
            elif path in keys():
                found.append(Assignment(key=keys()[path], value=value, source=source))
            elif isinstance(value, dict):
                waiting.append((path, value))
            else:
                problems.append(
                    Problem(
                        source=source,
                        key=path,
                        message="a section, not a key",
                        found=type_of(value),
                        allowed=f"a table: [{path}]",
                    )
                )
    return found, problems


def _unknown(shown: str, path: str, source: str, *, table: bool = False) -> Problem:
    return Problem(
        source=source,
        key=shown,
        message="unknown section" if table else "unknown key",
        hint=_suggestion(path, table=table),
    )


def _suggestion(path: str, *, table: bool) -> str:
    """Say which key was probably meant: one beside it, one so called elsewhere, or a similar path."""
    known = [each for each in (sections() if table else keys()) if each]
    section, _, name = path.rpartition(".")
    beside = {_last(each): each for each in known if each.rpartition(".")[0] == section}
    guess = beside.get(closest(name, list(beside)) or "")
    if guess is None:
        alike = closest(name, [_last(each) for each in known])
        elsewhere = [each for each in known if _last(each) == alike]
        guess = elsewhere[0] if len(elsewhere) == 1 else closest(path, elsewhere or known)
    if guess is None and beside and not table and section:
        return f"[{section}] has {', '.join(beside)}"
    return f"did you mean {f'[{guess}]' if table else guess}?" if guess else ""


def _last(path: str) -> str:
    return path.rpartition(".")[2]


class _Loading:
    """One load under way: the values so far, and the problems."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._assigned: dict[str, Assignment] = {}
        self._problems: list[Problem] = []
        self._refused: set[str] = set()
        self._tree: dict[str, object] = {}
        self._sources = dict.fromkeys(keys(), DEFAULT)

    def assign(self, assignments: list[Assignment], problems: list[Problem]) -> None:
        """Take the values of one source; they replace those of the sources before it."""
        self._problems += problems
        self._assigned |= {assignment.key.path: assignment for assignment in assignments}

    def finish(self, found_file: Path | None) -> Loaded:
        """Check everything, and return the configuration or raise `ConfigRefused`."""
        self._ambient_master_key()
        for key in keys().values():
            self._settle(key)
        self._derive()
        database_path = self._database_path()
        config = msgspec.convert(self._tree, Config, strict=True)
        for reads, rule in RULES:
            if not reads & self._refused:
                self._problems += (self._at_its_source(problem) for problem in rule(config))
        if self._problems:
            raise ConfigRefused(self._problems)
        return Loaded(
            config=config, path=found_file, sources=self._sources, database_path=Path(database_path)
        )

    def _ambient_master_key(self) -> None:
        """Take EAVS_MASTER_KEY where no master key is set and EAVS is wanted at all.

        Other programs use the variable too, so it must not matter to somebody who switched EAVS off.
        """
        enabled = self._assigned.get("eavs.enabled")
        value = self._environ.get("EAVS_MASTER_KEY")
        if (
            value
            and "eavs.master_key" not in self._assigned
            and (enabled is None or enabled.value is not False)
        ):
            key = keys()["eavs.master_key"]
            self._assigned[key.path] = Assignment(key=key, value=value, source=source_of("EAVS_MASTER_KEY"))

    def _settle(self, key: Key) -> None:
        assignment = self._assigned.get(key.path)
        if assignment is None:
            # Only paths change on the way from the default to the value.
            written, source = key.default, DEFAULT
            if written is None or "path" not in key.kind:
                return
        else:
            written, source = assignment.value, assignment.source
        value = values.read(key, written, source=source, environ=self._environ)
        if value.problems:
            written_by_nobody = assignment is None
            self._problems += map(_for_default, value.problems) if written_by_nobody else value.problems
            self._refused.add(key.path)
            return
        if assignment is not None and unbuilt.refuses(key, written):
            # The value is sound, so the rules about several keys still look at it.
            self._problems.append(_not_built(key, written, source))
        self._set(key.path, value.result)
        self._sources[key.path] = f"{source} (env:{value.named})" if value.named else source

    def _set(self, path: str, value: object) -> None:
        table = self._tree
        *outer, name = path.split(".")
        for section in outer:
            below = table.setdefault(section, {})
            assert isinstance(below, dict)
            table = below
        table[name] = value

    def _get(self, path: str) -> object:
        value: object = self._tree
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def _derive(self) -> None:
        """Work out the defaults that depend on the machine or on another key."""
        for path, value in _derived(self._get("paths.state_dir")):
            if path not in self._assigned and value is not None:
                self._set(path, value)

    def _database_path(self) -> str:
        written = self._environ.get("OQTO_DATABASE_PATH")
        if written:
            try:
                return absolute(expand(written, self._environ))
            except CannotExpand as error:
                self._problems.append(
                    Problem(
                        source=source_of("OQTO_DATABASE_PATH"),
                        key="",
                        message=str(error),
                        found=describe(written),
                        hint=error.hint,
                    )
                )
        return f"{self._get('paths.data_dir')}/oqto.db"

    def _at_its_source(self, problem: Problem) -> Problem:
        path = problem.key.partition("[")[0]
        assignment = self._assigned.get(path)
        return msgspec.structs.replace(problem, source=assignment.source if assignment else DEFAULT)


def _derived(state_dir: object) -> Iterator[tuple[str, object]]:
    yield "logging.audit_file", f"{state_dir}/audit.log.jsonl" if state_dir else None
    yield "runner.runner_id", "-".join(os.uname().nodename.split()) or None
    yield "runtime.parallelism", os.cpu_count() or 1


def _for_default(problem: Problem) -> Problem:
    """Nobody wrote the value, so the advice is to write one."""
    return msgspec.structs.replace(problem, hint=f"set {problem.key}, or the variable")


def _not_built(key: Key, written: object, source: str) -> Problem:
    return Problem(
        source=source,
        key=key.path,
        message=f"not built yet: {unbuilt.feature_missing(key.path)}",
        found=describe(written, secret=key.secret),
        allowed=f"only the default, {key.shown or _default_text(key)}",
        hint="leave the key out until the feature is there",
    )


def _default_text(key: Key) -> str:
    return describe(key.default).partition(" ")[2] if not isinstance(key.default, list) else "[]"
