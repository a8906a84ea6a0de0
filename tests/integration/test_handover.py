"""/api/gateway/authorize, as a reverse proxy asks it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration import accounts
from tests.integration.preview_app import POLICY, app

AUTHORIZE = "/api/gateway/authorize"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[accounts.Host]:
    with accounts.running(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def developer(host: accounts.Host) -> Iterator[tuple[accounts.Client, dict[str, Any]]]:
    client = host.logged_in()
    session = client.post("/api/sessions").json
    yield client, session
    assert client.post(f"/api/sessions/{session['id']}/stop").status == 204


def test_tells_where_to_go(developer: tuple[accounts.Client, dict[str, Any]], host: accounts.Host) -> None:
    client, session = developer
    port = session["preview_ports"][0]
    uri = f"/api/sessions/{session['id']}/ports/{port}"
    with app(port):
        answer = ask(client, "GET", f"{uri}/x%2F?a=b&c")
        assert answer.status == 204
        told = {name: value for name, value in answer.headers.items() if name.startswith("x-oqto-")}
        assert told == {
            "x-oqto-upstream": f"127.0.0.1:{port}",
            "x-oqto-path": "/x%2F?a=b&c",
            "x-oqto-prefix": uri,
            "x-oqto-policy": POLICY,
        }
        assert ask(client, "DELETE", uri).headers["x-oqto-path"] == "/"
        assert ask(host.admin, "GET", uri).status == 404
        assert ask(host.client(), "GET", uri).status == 401
        cookie = {"Cookie": f"auth_token={client.token}"}
        assert ask(host.client(**cookie), "GET", uri).status == 204
        assert ask(host.client(**cookie), "POST", uri).status == 403  # no Origin
        key = client.post("/api/keys", {"name": "files only", "scopes": ["files:read"]}).json["api_key"]
        answer = ask(host.client(**{"X-API-Key": key}), "GET", uri)
        assert answer.status == 403
        denied = host.audited(answer.headers["x-request-id"])
        assert (denied["event"], denied["method"], denied["path"]) == ("request.denied", "GET", uri)
        assert denied["session_id"] == session["id"]


@pytest.mark.parametrize(
    "uri",
    [
        "/api/me",
        "/api/sessions/{id}",
        "/api/sessions/{id}/terminal/ws",
        "/api/sessions/{id}/files/tree",
        "/api/sessions/{id}/%70orts/{port}/",
        "/api/sessions/{id}/ports/{port}@127.0.0.1:80/",
        "/api/sessions/{id}/ports/{port}/%0d%0aX-Oqto-Upstream:%20x",
        "/api/sessions/{id}/ports/{port}/?x=1&%74oken=secret",
        "http://evil.example/api/sessions/{id}/ports/{port}/",
        "//api/sessions/{id}/ports/{port}/",
        "",
    ],
)
def test_hands_over_nothing_else(developer: tuple[accounts.Client, dict[str, Any]], uri: str) -> None:
    client, session = developer
    port = session["preview_ports"][0]
    with app(port):
        answer = ask(client, "GET", uri.format(id=session["id"], port=port))
    assert answer.status == 404
    assert "x-oqto-upstream" not in answer.headers


def test_is_for_proxies_only(developer: tuple[accounts.Client, dict[str, Any]], host: accounts.Host) -> None:
    client, session = developer
    port = session["preview_ports"][0]
    uri = f"/api/sessions/{session['id']}/ports/{port}/"
    with app(port):
        assert client.send("GET", AUTHORIZE, X_Forwarded_Uri=uri, X_Forwarded_Method="GET").status == 404
        assert ask(client, "OPTIONS", uri).status == 404
        assert ask(client, "GET", uri, Upgrade="websocket").status == 404
        # An address that is the preview's in another spelling reaches the API, and tells nothing.
        assert client.send("GET", uri.replace("ports", "%70orts")).status == 404


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a program as somebody else")
def test_another_accounts_program_is_no_place_to_go(
    developer: tuple[accounts.Client, dict[str, Any]],
) -> None:
    client, session = developer
    port = session["preview_ports"][0]
    os.seteuid(65534)  # a socket belongs to whom made it
    try:
        foreign = socket.create_server(("127.0.0.1", port))
    finally:
        os.seteuid(0)
    with foreign:
        assert ask(client, "GET", f"/api/sessions/{session['id']}/ports/{port}/").status == 403


def ask(client: accounts.Client, method: str, uri: str, **more: str) -> accounts.Answer:
    """Ask as a proxy does whose client is at https."""
    return client.send(
        "GET",
        AUTHORIZE,
        X_Forwarded_Proto="https",
        X_Forwarded_Method=method,
        X_Forwarded_Uri=uri,
        **more,
    )
