"""The environment variables: which there are, and what they say about which key."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Final, cast

from msgspec import Struct

from .keys import Key, keys, sections
from .problems import Problem, closest, quote

PREFIX: Final = "OQTO__"


class Assignment(Struct, frozen=True, kw_only=True):
    """A value for one key, before any check; `source` is for people."""

    key: Key
    value: object
    source: str


class Variable(Struct, frozen=True, kw_only=True):
    """One variable that means something to oqtod or its sessions. `sets` is the key it sets, if any."""

    name: str
    description: str
    sets: str = ""


VARIABLES: Final = (
    Variable(name="OQTO_CONFIG", description="Path to config file"),
    Variable(name="OQTO_SERVER_URL", description="Server URL for oqtoctl"),
    Variable(name="OQTO_ADMIN_SOCKET", description="Admin socket path for oqtoctl"),
    Variable(name="OQTO_SESSION_ID", description="Current session ID (set in agent env)"),
    Variable(name="OQTO_RUNNER_ID", description="Runner identifier", sets="runner.runner_id"),
    Variable(name="OQTO_DATABASE_PATH", description="Database file path"),
    Variable(name="OQTO_FRONTEND_DIR", description="Folder of the built web UI", sets="server.frontend_dir"),
    Variable(name="EAVS_API_KEY", description="EAVS virtual key (injected per-session)"),
    Variable(
        name="EAVS_MASTER_KEY",
        description="EAVS admin master key, when `eavs.master_key` is not set",
        sets="eavs.master_key",
    ),
    Variable(name="AUTH_JWT_SECRET", description="JWT secret (via `env:` prefix in config)"),
    Variable(name="RUST_LOG", description="Log level override (info, debug, trace)", sets="logging.level"),
    Variable(name="OQTO_LOG", description="Log level override, before RUST_LOG", sets="logging.level"),
)
"""Every variable besides ``OQTO__SECTION__KEY`` and those that path values name."""

_LEVELS: Final = {
    "off": "error",  # there is no silence: errors are always said
    "error": "error",
    "warn": "warn",
    "warning": "warn",
    "info": "info",
    "debug": "debug",
    "trace": "trace",
}


def source_of(name: str) -> str:
    """Say in a problem, or beside a value, that it came from an environment variable."""
    return f"environment variable {name}"


def log_level(directives: str) -> str | None:
    """Take the level for oqtod out of what RUST_LOG may hold ("debug", "oqto=debug,info"), or None.

    A directive for oqto or oqtod counts more than a bare level; those for other programs don't count.
    """
    general = own = None
    for directive in directives.split("/", 1)[0].split(","):
        target, separator, level = directive.strip().rpartition("=")
        level = level.strip().lower()
        if not separator:
            if level in ("oqto", "oqtod"):
                own = "trace"  # a target without a level means everything
            general = _LEVELS.get(level, general)
        elif target.strip() in ("oqto", "oqtod"):
            own = _LEVELS.get(level, own)
    return own or general


def named(environ: Mapping[str, str]) -> tuple[list[Assignment], list[Problem]]:
    """Read the variables with a name of their own; an empty one is as good as unset.

    EAVS_MASTER_KEY isn't among them: it comes before the file, so the loader asks for it by itself.
    """
    found, problems = [], []
    if (level := log_level(environ.get("RUST_LOG", ""))) is not None:
        found.append(_assign("logging.level", level, "RUST_LOG"))
    if own := environ.get("OQTO_LOG"):
        if (level := log_level(own)) is not None:
            found.append(_assign("logging.level", level, "OQTO_LOG"))
        else:
            problems.append(
                Problem(
                    source=source_of("OQTO_LOG"),
                    key="logging.level",
                    message="no log level",
                    found=quote(own),
                    allowed=keys()["logging.level"].allowed,
                )
            )
    for name, path in (("OQTO_RUNNER_ID", "runner.runner_id"), ("OQTO_FRONTEND_DIR", "server.frontend_dir")):
        if value := environ.get(name):
            found.append(_assign(path, value, name))
    return found, problems


def _assign(path: str, value: object, name: str) -> Assignment:
    return Assignment(key=keys()[path], value=value, source=source_of(name))


def prefixed(environ: Mapping[str, str]) -> tuple[list[Assignment], list[Problem]]:
    """Read every ``OQTO__SECTION__KEY``. The value is TOML; for a key that takes text, plain text will do."""
    found: dict[str, Assignment] = {}
    problems = []
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        path = name.removeprefix(PREFIX).lower().replace("__", ".")
        key = keys().get(path)
        if key is None:
            problems.append(_unknown(name, path))
        elif path in found:
            problems.append(
                Problem(source=source_of(name), key=path, message=f"also set by the {found[path].source}")
            )
        else:
            value = typed(environ[name], text=key.type_name == "string")
            found[path] = Assignment(key=key, value=value, source=source_of(name))
    return list(found.values()), problems


def typed(raw: str, *, text: bool) -> object:
    """Read a value as TOML. With `text`, what isn't a TOML string is taken as it stands."""
    try:
        document = cast("dict[str, object]", tomllib.loads(f"value = {raw}"))
    except (ValueError, RecursionError):
        return raw
    value = document.get("value")
    if len(document) != 1 or (text and not isinstance(value, str)):
        return raw
    return value


def _unknown(name: str, path: str) -> Problem:
    if path and path in sections():
        message = "a section, not a key"
        hint = f"name one of its keys, like {PREFIX}{next(_below(path)).upper().replace('.', '__')}"
    else:
        message = "unknown key"
        guess = closest(path, [key for key in keys() if re.match(r"[a-z]", key)])
        hint = f"did you mean {PREFIX}{guess.upper().replace('.', '__')}?" if guess else ""
    return Problem(source=source_of(name), key=path, message=message, hint=hint)


def _below(section: str) -> Iterator[str]:
    return (path for path in keys() if path.startswith(section + "."))
