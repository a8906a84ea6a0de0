"""The commented default file: every key with its description, its default and what it may be."""

from collections.abc import Iterator
from textwrap import wrap

from .keys import Key, dev_user_keys, keys, sections
from .toml import key_text, value_text
from .unbuilt import feature_missing

_WIDTH = 100


def default_file() -> str:
    """Return a file that changes nothing until somebody takes the # from a line that begins with one."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Configuration of oqtod. Lines like `#key = value` show the default, or an example where there is"
    yield "# none; take the # away to set one. `oqtod config check` tells whether the file can be used,"
    yield "# `oqtod config show --sources` what counts and where it came from."
    for section in sections().values():
        if section.path:
            yield ""
            yield ""
            yield from _comment(section.description)
            yield f"[{section.path}]"
        for key in keys().values():
            if key.section == section.path and key.path != "auth.dev_users":
                yield ""
                yield from _key(key)
        if section.path == "auth":
            yield ""
            yield from _comment(keys()["auth.dev_users"].description + ".")
            yield "#[[auth.dev_users]]"
            for key in dev_user_keys().values():
                yield from _comment(f"{key.description}.")
                yield _setting(key)


def _key(key: Key) -> Iterator[str]:
    sentences = [f"{key.description}."]
    if key.default is None:
        sentences.append(f"Default: {key.shown.strip('()')}.")
    if key.type_name != "bool":
        sentences.append(f"{key.allowed[0].upper()}{key.allowed[1:]}.")
    yield from _comment(" ".join(sentences))
    if feature := feature_missing(key.path):
        yield from _comment(f"Not built yet ({feature}): only the default is accepted.")
    yield _setting(key)


def _setting(key: Key) -> str:
    value = key.example if key.default is None else key.default
    return f"#{key_text(key.name)} = {value_text(value)}"


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False))
