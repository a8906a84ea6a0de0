"""/api/openapi.json: the API's description, OpenAPI 3.1, made of the types that decode and encode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from oqtod import __version__
from oqtod.accounts.access import SCOPES
from oqtod.accounts.authenticator import COOKIE
from oqtod.api.contract import PARAMETERS, Content, Endpoint, Media, Operation
from oqtod.api.requests import json
from oqtod.errors import STATUS, ErrorBody

Node = dict[str, Any]

_TEMPLATE = "#/components/schemas/{name}"

_ABOUT = """
Terminals, files and browsers for the people and agents of one host.

Times are RFC 3339 in UTC. Every error has one shape, `ErrorBody`; a 500 is a mistake of ours, and not in the
lists below. A method that a path doesn't have gets a 405 with `Allow`. GET goes with HEAD too, but for
streams. `x-scopes` says which scopes an API key needs.
"""

_SECURITY: dict[str, Node] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of `POST /api/auth/login` or of the OpenID provider, or an API key.",
    },
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "Set by the login. What changes something needs an `Origin` that is allowed too.",
    },
}

_LEVELS = {
    "public": [],
    "anyone": ["bearer", "key", "cookie"],
    "scoped": ["bearer", "key", "cookie"],
    "person": ["bearer", "cookie"],
    "admin": ["bearer", "key", "cookie"],
}
"""Which credentials each level of `access` takes."""

_HEADERS: dict[str, Node] = {
    "X-Request-Id": {
        "description": "What the journal and the audit log call the request.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds until it may be tried again.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Location": {"description": "Where to go on.", "required": True, "schema": {"type": "string"}},
}

_EXTRA_HEADERS = {302: ["Location"], 307: ["Location"], 429: ["Retry-After"], 503: ["Retry-After"]}


class OpenApi:
    """The endpoint. It describes what `routes` serve, itself, and `others`."""

    def __init__(self, routes: Iterable[Endpoint], others: Iterable[Operation]) -> None:
        self._operations = [route.operation for route in [*routes, *self.routes()]] + [*others]
        self._encoded: msgspec.Raw | None = None

    def routes(self) -> list[Endpoint]:
        """Return the route."""
        answers = {200: Media("application/json", "An OpenAPI document.")}
        return [Endpoint("GET", "/api/openapi.json", self.get, answers=answers)]

    async def get(self, request: Request) -> Response:
        """Describe the API: this document."""
        if self._encoded is None:
            self._encoded = msgspec.Raw(msgspec.json.encode(document(self._operations)))
        return json(self._encoded)


def document(operations: Sequence[Operation]) -> Node:
    """Return the description of these operations."""
    types = [kind for operation in operations for kind in _types(operation)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    schema_of = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Node] = {}
    for operation in operations:
        path = re.sub(r":\w+\}", "}", operation.path)
        node = paths.setdefault(path, _path(path))
        node[operation.method.lower()] = _operation(operation, path, schema_of, components)
    for operation in operations:
        if operation.asks is not None:
            components.pop(operation.asks.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {"title": "oqtod", "version": __version__, "description": _ABOUT.strip()},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "securitySchemes": _SECURITY,
        },
        "x-scopes": SCOPES,
    }


def _types(operation: Operation) -> Iterator[Any]:
    """Return the types that a schema is needed of."""
    contents = [operation.takes, operation.asks, *operation.answers.values(), *operation.failures.values()]
    for content in contents:
        for each in _several(content):
            if not isinstance(each, Media):
                yield each
    yield ErrorBody


def _several(content: Content) -> tuple[Content, ...]:
    if content is None:
        return ()
    return content if isinstance(content, tuple) else (content,)


def _path(path: str) -> Node:
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PARAMETERS[name],
            "schema": {"type": "integer"} if name == "port" else {"type": "string", "minLength": 1},
        }
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    return {"parameters": parameters} if parameters else {}


def _operation(operation: Operation, path: str, schema_of: dict[int, Node], components: Node) -> Node:
    summary, _, more = operation.text.partition("\n")
    need = operation.need
    node: Node = {
        "operationId": _name(operation.method, path),
        "tags": [_tag(path)],
        "summary": summary.rstrip("."),
        "security": [{scheme: sorted(need.scopes)} for scheme in _LEVELS[need.level]],
        "responses": _responses(operation, schema_of),
    }
    if more.strip():
        node["description"] = more.strip()
    if need.scopes:
        node["x-scopes"] = sorted(need.scopes)
    if operation.asks is not None:
        node["parameters"] = _query(components[operation.asks.__name__])
    if operation.takes is not None:
        struct = components.get(getattr(operation.takes, "__name__", ""), {"required": True})
        node["requestBody"] = {
            "required": bool(struct.get("required")),  # an absent body is an empty object
            "content": _content(operation.takes, schema_of),
        }
    return node


def _name(method: str, path: str) -> str:
    """Return what a client that is made of the document calls an operation."""
    words = re.findall(r"\w+", path.removeprefix("/api"))
    return "_".join([method.lower(), *words, *(["index"] if path.endswith("/") else [])])


def _tag(path: str) -> str:
    """Return the part of the API that a path belongs to."""
    parts = path.removeprefix("/api").strip("/").split("/")
    if parts[0] == "admin":
        return "/".join(parts[:2])
    if parts[0] == "sessions" and len(parts) > 2 and parts[2] in ("terminal", "files", "ports", "browser"):
        return parts[2]
    return parts[0]


def _query(struct: Node) -> list[Node]:
    """Return the fields of a Struct as parameters of the query."""
    required = struct.get("required", [])
    found = []
    for name, schema in struct["properties"].items():
        parameter: Node = {"name": name, "in": "query", "required": name in required}
        plain = dict(schema)
        if "description" in plain:
            parameter["description"] = plain.pop("description")
        found.append(parameter | {"schema": plain})
    return found


def _responses(operation: Operation, schema_of: dict[int, Node]) -> Node:
    wrong: dict[int, list[str]] = {}
    for code in sorted(operation.codes):
        wrong.setdefault(STATUS[code], []).append(code)
    responses: dict[int, Node] = {}
    for status, content in operation.answers.items():
        responses[status] = {"description": _said(content) or "Done."}
        if content is not None:
            responses[status]["content"] = _content(content, schema_of)
    for status in {*wrong, *operation.failures}:
        bodies = (ErrorBody,) if status in wrong else ()
        also = (*bodies, *_several(operation.failures.get(status)))
        responses[status] = {
            "description": ", ".join(f"`{code}`" for code in wrong.get(status, [])) or "The service can't.",
            "content": _content(also, schema_of),
        }
    for status, response in responses.items():
        names = ["X-Request-Id", *_EXTRA_HEADERS.get(status, [])]
        response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    found: Node = {str(status): responses[status] for status in sorted(responses)}
    if operation.anything:
        found["default"] = {"description": "What the program answers.", "content": {"*/*": {}}}
    return found


def _said(content: Content) -> str:
    """Return what there is to say of an answer."""
    first = _several(content)[:1]
    if not first:
        return ""
    return first[0].holds if isinstance(first[0], Media) else _first_line(first[0])


def _first_line(kind: Any) -> str:
    inner = getattr(kind, "__args__", None)
    struct = inner[0] if inner else kind
    text = (getattr(struct, "__doc__", None) or "").partition("\n")[0]
    return f"A list. {text}" if inner else text


def _content(content: Content, schema_of: dict[int, Node]) -> Node:
    """Return the media types of a body, and their schemas."""
    media: dict[str, list[Node]] = {}
    for each in _several(content):
        if isinstance(each, Media):
            media.setdefault(each.kind, []).append(_opaque(each))
        else:
            media.setdefault("application/json", []).append(schema_of[id(each)])
    return {
        kind: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
        for kind, schemas in media.items()
    }


def _opaque(media: Media) -> Node:
    if media.kind == "application/json":
        return {"type": "object"}
    if media.kind.startswith("text/"):
        return {"type": "string", "description": media.holds}
    return {"description": media.holds}
