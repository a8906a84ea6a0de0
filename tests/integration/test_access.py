"""What credentials open at a running gateway, and what they don't: keys, tickets, others' pages, guesses."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.accounts import CONFIG, PASSWORD, Host, delete, running
from tests.integration.clients import Client, Terminal
from tests.integration.test_accounts import OTHER, code_of, cookie_of


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with running(tmp_path_factory.mktemp("accounts")) as running_host:
        yield running_host


def test_api_keys(host: Host) -> None:
    client = host.user("xena")
    made = client.post("/api/keys", {"name": "reader", "scopes": ["sessions:read", "files:read"]})
    assert made.status == 201
    text = made.json["api_key"]
    assert text.startswith("octo_sk_") and made.json["key_prefix"] == text[: len(made.json["key_prefix"])]
    (listed,) = client.send("GET", "/api/keys").json["keys"]
    assert text not in json.dumps(listed)
    assert (listed["last_used_at"], listed["scopes"]) == (None, ["sessions:read", "files:read"])
    for headers in ({"Authorization": f"Bearer {text}"}, {"X_API_Key": text}):
        key = Client(host.port)
        assert key.send("GET", "/api/me", **headers).status == 200
        assert key.send("GET", "/api/sessions", **headers).status == 200
        denied = key.send("POST", "/api/sessions", b"{}", **headers)
        assert (denied.status, "sessions:write" in denied.json["error"]) == (403, True)
        for method, path in (("GET", "/api/keys"), ("POST", "/api/keys"), ("PUT", "/api/me")):
            assert key.send(method, path, b"{}", **headers).status == 403
        assert key.send("POST", "/api/auth/change-password", b"{}", **headers).status == 403
    (listed,) = client.send("GET", "/api/keys").json["keys"]
    assert listed["last_used_at"] is not None
    other = host.user("yan")
    assert delete(other, f"/api/keys/{listed['id']}").status == 404
    assert delete(client, f"/api/keys/{listed['id']}").status == 204
    assert Client(host.port, token=text).send("GET", "/api/me").status == 401
    for bad in (
        {"name": ""},
        {"name": "x", "scopes": ["everything"]},
        {"name": "x", "expires_at": "2001-01-01T00:00:00Z"},
        {"name": "x", "expires_at": "2999-01-01T00:00:00"},
    ):
        assert client.post("/api/keys", bad).status == 400
    assert client.post("/api/keys", {"name": "x", "scopes": ["admin"]}).status == 403
    assert client.post("/api/keys", {}).status == 422
    assert client.post("/api/keys", {"name": "x", "expires_at": "2999-01-01T01:00:00+01:00"}).status == 201


def test_the_very_same_request_again_is_judged_again(host: Host) -> None:
    """On one connection, byte for byte: until the key, and until the session is gone."""
    client = host.user("zelda")
    session = client.post("/api/sessions").json
    keys = [client.post("/api/keys", {"name": "k"}).json for _ in range(2)]
    path = f"/api/sessions/{session['id']}/ports/{session['preview_ports'][0]}/"
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)

    def status(key: dict[str, str]) -> tuple[int, bool]:
        connection.request("GET", path, headers={"X-API-Key": key["api_key"]})
        answer = connection.getresponse()
        answer.read()
        return answer.status, connection.sock is not None

    try:
        assert [status(keys[0]) for _ in range(3)] == [(502, True)] * 3  # nothing listens there
        assert delete(client, f"/api/keys/{keys[0]['id']}").status == 204
        assert status(keys[0]) == (401, True)
        assert status(keys[1]) == (502, True)
        assert client.post(f"/api/sessions/{session['id']}/stop").status == 204
        assert delete(client, f"/api/sessions/{session['id']}").status == 204
        assert status(keys[1])[0] == 404
    finally:
        connection.close()


def test_strangers_may_say_less(host: Host) -> None:
    """Before somebody has logged in, a body may have 16 KiB; afterwards 1 MiB."""

    def is_too_large(client: Client, path: str, size: int) -> bool:
        return client.post(path, {"password": "y" * size}).status == 413

    user = host.user("yara")
    assert not is_too_large(host.client(), "/api/auth/login", 15_000)
    assert is_too_large(host.client(), "/api/auth/login", 17_000)
    assert not is_too_large(user, "/api/auth/change-password", 1_000_000)
    assert is_too_large(user, "/api/auth/change-password", 1_100_000)


def test_scopes_hold_on_the_byte_path_too(host: Host) -> None:
    client = host.user("zoe")
    session = client.post("/api/sessions").json
    files = f"/api/sessions/{session['id']}/files"
    reader = Client(
        host.port, token=client.post("/api/keys", {"name": "r", "scopes": ["files:read"]}).json["api_key"]
    )
    assert reader.send("GET", f"{files}/tree?path=.").status == 200
    assert reader.send("PUT", f"{files}/file?path=a.txt", b"x").status == 403
    with pytest.raises(PermissionError):
        Terminal(reader, session["id"])
    typist = Client(
        host.port, token=client.post("/api/keys", {"name": "t", "scopes": ["terminal"]}).json["api_key"]
    )
    terminal = Terminal(typist, session["id"])
    assert terminal.ask("echo here") == "here"
    terminal.close()
    assert typist.send("GET", f"{files}/tree?path=.").status == 403
    everything = Client(host.port, token=client.post("/api/keys", {"name": "e"}).json["api_key"])
    assert everything.send("PUT", f"{files}/file?path=a.txt", b"x").status == 200
    assert everything.send("GET", "/api/admin/users").status == 403
    assert client.post(f"/api/sessions/{session['id']}/stop").status == 204


def upgrade(host: Host, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
    try:
        connection.request(
            "GET",
            path,
            headers={
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
                "Sec-WebSocket-Protocol": "tty",
                **headers,
            },
        )
        return connection.getresponse().status
    finally:
        connection.close()


def test_tickets_and_tokens_in_the_url_of_a_websocket(host: Host) -> None:
    client = host.user("abe")
    session = client.post("/api/sessions").json
    path = f"/api/sessions/{session['id']}/terminal/ws"
    assert upgrade(host, path) == 401
    assert upgrade(host, f"{path}?token={client.token}") == 101
    assert upgrade(host, f"{path}?token=x") == 401
    given = client.post("/api/auth/ticket").json
    assert given["expires_in"] == 30
    assert upgrade(host, f"{path}?ticket={given['ticket']}") == 101
    assert upgrade(host, f"{path}?ticket={given['ticket']}") == 401  # once
    # Anywhere else the URL says nothing.
    for name in ("token", "ticket"):
        value = client.token if name == "token" else client.post("/api/auth/ticket").json["ticket"]
        assert host.client().send("GET", f"/api/me?{name}={value}").status == 401
        assert upgrade(host, f"/api/me?{name}={value}", Upgrade="h2c") == 401
    given = client.post("/api/auth/ticket").json["ticket"]
    assert client.post("/api/auth/logout").status == 204
    assert upgrade(host, f"{path}?ticket={given}") == 401
    assert delete(host.admin, "/api/admin/users/abe").status == 204


def test_pages_of_others(host: Host) -> None:
    login = host.client().log_in("dev", PASSWORD)
    cookie, own = cookie_of(login), f"http://127.0.0.1:{host.port}"
    me = json.dumps({"display_name": "Developer"}).encode()

    def change(origin: str | None) -> int:
        headers = {"Cookie": cookie} | ({"Origin": origin} if origin is not None else {})
        return Client(host.port).send("PUT", "/api/me", me, **headers).status

    assert (change(own), change("https://ui.example")) == (200, 200)
    port = host.port + 1
    for origin in (
        None,
        "null",
        "https://evil.example",
        f"http://127.0.0.1:{port}",
        "https://ui.example.evil.example",
        f"http://127.0.0.1:{host.port}@evil.example",
        "",
        "https://ui.example:444",
        f"{own}/x",
    ):
        assert change(origin) == 403, origin
    for origin in ("null", "https://evil.example", f"http://127.0.0.1:{port}"):
        assert upgrade(host, "/api/sessions/x/terminal/ws", Cookie=cookie, Origin=origin) == 403
        assert upgrade(host, f"/api/sessions/x/terminal/ws?token={login.json['token']}", Origin=origin) == 403
        body = {"username": "dev", "password": PASSWORD}
        assert host.client(Origin=origin).post("/api/auth/login", body).status == 403
    assert upgrade(host, "/api/sessions/x/terminal/ws", Cookie=cookie) == 403  # no page at all
    assert upgrade(host, "/api/sessions/x/terminal/ws", Cookie=cookie, Origin=own) == 404


def test_what_pages_of_others_may_read(host: Host) -> None:
    client = host.logged_in()
    allowed = client.send("GET", "/api/me", Origin="https://ui.example").headers
    assert allowed["access-control-allow-origin"] == "https://ui.example"
    assert allowed["access-control-allow-credentials"] == "true"
    assert (
        "access-control-allow-origin"
        not in client.send("GET", "/api/me", Origin="https://evil.example").headers
    )
    preflight = host.client().send("OPTIONS", "/api/keys", Origin="https://ui.example")
    assert (preflight.status, "POST" in preflight.headers["access-control-allow-methods"]) == (204, True)
    assert host.client().send("OPTIONS", "/api/keys", Origin="https://evil.example").status == 403


@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "0.0.0.0"]
)
def test_a_name_that_was_rebound(host: Host, name: str) -> None:
    refused = 400 if "@" in name else 403  # the former is no name at all
    for path in ("/", "/api/health", "/api/me"):
        assert host.logged_in().send("GET", path, Host=name).status == refused


def test_guessing_becomes_slow(host: Host) -> None:
    host.user("bea")
    attacker, owner = host.client(), host.client()
    answers = [attacker.log_in("bea", f"guess number {number}") for number in range(12)]
    statuses = [answer.status for answer in answers]
    assert statuses[:5] == [401] * 5
    assert 429 in statuses[5:]
    refused = next(answer for answer in answers if answer.status == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert code_of(refused) == "too_many_requests"
    waiting = attacker.log_in("bea", PASSWORD)
    assert waiting.status in (429, 200)
    assert owner.log_in("bea", PASSWORD).status == 200  # who is elsewhere is not locked out


def test_guesses_made_side_by_side_count(host: Host) -> None:
    host.user("cal")
    attacker = host.client()
    statuses: list[int] = []

    def guess(number: int) -> None:
        statuses.append(attacker.log_in("cal", f"guess number {number}").status)

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 8


def test_addresses_come_from_trusted_proxies_only(tmp_path: Path) -> None:
    config = CONFIG.replace('trusted_proxies = ["127.0.0.1"]', "")
    with running(tmp_path, config) as host:
        for number in range(8):
            answer = host.client().log_in("dev", f"guess number {number}")  # each says that it is elsewhere
        assert answer.status == 429


ROUTES = [
    ("GET", "/api/me"),
    ("PUT", "/api/me"),
    ("GET", "/api/keys"),
    ("POST", "/api/keys"),
    ("DELETE", "/api/keys/x"),
    ("POST", "/api/auth/logout"),
    ("POST", "/api/auth/change-password"),
    ("POST", "/api/auth/ticket"),
    ("GET", "/api/sessions"),
    ("POST", "/api/sessions"),
    ("POST", "/api/sessions/get-or-create"),
    ("GET", "/api/sessions/x"),
    ("DELETE", "/api/sessions/x"),
    ("POST", "/api/sessions/x/stop"),
    ("GET", "/api/sessions/x/events"),
    ("GET", "/api/sessions/x/terminal/"),
    ("GET", "/api/sessions/x/files/tree"),
    ("PUT", "/api/sessions/x/files/file"),
    ("GET", "/api/sessions/x/ports/80/"),
]
ADMIN_ROUTES = [
    ("GET", "/api/admin/users"),
    ("POST", "/api/admin/users"),
    ("GET", "/api/admin/users/stats"),
    ("GET", "/api/admin/users/dev"),
    ("PUT", "/api/admin/users/dev"),
    ("DELETE", "/api/admin/users/dev"),
    ("POST", "/api/admin/users/dev/disable"),
    ("POST", "/api/admin/users/dev/password"),
    ("POST", "/api/admin/users/dev/keys"),
    ("GET", "/api/admin/sessions"),
    ("DELETE", "/api/admin/sessions/x"),
    ("GET", "/api/admin/stats"),
    ("GET", "/api/admin/metrics"),
    ("GET", "/api/admin/invite-codes"),
    ("POST", "/api/admin/invite-codes"),
    ("GET", "/api/admin/nothing"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES + ADMIN_ROUTES)
def test_nobody_gets_in(host: Host, method: str, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer x"},
        {"X_API_Key": "octo_sk_x"},
        {"Authorization": "Basic eDp4"},
    ):
        answer = host.client().send(method, path, b"{}", **headers)
        assert (answer.status, code_of(answer)) == (401, "unauthorized")


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
def test_only_administrators_administer(host: Host, method: str, path: str) -> None:
    assert host.logged_in().send(method, path, b"{}").status == 403
    key = host.admin.post("/api/keys", {"name": "not for that", "scopes": ["sessions:read"]}).json
    assert Client(host.port, token=key["api_key"]).send(method, path, b"{}").status == 403
    assert delete(host.admin, f"/api/keys/{key['id']}").status == 204


def test_what_administrators_see(host: Host) -> None:
    assert {"root", "dev"} <= {user["id"] for user in host.admin.send("GET", "/api/admin/users").json}
    assert isinstance(host.admin.send("GET", "/api/admin/sessions").json, list)
    assert set(host.admin.send("GET", "/api/admin/stats").json) == {"version", "users", "sessions", "audit"}
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
    connection.request("GET", "/api/admin/metrics", headers={"Authorization": f"Bearer {host.admin.token}"})
    response = connection.getresponse()
    line = response.readline()
    snapshot = json.loads(line.removeprefix(b"data: "))
    connection.close()
    assert snapshot["host"]["mem_total_bytes"] > 0 and snapshot["error"] is None


def test_deep_health(host: Host) -> None:
    answer = host.client().send("GET", "/api/health?deep=1").json
    assert answer["status"] == "ok"
    assert {name: check["status"] for name, check in answer["checks"].items()} == {
        "database": "ok",
        "disk": "ok",
        "audit": "ok",
    }


def test_what_the_file_says_is_applied_when_the_file_changes(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        client = host.logged_in()
        change = {"current_password": PASSWORD, "new_password": OTHER}
        assert client.post("/api/auth/change-password", change).status == 204
        made = host.admin.post("/api/admin/users", {"username": "kim", "password": PASSWORD})
        assert made.status == 201
        assert host.admin.post("/api/admin/users/dev/disable").status == 200
        assert host.admin.post("/api/admin/users/dev/enable").status == 200
    with running(tmp_path) as host:
        assert host.client().log_in("dev", OTHER).status == 200
        token = host.logged_in("dev", OTHER).token
        assert host.admin.post("/api/admin/users/dev/disable").status == 200
    with running(tmp_path) as host:
        assert host.client().log_in("dev", OTHER).status == 401  # disabled for good
        assert Client(host.port, token=token).send("GET", "/api/me").status == 401
    without_dev = CONFIG[: CONFIG.rindex("[[auth.dev_users]]")]
    with running(tmp_path, without_dev) as host:
        assert host.admin.post("/api/admin/users/dev/enable").status == 409
    with running(tmp_path) as host:
        assert host.client().log_in("dev", PASSWORD).status == 200  # new in the file: as the file says
    clash = CONFIG.replace('id = "dev"', 'id = "kim"')
    with pytest.raises(AssertionError, match=r"(?s)ended with 3.*auth.dev_users: kim"):
        with running(tmp_path, clash):
            pass


def test_production_wants_tls_for_its_cookie(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        assert host.admin.post("/api/admin/users", {"username": "lee", "password": PASSWORD}).status == 201
    config = CONFIG[: CONFIG.index("[[auth.dev_users]]")].replace("[auth]", "[auth]\ndev_mode = false")
    with running(tmp_path, config) as host:
        answer = host.client().log_in("lee", PASSWORD)
        assert answer.status == 200
        assert "secure" in answer.headers["set-cookie"].lower()
        assert host.client().log_in("root", PASSWORD).status == 401  # dev users are for dev mode
        assert host.client().send("GET", "/api/health", Host="oqto.example.com").status == 200


def test_hostile_bodies(host: Host) -> None:
    for raw in (
        b"{",
        b"[]",
        b"\xff",
        b'{"username": 1, "password": []}',
        b"[" * 10_000,
        b'{"username":"\\ud800"}',
    ):
        for path in ("/api/auth/login", "/api/auth/register"):
            assert host.client().send("POST", path, raw).status in (400, 422)
    for size, status in ((12_000, 401), (900_000, 413)):
        for guess in ({"username": "dev", "password": "x" * size}, {"username": "x" * size, "password": "y"}):
            assert host.client().post("/api/auth/login", guess).status == status
