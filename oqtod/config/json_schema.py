"""The JSON Schema of the configuration file, for editors and other programs."""

from typing import cast

import msgspec

from .keys import Key, dev_user_keys, keys
from .model import Config
from .unbuilt import feature_missing

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ENV = {"type": "string", "pattern": "^env:[A-Za-z_][A-Za-z0-9_]*$", "description": "From the environment"}

_Node = dict[str, object]


def json_schema() -> _Node:
    """Return the schema, draft 2020-12: every key with type, bounds, default, unit and description."""
    schema: _Node = msgspec.json.schema(Config)
    defs = cast("dict[str, _Node]", schema["$defs"])
    for key in keys().values():
        struct = defs["Config"]
        for section in filter(None, key.section.split(".")):
            struct = _follow(defs, _property(struct, section))
        _complete(_property(struct, key.name), key)
    for key in dev_user_keys().values():
        _complete(_property(defs["DevUser"], key.name), key)
    return {"$schema": _DIALECT, "title": "Configuration of oqtod"} | schema


def _follow(defs: dict[str, _Node], node: _Node) -> _Node:
    return defs[cast("str", node["$ref"]).rpartition("/")[2]]


def _property(struct: _Node, name: str) -> _Node:
    return cast("dict[str, _Node]", struct["properties"])[name]


def _complete(node: _Node, key: Key) -> None:
    _without_null(node)
    if key.secret:
        plain = {
            name: node.pop(name) for name in ("type", "minLength", "maxLength", "pattern") if name in node
        }
        node["anyOf"] = [plain, dict(_ENV)]
        node["writeOnly"] = True
    if key.default is not None:
        node["default"] = key.default
    if key.unit:
        node["x-unit"] = key.unit
    if feature := feature_missing(key.path):
        node["x-not-built"] = feature


def _without_null(node: _Node) -> None:
    """TOML has no null: a key without a value is left out."""
    choices = cast("list[_Node]", node.pop("anyOf", []))
    for choice in choices:
        if choice != {"type": "null"}:
            node |= choice
    if isinstance(node.get("enum"), list):
        node["enum"] = [each for each in cast("list[object]", node["enum"]) if each is not None]
    if node.get("default", ...) is None:
        del node["default"]
