"""A loaded configuration written out again: every key with the value that counts, secrets left out."""

from collections.abc import Iterator

import msgspec

from .keys import dev_user_keys, keys, sections
from .loading import Loaded
from .toml import key_text, value_text

SECRET = "(set)"  # noqa: S105 - what is shown in the place of one


def values(loaded: Loaded) -> dict[str, object]:
    """Return every value by dotted key, secrets as "(set)"; None is a key without a value."""
    tree: dict[str, object] = msgspec.to_builtins(loaded.config)
    return {path: _shown(path, _at(tree, path)) for path in keys()}


def nested(flat: dict[str, object]) -> dict[str, object]:
    """Turn dotted keys into tables in tables."""
    tree: dict[str, object] = {}
    for path, value in flat.items():
        *outer, name = path.split(".")
        table = tree
        for section in outer:
            below = table.setdefault(section, {})
            assert isinstance(below, dict)
            table = below
        table[name] = value
    return tree


def lines(loaded: Loaded, *, sources: bool) -> Iterator[tuple[str, str]]:
    """Yield the configuration as lines of TOML, each with a comment to stand behind it or "".

    A key without a value is a comment altogether. With `sources` the comments tell where values come from.
    """
    flat = values(loaded)
    if sources:
        yield "", f"# database: {loaded.database_path}"
    for section in sections():
        if section:
            yield "", ""
            yield f"[{section}]", ""
        for path, key in keys().items():
            if key.section != section or path == "auth.dev_users":
                continue
            name, value = key_text(key.name), flat[path]
            comment = f"# {loaded.sources[path]}" if sources else ""
            if value is None:
                yield "", f"# {name} = {key.shown}{f'  {comment}' if comment else ''}"
            else:
                yield f"{name} = {value_text(value)}", comment
        if section == "auth":
            yield from _dev_users(flat["auth.dev_users"], loaded.sources["auth.dev_users"] if sources else "")


def _dev_users(users: object, source: str) -> Iterator[tuple[str, str]]:
    assert isinstance(users, list)
    for user in users:
        yield "", ""
        yield "[[auth.dev_users]]", f"# {source}" if source else ""
        for name, value in user.items():
            yield f"{name} = {value_text(value)}", ""


def _at(tree: object, path: str) -> object:
    for name in path.split("."):
        assert isinstance(tree, dict)
        tree = tree[name]
    return tree


def _shown(path: str, value: object) -> object:
    if path == "auth.dev_users":
        assert isinstance(value, list)
        secret = {name for name, key in dev_user_keys().items() if key.secret}
        return [{name: SECRET if name in secret else item for name, item in user.items()} for user in value]
    return SECRET if keys()[path].secret and value is not None else value
