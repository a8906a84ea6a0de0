"""The list of keys, read off the structures of `oqtod.config.model`.

What walks over all keys (loading, ``show``, ``init``, the schema, the documentation) walks over this list.
"""

import types
from functools import cache
from typing import Annotated, Literal, Union, cast, get_args, get_origin

from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import FieldInfo, fields

from .metadata import Kind, Section, metas
from .model import Config, DevUser


class Key(Struct, frozen=True, kw_only=True):
    """One key: what the structures say about it, ready to use.

    `path` is dotted ("local.linux_users.prefix"); `type` what `msgspec.convert` takes; `default` the value
    itself, `required` tells that there is none. `shown` replaces the default in texts where it is set.
    """

    path: str
    type: object
    default: object
    required: bool
    description: str
    kind: Kind
    unit: str
    shown: str
    example: object
    type_name: str
    allowed: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def section(self) -> str:
        """The path without its last part; empty at the top."""
        return self.path.rpartition(".")[0]

    @property
    def secret(self) -> bool:
        """Whether the value must never be shown."""
        return self.kind == "secret"


class SectionInfo(Struct, frozen=True, kw_only=True):
    """One section: its dotted path ("" is the top of the file) and what it is for."""

    path: str
    description: str


@cache
def sections() -> dict[str, SectionInfo]:
    """Every section by its dotted path, in the order of the reference."""
    return {path: SectionInfo(path=path, description=_doc(struct)) for path, struct in _structs(Config, "")}


@cache
def keys() -> dict[str, Key]:
    """Every key by its dotted path, in the order of the reference."""
    found = {}
    for path, struct in _structs(Config, ""):
        for entry in fields(struct):
            if not _is_section(entry.type):
                key = _key(f"{path}.{entry.encode_name}" if path else entry.encode_name, entry)
                found[key.path] = key
    return found


@cache
def dev_user_keys() -> dict[str, Key]:
    """The keys of one of ``[[auth.dev_users]]``, by name."""
    return {entry.name: _key(entry.name, entry) for entry in fields(DevUser)}


def _structs(struct: type[Section], path: str) -> list[tuple[str, type[Section]]]:
    found = [(path, struct)]
    for entry in fields(struct):
        if _is_section(entry.type):
            below = f"{path}.{entry.encode_name}" if path else entry.encode_name
            found += _structs(cast("type[Section]", entry.type), below)
    return found


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _doc(struct: type[Section]) -> str:
    return " ".join((struct.__doc__ or "").split())


def _key(path: str, entry: FieldInfo) -> Key:
    described = list(metas(entry.type))
    own = described[0]
    assert own.description is not None and own.extra is not None
    allowed = next((m.extra["allowed"] for m in described if m.extra and m.extra.get("allowed")), "")
    required = entry.default is NODEFAULT and entry.default_factory is NODEFAULT
    default = None if required else entry.default
    if default is NODEFAULT:
        default = cast("type[list[object]]", entry.default_factory)()
    return Key(
        path=path,
        type=entry.type,
        default=default,
        required=required,
        description=own.description,
        kind=own.extra["kind"],
        unit=own.extra["unit"],
        shown=own.extra["shown"],
        example=own.extra["example"],
        type_name=_type_name(entry.type),
        allowed=allowed or _bounds(entry.type, described, own.extra["unit"]),
    )


def _plain(annotation: object) -> object:
    """The type without annotations and without None."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        (only,) = (member for member in get_args(annotation) if member is not type(None))
        return _plain(only)
    return annotation


def _type_name(annotation: object) -> str:
    plain = _plain(annotation)
    if get_origin(plain) is list:
        return _type_name(get_args(plain)[0]) + "[]"
    if get_origin(plain) is Literal or plain is str:
        return "string"
    if _is_section(plain):
        return "table"
    return cast("type", plain).__name__


def _bounds(annotation: object, described: list[Meta], unit: str) -> str:
    """Say in words what a value may be."""
    plain = _plain(annotation)
    if get_origin(plain) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(plain))
    if get_origin(plain) is list:
        item = get_args(plain)[0]
        if _is_section(_plain(item)):
            return "an array of tables"
        return f"an array, each item {_bounds(item, list(metas(item)), '')}"
    if plain is bool:
        return "true or false"
    limits = {
        name: value
        for meta in described
        for name in ("ge", "gt", "le", "min_length", "max_length")
        if (value := getattr(meta, name)) is not None
    }
    if plain is str:
        inner = next((m.extra["allowed"] for m in described if m.extra and m.extra.get("allowed")), "")
        if inner:
            return cast("str", inner)
        if "min_length" in limits and "max_length" in limits:
            return f"text of {limits['min_length']} to {limits['max_length']} characters"
        return (
            "text" if limits.get("min_length", 0) <= 1 else f"text, {limits['min_length']} characters or more"
        )
    number = "a whole number" if plain is int else "a number"
    low = f"from {limits['ge']}" if "ge" in limits else f"above {limits['gt']}" if "gt" in limits else ""
    high = f"to {limits['le']}" if "ge" in limits else f"and at most {limits['le']}"
    return " ".join(part for part in (number, low, high, f"({unit})" if unit else "") if part)
