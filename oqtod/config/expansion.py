"""Path values: how ``~``, ``$VAR`` and the placeholders become paths, at start and later for each account.

Everything here is a function of its arguments; only `absolute` looks at the folder the program runs in.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Final

from .model import Config

# XDG Base Directory Specification: what an unset, empty or relative variable stands for.
_XDG_DEFAULTS: Final = {
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
    "XDG_CACHE_HOME": ".cache",
}

_PARTS: Final = re.compile(
    r"\$\{(?P<braced>[^{}]*)\}|\$(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<placeholder>[^{}]*)\}|(?P<stray>\$?\{|\})"
)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLACEHOLDERS: Final = frozenset({"user_id", "user", "uid"})
HOST_ADMIN_SOCKET: Final = "/run/oqto/oqtoctl.sock"
HOST_SOCKET: Final = "/run/oqto/runner-sockets/{user}/oqto-runner.sock"
"""Where oqto-runner@.socket listens as it is shipped."""

LONGEST_SOCKET_PATH: Final = 107
"""Bytes that fit in ``sun_path`` besides the closing zero, unix(7)."""


class CannotExpand(Exception):
    """A path value can't be turned into a path; the text says why, `hint` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def variable(name: str, environ: Mapping[str, str]) -> str:
    """Return what ``$name`` stands for in a path.

    The XDG folders have the defaults of their specification; any other variable that is unset or empty
    raises `CannotExpand`, because half a path is worse than none.
    """
    value = environ.get(name, "")
    if name in _XDG_DEFAULTS:
        if value.startswith("/"):
            return value
        if not environ.get("HOME"):
            raise CannotExpand(
                f"neither {name} nor HOME is set", f"set one of them, or write the path without ${name}"
            )
        return f"{environ['HOME']}/{_XDG_DEFAULTS[name]}"
    if not value:
        raise CannotExpand(
            f"the environment variable {name} is not set", "set it, or write the path without it"
        )
    return value


def expand(text: str, environ: Mapping[str, str], *, placeholders: frozenset[str] = frozenset()) -> str:
    """Expand a leading ``~``, ``$VAR`` and ``${VAR}``; leave the permitted `placeholders` as they are.

    Raises `CannotExpand` for an unset variable, ``~somebody`` and a placeholder that isn't permitted.
    """

    def replacement(part: re.Match[str]) -> str:
        name = _variable_name(part)
        if name is not None:
            return variable(name, environ)
        _check_placeholder(part, placeholders)
        return part[0]

    expanded = _PARTS.sub(replacement, text)
    return _tilde(text, expanded, lambda: variable("HOME", environ))


def expand_shared(text: str, environ: Mapping[str, str]) -> str:
    """Expand in a path that each account fills in for itself what is the same for all of them.

    ``~``, ``$HOME`` and ``{user_id}`` stay. Variables that describe an account are refused: the daemon only
    knows its own. Raises `CannotExpand`, also for a path that can't become absolute.
    """

    def replacement(part: re.Match[str]) -> str:
        name = _variable_name(part)
        if name == "HOME":
            return part[0]
        if name is not None:
            if name in ("USER", "LOGNAME") or name.startswith("XDG_"):
                raise CannotExpand(
                    f"${name} is the daemon's own here, not the account's", "use ~, $HOME or {user_id}"
                )
            return variable(name, environ)
        _check_placeholder(part, frozenset({"user_id"}))
        return part[0]

    expanded = _tilde(text, _PARTS.sub(replacement, text), lambda: "~")
    if not re.match(r"/|~(/|\Z)|\$HOME(/|\Z)|\$\{HOME\}", expanded):
        raise CannotExpand("the path must be absolute", "start it with /, ~ or $HOME")
    return expanded


def _variable_name(part: re.Match[str]) -> str | None:
    name = part["name"] if part["name"] is not None else part["braced"]
    if name is not None and not _VARIABLE.match(name):
        raise CannotExpand(f"{part[0]} names no environment variable", "write $NAME or ${NAME}")
    return name


def _check_placeholder(part: re.Match[str], permitted: frozenset[str]) -> None:
    name: str | None = part["placeholder"]
    if name in permitted or (not permitted and name not in _PLACEHOLDERS and part["stray"] != "${"):
        return  # ordinary paths may have braces in their names
    if not permitted:
        raise CannotExpand(f"{part[0]} has no meaning in this key")
    known = " and ".join(f"{{{each}}}" for each in sorted(permitted))
    raise CannotExpand(f"{part[0]} is no placeholder", f"this key knows {known}")


def _tilde(text: str, expanded: str, home: Callable[[], str]) -> str:
    if not text.startswith("~"):
        return expanded
    if text[1:2] not in ("", "/"):
        raise CannotExpand("only ~ and ~/… are expanded, not ~somebody", "write the folder's path")
    return home() + expanded[1:]


def absolute(path: str) -> str:
    """Make a path absolute, starting from the folder that the program was started in."""
    try:
        return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow symbolic links
    except OSError as error:
        raise CannotExpand(
            "the path is relative and the current folder is gone", "write it from /"
        ) from error


def workspace_root(config: Config, *, user_id: str, home: str) -> str:
    """Return the folder that holds a user's workspaces, per ``local.workspace_dir``: absolute and normalised.

    `home` is the home of the account the sessions run as. Of `user_id` nothing but a single folder name gets
    into the path. Raises `ValueError` for a `home` that isn't absolute.
    """
    if not home.startswith("/"):
        raise ValueError(f"home must be absolute: {home!r}")

    def replacement(part: re.Match[str]) -> str:
        if part["placeholder"] == "user_id":
            return folder_name(user_id)
        return home if (part["name"] or part["braced"]) == "HOME" else part[0]

    # One pass over the text: what is filled in is never looked at again.
    text = config.local.workspace_dir
    filled = _PARTS.sub(replacement, text)
    if text == "~" or text.startswith("~/"):
        filled = home + filled[1:]
    return "/" + os.path.normpath(filled).lstrip("/")


def folder_name(user_id: str) -> str:
    """Return a user's id as the name of one folder.

    Ids that are no folder name get their bad characters replaced and a checksum added, so that two users
    never share a folder because their names became the same.
    """
    cleaned = re.sub(r"[/\\\x00-\x1f\x7f]", "_", user_id)
    if cleaned == user_id and user_id not in ("", ".", "..") and len(os.fsencode(user_id)) <= 255:
        return user_id
    from hashlib import blake2s  # rarely needed, slow to import

    digest = blake2s(user_id.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{cleaned.replace('.', '_')[:40]}-{digest}"


def runner_socket(config: Config, *, user: str, uid: int, environ: Mapping[str, str] | None = None) -> str:
    """Return the socket of an account's runner, per ``local.runner_socket_pattern``.

    Without a pattern it is the packaged place in host mode, ``$XDG_RUNTIME_DIR/oqto`` in personal mode, and
    else (no such folder) ``run`` in ``paths.state_dir``. Raises `ValueError` for a `user` that can't be an
    account's name.
    """
    if not user or "/" in user or "\0" in user:
        raise ValueError(f"not an account name: {user!r}")
    pattern = config.local.runner_socket_pattern
    if pattern is None and config.local.linux_users.enabled:
        pattern = HOST_SOCKET
    if pattern is not None:
        values = {"user": user, "uid": str(uid)}
        return re.sub(r"\{(user|uid)\}", lambda part: values[part[1]], pattern)
    runtime_dir = (os.environ if environ is None else environ).get("XDG_RUNTIME_DIR", "")
    if config.local.single_user and runtime_dir.startswith("/"):
        return f"{runtime_dir.rstrip('/')}/oqto/oqto-runner.sock"
    return f"{config.paths.state_dir}/run/oqto-runner.sock"


def admin_socket(config: Config) -> str:
    """Return where oqtoctl finds the gateway: ``server.admin_socket_path``.

    Its default is a place of root's. In personal mode that default means the person's own place, in
    ``paths.state_dir``: one for each database.
    """
    path = config.server.admin_socket_path
    if config.local.single_user and path == HOST_ADMIN_SOCKET:
        return f"{config.paths.state_dir}/oqtoctl.sock"
    return path
