"""What is said about each key beside its type, for all the structures of the configuration.

A field is ``Annotated[type, Meta(bounds), key("description", ...)]``. Bounds of an optional value stand on
the type inside the union, because msgspec wants them there.
"""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from msgspec import Meta, Struct
from msgspec.structs import fields

Kind = Literal[
    "value", "path", "account_path", "program", "socket_pattern", "secret", "url", "origins", "networks"
]
"""What is done with a value besides checking its type.

``path`` is expanded and made absolute; ``program`` likewise, but a bare name is looked up on PATH;
``account_path`` is filled in for each account later, so only what is the same for all accounts is expanded;
``socket_pattern`` is a path with ``{user}`` and ``{uid}``; ``secret`` takes ``env:NAME`` and is never shown;
``url``, ``origins`` and ``networks`` are checked for their form.
"""


def key(
    description: str,
    *,
    kind: Kind = "value",
    unit: str = "",
    shown: str = "",
    example: object = None,
    allowed: str = "",
) -> Meta:
    """Describe one key.

    `shown` stands in for the default where that is nothing or worked out at start; `example` is what the
    commented default file shows for a key without a default; `allowed` says in words what a pattern means.
    """
    extra = {"kind": kind, "unit": unit, "shown": shown, "example": example, "allowed": allowed}
    return Meta(description=description, extra=extra)


# `$` also matches before a final newline in Python, but not in JSON Schema; the lookahead makes them agree.
_ONE_WORD = r"^\S+$(?!\n)"
_NO_CONTROLS = r"^[^\x00-\x1f\x7f]+$(?!\n)"

Word = Annotated[
    str,
    Meta(
        min_length=1, max_length=128, pattern=_ONE_WORD, extra={"allowed": "1 to 128 characters, no blanks"}
    ),
]
PathText = Annotated[
    str, Meta(min_length=1, max_length=4096, pattern=_NO_CONTROLS, extra={"allowed": "a path"})
]
UrlText = Annotated[
    str, Meta(min_length=1, max_length=2048, pattern=_ONE_WORD, extra={"allowed": "an http or https URL"})
]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all sections share: frozen, refusing what they don't know, telling no secrets."""

    def __repr__(self) -> str:
        # A configuration gets into tracebacks and debug logs; its secrets must not.
        shown = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            secret = any(meta.extra and meta.extra.get("kind") == "secret" for meta in metas(entry.type))
            shown.append(f"{entry.name}={'(set)' if secret and value is not None else repr(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def metas(annotation: object) -> Iterator[Meta]:
    """Yield what is said about an annotated type, outermost first, unions included."""
    if get_origin(annotation) is Annotated:
        inner, *found = get_args(annotation)
        yield from (meta for meta in reversed(found) if isinstance(meta, Meta))
        yield from metas(inner)
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from metas(member)
