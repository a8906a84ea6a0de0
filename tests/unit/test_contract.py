"""The API's description: all that is served is in it, and it says what the code does."""

from __future__ import annotations

import ast
import inspect
import textwrap
import time
from typing import Any, cast

import msgspec
import pytest
from starlette.routing import Route

from oqtod.accounts import invites, keys, users
from oqtod.api import handover, openapi, views
from oqtod.api.application import Api
from oqtod.api.contract import PARAMETERS, Endpoint, Operation
from oqtod.api.proxied import PROXIED
from oqtod.errors import STATUS, ErrorBody, Refusal
from oqtod.sessions.context import Gateway


class Unused:
    """A gateway that no request reaches: what making the routes takes of it."""

    audit = None
    sessions = None


def api_routes() -> list[Endpoint]:
    return Api(cast(Gateway, Unused()), None).routes()


ROUTES = api_routes()
OPERATIONS = [*(route.operation for route in ROUTES), *PROXIED]
DOCUMENT = openapi.document(OPERATIONS)


def name_of(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def test_every_route_is_described() -> None:
    served = Api(cast(Gateway, Unused()), None).application()
    handed_over = {route.path for route in handover.Handover(cast(Gateway, Unused())).previews()}
    routes = {
        (method, route.path)
        for route in served.routes
        if isinstance(route, Route) and route.path not in handed_over
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(operation.method, operation.path) for operation in OPERATIONS}
    assert routes == {(route.operation.method, route.operation.path) for route in ROUTES}
    assert routes <= described
    assert len(described) == len(OPERATIONS), "something is described twice"
    listed = {
        (method.upper(), path)
        for path, node in DOCUMENT["paths"].items()
        for method in node
        if method != "parameters"
    }
    assert listed == described


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: name_of(route.operation))
def test_the_handler_decodes_what_is_described(route: Endpoint) -> None:
    """`requests.body` and `requests.query` are called with the types that the description has."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(route.endpoint)))
    decoded: dict[str, str | None] = {"body": None, "query": None}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in decoded:
            decoded[node.func.id] = ast.unparse(node.args[1]).rpartition(".")[2]
    operation = route.operation
    for call, kind in (("body", operation.takes), ("query", operation.asks)):
        assert decoded[call] == (kind.__name__ if isinstance(kind, type) else None), call


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
def test_descriptions_can_be_read(operation: Operation) -> None:
    summary = operation.text.partition("\n")[0]
    assert summary.endswith(".") and len(summary) < 110
    assert operation.answers or operation.anything


def test_queries_know_no_null() -> None:
    """Else `?name=null` would be taken for none, and a description would have to say so."""
    for operation in OPERATIONS:
        if operation.asks is not None:
            asked = msgspec.inspect.type_info(operation.asks)
            assert isinstance(asked, msgspec.inspect.StructType)
            for field in asked.fields:
                kinds = getattr(field.type, "types", (field.type,))
                assert not any(isinstance(kind, msgspec.inspect.NoneType) for kind in kinds), field.name


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        found = {node["$ref"]} if "$ref" in node else set()
        return found.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()


def test_the_document_is_whole() -> None:
    for reference in references(DOCUMENT):
        node: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    names = [
        node[method]["operationId"]
        for node in DOCUMENT["paths"].values()
        for method in node
        if method != "parameters"
    ]
    assert len(set(names)) == len(names)
    used = references(DOCUMENT["paths"]) | references(DOCUMENT["components"])
    for name, struct in DOCUMENT["components"]["schemas"].items():
        assert f"#/components/schemas/{name}" in used, name
        assert struct.get("description"), name
    braces = {part[1:-1] for path in DOCUMENT["paths"] for part in path.split("/") if part.startswith("{")}
    assert braces == set(PARAMETERS)


def test_it_is_made_quickly() -> None:
    times = []
    for _ in range(5):
        begun = time.process_time()
        msgspec.json.encode(openapi.document(OPERATIONS))
        times.append(time.process_time() - begun)
    assert min(times) < 0.2  # about 0.01 where nothing else runs


def test_errors_have_one_shape() -> None:
    for code, status in STATUS.items():
        body = Refusal(code, "what", "do").body("id")
        assert body == {
            "error": "what",
            "code": code.upper(),
            "error_code": code,
            "request_id": "id",
            "hint": "do",
        }
        assert msgspec.convert(body, ErrorBody).error_code == code
        assert 400 <= status < 600
    assert "hint" not in Refusal("not_found", "what").body("id")


USER = users.User(
    id="u",
    username="U",
    email="u@example.com",
    display_name="You",
    avatar_url=None,
    role="user",
    is_active=True,
    password_hash="$2b$secret",
    origin="database",
    generation=7,
    tokens_since=7,
    created_at="2030-01-01T00:00:00.000000Z",
    last_login_at=None,
)
SHOWN = {
    "id": "u",
    "username": "U",
    "email": "u@example.com",
    "display_name": "You",
    "avatar_url": None,
    "role": "user",
    "is_active": True,
    "created_at": "2030-01-01T00:00:00.000000Z",
    "last_login_at": None,
}


def test_users_are_shown_as_ever() -> None:
    assert msgspec.to_builtins(views.user(USER)) == SHOWN
    assert msgspec.to_builtins(views.user_in_brief(USER)) == {
        "id": "u",
        "name": "You",
        "email": "u@example.com",
        "role": "user",
    }
    seen = views.admin_user(USER, is_leaving=False, live_sessions=2, linux_user=None)
    more = {
        "origin": "database",
        "has_password": True,
        "is_leaving": False,
        "live_sessions": 2,
        "linux_user": None,
    }
    assert msgspec.to_builtins(seen) == SHOWN | more
    provisioned = msgspec.structs.replace(seen, linux_user="oqto_u", uid=7)
    assert msgspec.to_builtins(provisioned) == SHOWN | more | {"linux_user": "oqto_u", "uid": 7}


def test_keys_and_invites_are_shown_as_ever() -> None:
    key = keys.ApiKey("k", "u", "mine", "octo_sk_abc", ["terminal"], "2030", None, None, None)
    shown = {
        "id": "k",
        "name": "mine",
        "key_prefix": "octo_sk_abc",
        "scopes": ["terminal"],
        "last_used_at": None,
        "expires_at": None,
        "created_at": "2030",
        "revoked_at": None,
    }
    assert msgspec.to_builtins(views.api_key(key)) == shown
    assert msgspec.to_builtins(views.made_api_key(key, "octo_sk_abcdef")) == shown | {
        "api_key": "octo_sk_abcdef"
    }
    invite = invites.Invite("i", "ABCD", None, "root", "2030", None, 2, 1, None)
    seen = msgspec.to_builtins(views.invite(invite))
    assert seen == {
        "id": "i",
        "code": "ABCD…",
        "created_by": "root",
        "uses_remaining": 1,
        "max_uses": 2,
        "expires_at": None,
        "created_at": "2030",
        "is_valid": True,
        "revoked_at": None,
        "note": None,
    }
    assert msgspec.to_builtins(views.invite(invite, code="ABCD-1"))["code"] == "ABCD-1"


SESSION_FIELDS = set(
    """
    id readable_id container_id container_name user_id workspace_path agent image image_digest agent_port
    fileserver_port ttyd_port eavs_port agent_base_port preview_ports stream_port max_agents eavs_key_id
    eavs_key_hash status runtime_mode created_at started_at stopped_at last_activity_at idle_at busy
    error_message linux_user services limits usage urls
    """.split()  # noqa: SIM905  shorter than a list
)
"""What the web UI knows of a session; fields may be added."""


def test_sessions_have_all_their_fields() -> None:
    assert set(views.Session.__struct_fields__) >= SESSION_FIELDS
    struct = DOCUMENT["components"]["schemas"]["Session"]
    assert set(struct["required"]) >= SESSION_FIELDS
