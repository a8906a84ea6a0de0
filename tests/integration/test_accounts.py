"""People and what they may do, at a running gateway."""

from __future__ import annotations

import http.client
import json
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.accounts import CONFIG, PASSWORD, Host, delete, put, running
from tests.integration.clients import Answer, Client, Terminal

OTHER = "another horse, more staples"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with running(tmp_path_factory.mktemp("accounts")) as running_host:
        yield running_host


def code_of(answer: Answer) -> str:
    code: str = answer.json["error_code"]
    return code


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


def test_what_a_login_answers(host: Host) -> None:
    client = host.client()
    answer = client.log_in("dev", PASSWORD)
    assert answer.json["user"] == {
        "id": "dev",
        "name": "Developer",
        "email": "dev@example.com",
        "role": "user",
    }
    cookie = answer.headers["set-cookie"].lower()
    assert all(
        part in cookie for part in ("auth_token=", "httponly", "samesite=lax", "path=/", "max-age=86400")
    )
    assert "secure" not in cookie  # dev mode
    payload = answer.json["token"].split(".")[1]
    claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert {"sub", "email", "name", "preferred_username", "role", "roles", "iat", "exp", "jti"} <= set(claims)
    assert claims["exp"] - claims["iat"] == 24 * 3600
    me = client.send("GET", "/api/me").json
    assert (me["id"], me["username"], me["is_active"]) == ("dev", "dev", True)
    assert me["last_login_at"] is not None
    assert host.client().log_in("DEV@example.com", PASSWORD).status == 200


def test_an_old_hash_is_renewed_at_a_login(host: Host) -> None:
    import sqlite3

    host.logged_in("dev")
    with sqlite3.connect(f"file:{host.folder}/data/oqto/oqto.db?mode=ro", uri=True) as database:
        (hashed,) = database.execute("SELECT password_hash FROM users WHERE id = 'dev'").fetchone()
    database.close()
    assert hashed.startswith("$2b$12$")


def test_unknown_and_wrong_get_one_answer_in_the_same_time(host: Host) -> None:
    host.user("timed")
    answers, times = [], []
    for name in ("timed", "nobody-there"):
        client = host.client()
        took = []
        for _ in range(3):
            begun = time.perf_counter()
            answers.append(client.log_in(name, "wrong horse"))
            took.append(time.perf_counter() - begun)
        times.append(min(took))
    assert {answer.status for answer in answers} == {401}
    assert len({answer.json["error"] for answer in answers}) == 1
    assert 0.6 < times[0] / times[1] < 1.7


def test_logging_out_voids_the_token(host: Host) -> None:
    first, second = host.logged_in(), host.logged_in()
    assert first.post("/api/auth/logout").status == 204
    assert first.send("GET", "/api/me").status == 401
    assert second.send("GET", "/api/me").status == 200


def test_another_password_voids_every_token(host: Host) -> None:
    first = host.user("pia")
    second = host.logged_in("pia")
    key = first.post("/api/keys", {"name": "k"}).json["api_key"]

    def change(current: str, new: str) -> Answer:
        return first.post("/api/auth/change-password", {"current_password": current, "new_password": new})

    assert (change("wrong horse", OTHER).status, change(PASSWORD, "short").status) == (403, 400)
    assert change(PASSWORD, "password123").status == 400
    assert change(PASSWORD, OTHER).status == 204
    assert [x.send("GET", "/api/me").status for x in (first, second)] == [401, 401]
    assert Client(host.port, token=key).send("GET", "/api/me").status == 200
    assert host.client().log_in("pia", PASSWORD).status == 401
    assert host.client().log_in("pia", OTHER).status == 200


def test_what_an_administrator_does_counts_at_once(host: Host) -> None:
    client = host.user("quinn")
    path = "/api/admin/users/quinn"
    assert client.send("GET", "/api/admin/users").status == 403
    assert put(host.admin, path, {"role": "admin"}).json["role"] == "admin"
    assert client.send("GET", "/api/me").status == 401  # another role, another token
    client = host.logged_in("quinn")
    assert client.send("GET", "/api/admin/users").status == 200
    key = client.post("/api/keys", {"name": "all", "scopes": ["admin"]}).json["api_key"]
    by_key = Client(host.port, token=key)
    assert by_key.send("GET", "/api/admin/users").status == 200
    assert put(host.admin, path, {"role": "user"}).status == 200
    assert by_key.send("GET", "/api/admin/users").status == 403
    client = host.logged_in("quinn")
    assert host.admin.post(f"{path}/password", {"password": OTHER}).status == 204
    assert client.send("GET", "/api/me").status == 401
    client = host.logged_in("quinn", OTHER)
    assert host.admin.post(f"{path}/disable").json["is_active"] is False
    assert (client.send("GET", "/api/me").status, by_key.send("GET", "/api/me").status) == (401, 401)
    assert host.client().log_in("quinn", OTHER).status == 401
    assert host.admin.post(f"{path}/enable").json["is_active"] is True
    assert (client.send("GET", "/api/me").status, by_key.send("GET", "/api/me").status) == (401, 401)
    client = host.logged_in("quinn", OTHER)
    assert delete(host.admin, path).status == 204
    assert client.send("GET", "/api/me").status == 401
    assert host.admin.send("GET", path).status == 404
    host.user("quinn")  # the name is free again, and opens nothing of the one before
    assert (client.send("GET", "/api/me").status, by_key.send("GET", "/api/me").status) == (401, 401)


def test_disabling_ends_what_runs(host: Host) -> None:
    client = host.user("rae")
    session = client.post("/api/sessions").json
    terminal = Terminal(client, session["id"])
    assert terminal.ask("echo here") == "here"
    assert host.admin.post("/api/admin/users/rae/deactivate").status == 200
    with pytest.raises((EOFError, OSError)):
        terminal.ask("echo still here")
    terminal.close()
    listed = host.admin.send("GET", "/api/admin/sessions?user=rae").json
    assert [x["status"] for x in listed] == ["stopped"]
    assert delete(host.admin, "/api/admin/users/rae").status == 204
    assert host.admin.send("GET", f"/api/admin/sessions/{session['id']}").status == 404


def test_logging_out_cuts_an_open_terminal(host: Host) -> None:
    client = host.user("sid")
    session = client.post("/api/sessions").json
    terminal = Terminal(client, session["id"])
    assert terminal.ask("echo here") == "here"
    client.post("/api/auth/logout")
    with pytest.raises((EOFError, OSError)):
        terminal.ask("echo still here")
    terminal.close()
    assert delete(host.admin, "/api/admin/users/sid").status == 204


BAD_USERS: dict[str, dict[str, Any]] = {
    "option": {"username": "-rf"},
    "command": {"username": "$(id)"},
    "newline": {"username": "a\nb"},
    "NUL": {"username": "a\0b"},
    "slash": {"username": "../root"},
    "empty": {"username": ""},
    "long": {"username": "x" * 33},
    "unicode": {"username": "аlice"},
    "address": {"username": "fine1", "email": "not one"},
    "name": {"username": "fine2", "display_name": "a\x1b[31m"},
    "password": {"username": "fine3", "password": "1234567"},
    "common": {"username": "fine4", "password": "Password1"},
    "own name": {"username": "fine5-fine5", "password": "Fine5-fine5"},
}


@pytest.mark.parametrize("fields", list(BAD_USERS.values()), ids=list(BAD_USERS))
def test_users_that_cant_be(host: Host, fields: dict[str, Any]) -> None:
    answer = host.admin.post("/api/admin/users", {"password": PASSWORD, **fields})
    assert (answer.status, code_of(answer)) == (400, "bad_request")


def test_names_and_addresses_are_unique_in_any_case(host: Host) -> None:
    host.user("Tess", email="tess@example.com")
    for fields in ({"username": "tESS"}, {"username": "tess2", "email": "TESS@example.com"}):
        assert host.admin.post("/api/admin/users", fields).status == 409
    assert put(host.admin, "/api/admin/users/tess", {"username": "dev"}).status == 409
    assert put(host.admin, "/api/admin/users/tess", {"username": "tessa"}).json["id"] == "tess"
    stats = host.admin.send("GET", "/api/admin/users/stats").json
    assert set(stats) == {"total", "active", "admins", "users", "services"}


def test_administrators_dont_shut_themselves_out(host: Host) -> None:
    for answer in (
        delete(host.admin, "/api/admin/users/root"),
        host.admin.post("/api/admin/users/root/disable"),
        put(host.admin, "/api/admin/users/root", {"role": "user"}),
        put(host.admin, "/api/admin/users/root", {"is_active": False}),
    ):
        assert answer.status == 409
    assert delete(host.admin, "/api/admin/users/dev").status == 409  # stands in the configuration


def invite(host: Host, **fields: Any) -> dict[str, Any]:
    made = host.admin.post("/api/admin/invite-codes", fields)
    assert made.status == 201, made.body
    answer: dict[str, Any] = made.json
    return answer


def register(client: Client, username: str, code: str, **fields: Any) -> Answer:
    body = {
        "username": username,
        "email": f"{username}@example.com",
        "password": PASSWORD,
        "invite_code": code,
    }
    return client.post("/api/auth/register", body | fields)


def test_registering_with_an_invite(host: Host) -> None:
    made = invite(host, note="for Uma")
    assert made["is_valid"] and (made["uses_remaining"], made["max_uses"]) == (1, 1)
    client = host.client()
    # What can't be gives the code back.
    assert register(client, "uma", made["code"], password="12345678").status == 400
    assert register(client, "dev", made["code"]).status == 409
    assert register(client, "um", made["code"], email="dev@example.com").status == 409
    answer = register(client, "uma", made["code"].lower())
    assert answer.status == 201
    assert answer.json["user"]["role"] == "user"
    assert Client(host.port, token=answer.json["token"]).send("GET", "/api/me").status == 200
    listed = {x["id"]: x for x in host.admin.send("GET", "/api/admin/invite-codes").json}
    assert (listed[made["id"]]["uses_remaining"], listed[made["id"]]["is_valid"]) == (0, False)
    assert made["code"] not in listed[made["id"]]["code"]


def test_every_bad_code_gets_one_answer(host: Host) -> None:
    used, revoked = invite(host), invite(host)
    assert register(host.client(), "vic", used["code"]).status == 201
    assert host.admin.post(f"/api/admin/invite-codes/{revoked['id']}/revoke").json["is_valid"] is False
    expired = invite(host, expires_in_secs=1)
    deadline = time.monotonic() + 5
    while host.admin.send("GET", f"/api/admin/invite-codes/{expired['id']}").json["is_valid"]:
        assert time.monotonic() < deadline
    codes = (used["code"], revoked["code"], expired["code"], "no-such-code", "")
    answers = [register(host.client(), "wes", code) for code in codes]
    assert {answer.status for answer in answers} == {400}
    assert len({(answer.json["error"], answer.json["hint"]) for answer in answers}) == 1


def test_a_code_for_one_makes_one(host: Host) -> None:
    made = invite(host)
    answers: list[int] = []

    def run(number: int) -> None:
        answers.append(register(host.client(), f"racer{number}", made["code"]).status)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] + [400] * 7


def test_batches_of_invites(host: Host) -> None:
    answer = host.admin.post(
        "/api/admin/invite-codes/batch", {"count": 3, "uses_per_code": 2, "prefix": "class"}
    )
    assert answer.status == 201
    assert len({x["code"] for x in answer.json}) == 3
    assert all(x["code"].startswith("CLASS-") for x in answer.json)
    code = answer.json[0]["code"]
    assert [register(host.client(), f"pupil{n}", code).status for n in range(3)] == [201, 201, 400]
    for bad in ({"count": 0}, {"count": 10**6}, {"count": 1, "uses_per_code": 0}):
        assert host.admin.post("/api/admin/invite-codes/batch", bad).status == 400
    assert delete(host.admin, f"/api/admin/invite-codes/{answer.json[1]['id']}").status == 204


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
    for path in ("/", "/api/health", "/api/me"):
        assert host.logged_in().send("GET", path, Host=name).status == 403


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
    answer = host.client().post("/api/auth/login", {"username": "dev", "password": "x" * 900_000})
    assert answer.status == 401
    assert host.client().post("/api/auth/login", {"username": "x" * 900_000, "password": "y"}).status == 401
