"""People and what they may do, at a running gateway."""

from __future__ import annotations

import json
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.accounts import PASSWORD, Host, delete, put, running
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
    assert 0.3 < times[0] / times[1] < 3  # a name that is unknown costs a hash too, or it would be 1 to 100


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
