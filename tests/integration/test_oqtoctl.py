"""Every command of oqtoctl with a real gateway in personal mode: what it does, prints, and exits with."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import accounts
from tests.integration.accounts import CONFIG, PASSWORD, Host
from tests.integration.clients import Terminal
from tests.integration.oqtoctl import OQTOCTL, Oqtoctl

SHAPE_OF_SESSION = {"id", "readable_id", "user_id", "status", "services", "usage", "linux_user", "urls"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with accounts.running(tmp_path_factory.mktemp("oqtoctl")) as started:
        yield started


@pytest.fixture(scope="module")
def oqtoctl(host: Host) -> Oqtoctl:
    return Oqtoctl(host.folder)


@pytest.fixture
def session(host: Host, oqtoctl: Oqtoctl) -> Iterator[str]:
    """A running session of dev, by its readable id."""
    made = host.logged_in().post("/api/sessions").json
    yield made["readable_id"]
    if oqtoctl.run("session", "show", made["id"]).code == 0:
        oqtoctl("session", "delete", made["id"], "--yes")


def audit(host: Host, oqtoctl: Oqtoctl, event: str) -> list[dict[str, object]]:
    """Lines of the audit log about this event, once the present ones are written."""
    oqtoctl("status")
    return [line for line in host.audit() if line["event"] == event]


def test_the_socket_is_found_and_is_its_owners_alone(host: Host, oqtoctl: Oqtoctl) -> None:
    path = host.folder / "state/oqto/oqtoctl.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = oqtoctl.program("status")
    assert found.code == 0
    assert oqtoctl("status", "--admin-socket", str(path)).out == found.out
    assert oqtoctl("status", OQTO_ADMIN_SOCKET=str(path), OQTO_SERVER_URL="http://127.0.0.1:1").code == 0


def test_status(oqtoctl: Oqtoctl) -> None:
    lines = dict(line.split(None, 1) for line in oqtoctl("status").out.splitlines())
    assert lines["status"] == "ok"
    assert lines["database"] == "ok"
    found = oqtoctl("status", "--json").json
    assert found["health"]["status"] == "ok"
    assert {"users", "sessions", "version", "audit"} <= set(found["stats"])


def test_a_user_from_the_first_day_to_the_last(host: Host, oqtoctl: Oqtoctl) -> None:
    words = ("user", "create", "eve", "--email", "eve@example.org", "--display-name", "Eve", "--json")
    made = oqtoctl(*words, "--password-stdin", stdin=f"{PASSWORD}\n").json
    assert (made["username"], made["email"], made["role"]) == ("eve", "eve@example.org", "user")
    assert host.logged_in("eve").send("GET", "/api/me").status == 200

    listed = next(row for row in oqtoctl("user", "list").rows if row[0] == "eve")
    assert listed[1:5] == [made["id"], "user", "yes", "eve@example.org"]
    assert made["id"] in [user["id"] for user in oqtoctl("user", "list", "--json").json]
    assert oqtoctl("user", "show", "EVE", "--json").json["display_name"] == "Eve"
    assert "eve@example.org" in oqtoctl("user", "show", made["id"]).out

    assert "eve" in oqtoctl("user", "set-password", "eve", stdin="another horse of wood\n").out
    assert host.client().log_in("eve", PASSWORD).status == 401
    eve = host.logged_in("eve", "another horse of wood")
    assert oqtoctl("user", "set-role", "eve", "admin", "--json").json["role"] == "admin"
    assert eve.send("GET", "/api/me").status == 401  # another role voids all tokens
    assert oqtoctl("user", "disable", "eve", "--json").json["is_active"] is False
    assert host.client().log_in("eve", "another horse of wood").status == 401
    assert oqtoctl("user", "enable", "eve").out == "eve may log in again\n"
    assert host.client().log_in("eve", "another horse of wood").status == 200

    gone = oqtoctl("user", "delete", "eve", "--yes", "--json")
    assert (gone.out, gone.err) == ("", "")
    assert oqtoctl.run("user", "show", "eve").code == 1
    told = [line["event"] for line in host.audit() if line.get("detail", "").startswith(made["id"])]
    for event in ("user.create", "user.update", "user.disable", "user.enable"):
        assert event in told
    (deleted,) = [x for x in audit(host, oqtoctl, "user.delete") if x["detail"] == made["id"]]
    assert deleted["actor"] == {"kind": "socket", "uid": os.getuid()}


CSV = """\
username,email,password,display_name,role
ann,ann@example.org,a staple for ann,Ann,
x,x@example.org,short,,
-rf,,,,
ben,,,,admin
dev,dev2@example.org,,,
"""


def test_users_of_a_file(oqtoctl: Oqtoctl, tmp_path: Path, host: Host) -> None:
    file = tmp_path / "users.csv"
    file.write_text(CSV)
    file.chmod(0o644)
    first = oqtoctl.run("user", "create", "--from", str(file))
    assert first.code == 1
    lines = first.out.splitlines()
    assert lines[0] == "line 2: ann: made"
    assert lines[1].startswith("line 3: x: failed: the password is shorter")
    assert lines[2].startswith("line 4: -rf: failed:")
    assert lines[3] == "line 5: ben: made"
    assert lines[4].startswith("line 6: dev: failed:")
    assert lines[5] == "2 made, 3 failed"
    assert "everybody on this host can read it" in first.err
    assert "staple" not in first.out + first.err
    assert host.logged_in("ann", "a staple for ann").send("GET", "/api/me").json["display_name"] == "Ann"

    file.chmod(0o600)
    words = ("user", "create", "--from", "-", "--skip-existing", "--provision", "--json")
    again = oqtoctl.run(*words, stdin=CSV)
    assert again.code == 1
    assert again.err == ""
    assert again.json["created"] == []
    assert [user["username"] for user in again.json["existing"]] == ["ann", "ben", "dev"]
    assert [(row["line"], row["username"], row["error_code"]) for row in again.json["failed"]] == [
        (3, "x", "bad_request"),
        (4, "-rf", "bad_request"),
    ]
    assert oqtoctl.run("user", "create", "--from", "-", stdin="username,shell\na,/bin/sh\n").code == 2
    for name in ("ann", "ben"):
        oqtoctl("user", "delete", name, "--yes")


def test_a_daemon_that_dies_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """What was done is told, the rest is not tried, and it ends as unreachable."""
    place = tmp_path / "a.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen(8)
    rows = "".join(f"user{i}\n" for i in range(50))
    process = subprocess.Popen(
        [OQTOCTL, "user", "create", "--from", "-", "--admin-socket", str(place), "--json"],
        env=Oqtoctl(tmp_path).environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(f"username\n{rows}")
    process.stdin.close()
    process.stdin = None
    users, _ = listener.accept()
    users.recv(65536)
    users.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]")
    users.close()
    listener.close()
    place.unlink()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 4
    assert json.loads(err)["error_code"] == "unreachable"
    assert json.loads(out) == {"created": [], "existing": [], "failed": []}


def test_sessions(host: Host, oqtoctl: Oqtoctl, session: str) -> None:
    row = next(row for row in oqtoctl("session", "list", "--user", "dev").rows if row[0] == session)
    assert row[1:3] == ["dev", "running"]
    (listed,) = [
        x
        for x in oqtoctl("session", "list", "--status", "running", "--json").json
        if x["readable_id"] == session
    ]
    assert set(listed) >= SHAPE_OF_SESSION
    assert oqtoctl("session", "list", "--status", "failed", "--json").json == []
    shown = oqtoctl("session", "show", session, "--json").json
    assert shown["id"] == listed["id"]
    assert "service terminal" in oqtoctl("session", "show", session).out

    assert oqtoctl("session", "stop", session).out == f"{session} is stopped\n"
    assert oqtoctl("session", "show", session, "--json").json["status"] == "stopped"
    assert oqtoctl("session", "resume", session, "--json").json["status"] == "running"
    assert oqtoctl.run("session", "delete", session).code == 2  # nobody can be asked
    assert oqtoctl("session", "delete", session, "--yes").out == f"{session} is forgotten\n"
    assert oqtoctl.run("session", "show", session).code == 1
    (deleted,) = [x for x in audit(host, oqtoctl, "session.delete") if x["session_id"] == session]
    assert deleted["outcome"] == "success"


def test_logs_hold_what_services_report_and_nothing_that_is_typed(
    host: Host, oqtoctl: Oqtoctl, session: str
) -> None:
    client = host.logged_in()
    terminal = Terminal(client, session)
    assert terminal.ask("echo se''cret") == "secret"
    terminal.close()
    assert client.send("GET", f"/api/sessions/{session}/files/tree").status == 200
    found = oqtoctl("session", "logs", session, "--json").json
    assert set(found["services"]) >= {"terminal", "files"}
    assert found["services"]["terminal"]
    assert "secret" not in json.dumps(found)
    lines = oqtoctl("session", "logs", session, "--service", "terminal", "-n", "1").out.splitlines()
    assert lines == [f"terminal: {found['services']['terminal'][-1]}"]
    assert oqtoctl.run("session", "logs", session, "--service", "nonesuch").code == 2
    oqtoctl("session", "stop", session)
    stopped = oqtoctl.run("session", "logs", session)
    assert stopped.code == 1
    assert "journalctl SESSION_ID=" in stopped.err


def test_top(host: Host, oqtoctl: Oqtoctl, session: str) -> None:
    terminal = Terminal(host.logged_in(), session)
    terminal.type("while :; do :; done\n")
    terminal.until(b"done")
    (row,) = [x for x in oqtoctl("session", "top", "--json").json if x["readable_id"] == session]
    terminal.close()
    assert row["memory"] > 0
    assert row["tasks"] > 0
    assert row["cpu_percent"] > 10
    assert session in oqtoctl("session", "top").out


def test_ports(host: Host, oqtoctl: Oqtoctl, session: str) -> None:
    held = [x for x in oqtoctl("port", "list", "--json").json if x["readable_id"] == session]
    assert [x["purpose"] for x in held[:13]] == ["agent", "fileserver", "terminal", *["preview"] * 10]
    told = [row[0].split("-") for row in oqtoctl("port", "list").rows if row[2] == session]
    assert [x["port"] for x in held] == [
        port for ends in told for port in range(int(ends[0]), int(ends[-1]) + 1)
    ]
    assert len(told) < len(held)  # what is alike is one row
    # Other programs of this host may have come to listen at some of them.
    free = next(x["port"] for x in reversed(held) if x["listener"] is None)
    with socket.create_server(("127.0.0.1", free)):
        listening = oqtoctl("port", "list", "--listening", "--json").json
    assert all(x["listener"] is not None for x in listening)
    ours = next(x for x in listening if x["port"] == free)
    assert (ours["listener"]["uid"], ours["foreign"]) == (os.getuid(), False)


def test_runners(host: Host, oqtoctl: Oqtoctl, session: str) -> None:
    (runner,) = oqtoctl("runner", "list", "--json").json
    assert (runner["socket"], runner["service"], runner["uid"]) == ("active", "active", os.getuid())
    assert runner["live_sessions"] == 1
    account = runner["account"]
    assert oqtoctl("runner", "list").rows[0][0] == account
    assert oqtoctl("runner", "status", "dev", "--json").json["pid"] == runner["pid"]
    assert f"process        {runner['pid']}" in oqtoctl("runner", "status", account).out

    assert oqtoctl.run("runner", "restart", account).code == 2  # sessions would end, and nobody can be asked
    restarted = oqtoctl("runner", "restart", account, "--yes", "--json").json
    assert restarted["service"] == "active"
    assert restarted["pid"] != runner["pid"]
    assert restarted["live_sessions"] == 0
    assert oqtoctl("session", "show", session, "--json").json["status"] == "stopped"
    assert oqtoctl("session", "resume", session, "--json").json["status"] == "running"
    (line,) = audit(host, oqtoctl, "runner.restart")
    assert line["detail"] == account


def test_invites(host: Host, oqtoctl: Oqtoctl) -> None:
    words = ("invite", "create", "--count", "2", "--expires", "7d", "--uses", "3", "--note", "for\x1b[2J all")
    codes = oqtoctl(*words).out.split()
    assert len(codes) == 2
    listed = oqtoctl("invite", "list", "--json").json
    assert {x["max_uses"] for x in listed} == {3}
    assert "\x1b" not in oqtoctl("invite", "list").out
    known = {"username": "ivy", "email": "ivy@example.org", "password": PASSWORD}
    assert host.client().post("/api/auth/register", {**known, "invite_code": codes[0]}).status == 201
    for invite in listed:
        assert oqtoctl("invite", "revoke", invite["id"], "--json").json["is_valid"] is False
    again = {**known, "username": "ida", "email": "ida@example.org", "invite_code": codes[1]}
    assert host.client().post("/api/auth/register", again).status in (400, 403)
    assert oqtoctl.run("invite", "revoke", "nonesuch").code == 1
    oqtoctl("user", "delete", "ivy", "--yes")


def test_keys_and_a_server_elsewhere(host: Host, oqtoctl: Oqtoctl, tmp_path: Path) -> None:
    text = oqtoctl("key", "create", "root", "--name", "test", "--scope", "admin", "--expires", "1h").out
    (key,) = oqtoctl("key", "list", "root", "--json").json["keys"]
    assert (key["name"], key["scopes"]) == ("test", ["admin"])
    assert text.startswith(key["key_prefix"])
    assert oqtoctl("key", "list", "root").rows[0][0] == key["id"]

    url = f"http://127.0.0.1:{host.port}"
    there = oqtoctl("user", "list", "--json", "--server", url, OQTO_TOKEN=text.strip())
    assert there.json == oqtoctl("user", "list", "--json").json
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(0o600)
    assert oqtoctl("--token-file", str(file), "status", OQTO_SERVER_URL=url).out.startswith("oqtod")

    oqtoctl("key", "revoke", "root", key["id"])
    void = oqtoctl.run("user", "list", "--json", "--server", url, OQTO_TOKEN=text.strip())
    assert void.code == 5
    assert void.error["error_code"] == "unauthorized"
    weak = oqtoctl("key", "create", "root", "--name", "weak", "--json").json
    lacking = oqtoctl.run("user", "list", "--server", url, OQTO_TOKEN=weak["api_key"])
    assert lacking.code == 5
    assert "admin" in lacking.err
    assert oqtoctl.run("key", "create", "dev", "--name", "x", "--scope", "admin").code == 5
    assert oqtoctl.run("key", "create", "dev", "--name", "x", "--scope", "nonesuch").code == 2


def test_something_else_that_listens(oqtoctl: Oqtoctl, host: Host) -> None:
    page = oqtoctl.run("--server", f"http://127.0.0.1:{host.port}/api/", "status", OQTO_TOKEN="octo_sk_x")
    assert page.code == 2
    none = oqtoctl.run("status", "--admin-socket", str(host.folder / "config.toml"))
    assert none.code == 4


def test_the_configuration(oqtoctl: Oqtoctl, host: Host, tmp_path: Path) -> None:
    assert oqtoctl("config", "check").out.startswith("OK")
    assert oqtoctl("config", "check", "--json").json["file"] == str(host.folder / "config.toml")
    shown = oqtoctl("config", "show", "--json", "--sources").json
    assert shown["values"]["local"]["single_user"] is True
    assert "sources" in shown
    assert "single_user = true" in oqtoctl("config", "show").out
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[server]\nprot = 1\n")
    refused = oqtoctl.run("config", "check", "--config", str(wrong))
    assert refused.code == 3
    assert "server.port" in refused.err
    as_json = oqtoctl.run("config", "show", "--config", str(wrong), "--json")
    assert as_json.code == 3
    assert as_json.error["error_code"] == "configuration_refused"
    assert "server.port" in as_json.error["problems"][0]


def test_the_sandbox(oqtoctl: Oqtoctl, host: Host) -> None:
    workspace = ("--workspace", str(host.folder))
    assert "deny_read" in oqtoctl.program("sandbox", "show", *workspace).out
    told = oqtoctl.program("sandbox", "explain", *workspace, "/etc/passwd", "--json").json
    assert "/etc/passwd" in json.dumps(told)
    (host.folder / ".oqto").mkdir()
    (host.folder / ".oqto/sandbox.toml").write_text("prfile = 1\n")
    try:
        assert oqtoctl.program("sandbox", "check", *workspace).code == 3
    finally:
        (host.folder / ".oqto/sandbox.toml").unlink()
        (host.folder / ".oqto").rmdir()


def test_hash_password(oqtoctl: Oqtoctl) -> None:
    assert oqtoctl("hash-password", stdin=f"{PASSWORD}\n").out.startswith("$2b$12$")
    assert oqtoctl.run("hash-password", stdin="\n").code == 2


def test_refusals_say_what_to_do(oqtoctl: Oqtoctl) -> None:
    told = oqtoctl.run("user", "delete", "dev", "--yes")
    assert told.code == 1
    assert "auth.dev_users" in told.err
    assert "take the user out there" in told.err
    as_json = oqtoctl.run("user", "delete", "dev", "--yes", "--json")
    assert as_json.error["error_code"] == "conflict"
    assert as_json.error["request_id"]
    assert oqtoctl.run("user", "create", "bad name", "--no-password").code == 2
    assert oqtoctl.run("user", "show", "../sessions").code == 1


def test_nobody_listens_any_more(tmp_path: Path) -> None:
    with accounts.running(tmp_path, CONFIG) as gone:
        oqtoctl = Oqtoctl(gone.folder)
        assert oqtoctl("status").code == 0
    told = oqtoctl.run("status", "--json")
    assert told.code == 4
    assert "oqtoctl.sock" in told.error["error"]
    assert "/run/oqto/oqtoctl.sock" in told.error["error"]


def test_a_part_that_is_not_well(tmp_path: Path) -> None:
    (tmp_path / "state/oqto/audit.log.jsonl").mkdir(parents=True)
    with accounts.running(tmp_path) as unwell:
        oqtoctl = Oqtoctl(unwell.folder)
        unwell.client().log_in("dev", "wrong")  # a line that can't be written
        for _ in range(100):
            told = oqtoctl.run("status", "--json")
            if told.code:
                break
        assert told.code == 1
        assert told.json["health"]["checks"]["audit"]["status"] == "failed"
        assert "failed: the audit log" in oqtoctl.run("status").out
