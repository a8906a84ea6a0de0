"""One value of one key: resolving ``env:``, expanding, checking type, bounds and form."""

import re
from collections.abc import Callable, Mapping
from typing import Final, cast

import msgspec

from .expansion import CannotExpand, absolute, expand, expand_shared
from .forms import network_fault, origin_fault, url_fault
from .keys import Key, dev_user_keys
from .problems import Problem, closest, describe, quote, type_of

_SOCKET_PLACEHOLDERS: Final = frozenset({"user", "uid"})
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Value(msgspec.Struct, kw_only=True):
    """What became of one value. With `problems` the `result` must not be used.

    `named` is the environment variable that a secret was read from.
    """

    result: object
    problems: list[Problem]
    named: str = ""


def read(key: Key, written: object, *, source: str, environ: Mapping[str, str]) -> Value:
    """Turn what was written for `key` into the value that counts, or into the problems with it."""
    if key.path == "auth.dev_users":
        return _dev_users(key, written, source=source, environ=environ)
    return _single(key, written, path=key.path, source=source, environ=environ)


def _single(key: Key, written: object, *, path: str, source: str, environ: Mapping[str, str]) -> Value:
    def fault(message: str, *, found: str | None = None, allowed: str = key.allowed, hint: str = "") -> Value:
        shown = describe(written, secret=key.secret) if found is None else found
        problem = Problem(source=source, key=path, message=message, found=shown, allowed=allowed, hint=hint)
        return Value(result=None, problems=[problem])

    if not _is_text_safe(written):
        return fault("not UTF-8", found="text with undecodable bytes")
    if not _has_type(key, written):
        return fault("wrong type", hint=_type_hint(key, written))
    value, named = written, ""
    if key.secret and isinstance(written, str) and written.startswith("env:"):
        named = written.removeprefix("env:")
        if not _VARIABLE.match(named):
            return fault("env: is not followed by the name of an environment variable", hint="write env:NAME")
        if not environ.get(named):
            return fault(
                f"the environment variable {named} is not set",
                found=f"env:{named}",
                hint=f"set {named}; for a service, in an EnvironmentFile=",
            )
        value = environ[named]
        if not _is_text_safe(value):
            return fault("not UTF-8", found=f"undecodable bytes in {named}")
    try:
        msgspec.convert(value, key.type, strict=True)
    except (msgspec.ValidationError, OverflowError):
        return fault("not allowed", found=describe(value, secret=key.secret))
    try:
        value = _expanded(key, value, environ)
        # Expansion must not bring in what could not have been written.
        msgspec.convert(value, key.type, strict=True)
    except CannotExpand as error:
        return fault(str(error), allowed="", hint=error.hint)
    except msgspec.ValidationError:
        return fault("not allowed once it is expanded", found=describe(value))
    malformed = [
        problem
        for item, hint in _malformed(key, value)
        for problem in fault("not allowed", found=describe(item), hint=hint).problems
    ]
    return Value(result=value, problems=malformed, named=named)


def _expanded(key: Key, value: object, environ: Mapping[str, str]) -> object:
    if isinstance(value, list):
        return [_expanded(key, item, environ) for item in value]
    if not isinstance(value, str):
        return value
    if key.kind == "path":
        return absolute(expand(value, environ))
    if key.kind == "program":
        expanded = expand(value, environ)
        return absolute(expanded) if "/" in expanded else expanded
    if key.kind == "account_path":
        return expand_shared(value, environ)
    if key.kind == "socket_pattern":
        expanded = expand(value, environ, placeholders=_SOCKET_PLACEHOLDERS)
        if not expanded.startswith("/"):
            raise CannotExpand("the path must be absolute", "start it with /, ~ or $XDG_RUNTIME_DIR")
        return expanded
    return value


def _malformed(key: Key, value: object) -> list[tuple[object, str]]:
    """Return what is not in the form of its kind, each with the reason."""
    check: Callable[[str], str | None]
    if key.kind == "origins":
        check = origin_fault
    elif key.kind == "url":
        check = url_fault
    elif key.kind == "networks":
        check = network_fault
    else:
        return []
    items = value if isinstance(value, list) else [value]
    return [(item, reason) for item in items if isinstance(item, str) and (reason := check(item))]


def _has_type(key: Key, value: object) -> bool:
    """Whether the TOML type is right, bounds apart."""
    if key.type_name.endswith("[]"):
        return isinstance(value, list) and all(type_of(item) == "string" for item in value)
    permitted = {
        "string": ("string",),
        "bool": ("boolean",),
        "int": ("integer",),
        "float": ("integer", "float"),
    }
    return type_of(value) in permitted[key.type_name]


def _type_hint(key: Key, value: object) -> str:
    if key.type_name == "bool" and str(value).lower() in ("yes", "no", "on", "off", "true", "false"):
        return "write true or false, without quotes"
    if key.type_name in ("int", "float") and isinstance(value, str) and re.fullmatch(r"[0-9.]+", value):
        return "write the number without quotes"
    if key.type_name == "string[]":
        return 'write an array of strings, like ["one", "two"]'
    if key.type_name == "string" and not isinstance(value, list | dict):
        return "put it in quotes"
    return ""


def _is_text_safe(value: object) -> bool:
    """Whether every string in a value is UTF-8 when written out; environment and argv may hold worse."""
    if isinstance(value, list):
        return all(_is_text_safe(item) for item in value)
    if not isinstance(value, str):
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _dev_users(key: Key, written: object, *, source: str, environ: Mapping[str, str]) -> Value:
    """Check each of ``[[auth.dev_users]]`` like a little section."""
    if not isinstance(written, list) or not all(isinstance(user, dict) for user in written):
        problem = Problem(
            source=source,
            key=key.path,
            message="wrong type",
            found=type_of(written) if not isinstance(written, list) else "array of something else",
            allowed="an array of tables: a [[auth.dev_users]] for each user",
        )
        return Value(result=None, problems=[problem])
    problems: list[Problem] = []
    users = []
    for index, user in enumerate(cast("list[dict[str, object]]", written)):
        path = f"{key.path}[{index}]"
        users.append(_dev_user(user, path, source=source, environ=environ, problems=problems))
    return Value(result=users, problems=problems)


def _dev_user(
    user: dict[str, object], path: str, *, source: str, environ: Mapping[str, str], problems: list[Problem]
) -> dict[str, object]:
    known = dev_user_keys()
    read_values: dict[str, object] = {}
    unknown = [name for name in user if name not in known]
    for name in unknown:
        guess = closest(name, list(known))
        hint = f"did you mean {guess}?" if guess else f"there are {', '.join(known)}"
        problems.append(
            Problem(source=source, key=f"{path}.{key_text(name)}", message="unknown key", hint=hint)
        )
    for name, key in known.items():
        if name in user:
            value = _single(key, user[name], path=f"{path}.{name}", source=source, environ=environ)
            problems += value.problems
            read_values[name] = value.result
        elif key.required:
            problems.append(
                Problem(
                    source=source,
                    key=f"{path}.{name}",
                    message="missing",
                    found="nothing",
                    allowed=key.allowed,
                )
            )
    return read_values


def key_text(name: str) -> str:
    """Write a key as TOML would, quoted where it must be, fit for a terminal."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name) else quote(name)
