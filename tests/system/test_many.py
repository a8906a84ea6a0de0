"""Many people at once: two hundred sessions that come and go and leave nothing, and one who misbehaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.clients import Http
from tests.system.conftest import Host, people
from tests.system.test_lifecycle import leftovers, until
from tests.system.test_main_job import arrive

CROWD = {f"user{number:02}": f"password of {number}" for number in range(20)}
EACH = 10


def test_two_hundred_sessions_come_and_go(host: Host) -> None:
    config = host.machine.run("cat", "/etc/oqto/config.toml").stdout
    host.machine.run("tee", "-a", "/etc/oqto/config.toml", stdin=people(CROWD))
    host.machine.expect_in_journal("the idle sessions")
    try:
        host.configure(
            OQTO__SESSIONS__MAX_CONCURRENT_SESSIONS=str(EACH),
            OQTO__SESSIONS__IDLE_TIMEOUT_MINUTES="0.1",
            OQTO__SESSIONS__IDLE_CHECK_INTERVAL_SECONDS="1",
        )
        with ThreadPoolExecutor(8) as crowd:
            clients = list(crowd.map(lambda name: login(host, name), CROWD))
            list(crowd.map(use, [client for client in clients for _ in range(EACH)]))
        running = {client: states(client) for client in clients}
        assert sum(len(each) for each in running.values()) == len(CROWD) * EACH
        until(
            lambda: all(states(client) == ["stopped"] * EACH for client in clients),
            "all are reaped",
            patience=90,
        )
        assert leftovers(host) == ""
        database = "import sqlite3; print(sqlite3.connect('/var/lib/oqtod/oqto.db').execute('%s').fetchall())"
        held = host.machine.run("python3", "-c", database % "SELECT * FROM ports").stdout
        assert held.strip() == "[]"
        until(
            lambda: host.machine.run("pgrep", "-u", ",".join(accounts()), check=False).stdout == "",
            "the runners have gone",
            patience=60,
        )
    finally:
        host.machine.run("tee", "/etc/oqto/config.toml", stdin=config)
        host.configure()


def accounts() -> list[str]:
    return [f"oqto_{name}" for name in CROWD]


def login(host: Host, name: str) -> Http:
    client = host.http()
    assert client.login(name, CROWD[name]).status == 200
    return client


def use(client: Http) -> None:
    """Come, do something in terminal and files, and walk away."""
    session = client.post("/api/sessions")
    assert session.status == 201, session
    session_id = session.json()["id"]
    with client.terminal(session_id) as terminal:
        assert terminal.run("echo $OQTO_SESSION_ID") == session_id
    files = f"/api/sessions/{session_id}/files/file?path={session_id}"
    assert client.request("PUT", files, body=b"x").status in (200, 201, 204)


def states(client: Http) -> list[str]:
    return [session["status"] for session in client.get("/api/sessions").json()]


def test_a_fork_bomb_in_one_session_leaves_another_usable(host: Host) -> None:
    host.machine.expect_in_journal("fork|oqto")
    alice, bob = arrive(host, "alice"), arrive(host, "bob")
    with alice.terminal() as bomber, bob.terminal() as bystander:
        bomber.type("bomb() { bomb | bomb & }; bomb\n")
        for number in range(5):
            assert bystander.run(f"echo $(({number}+1))", timeout=60) == str(number + 1)
        assert alice.http.post(f"/api/sessions/{alice.id}/stop").status == 204
        assert bystander.run("echo well") == "well"
    until(lambda: int(host.machine.sh(f"pgrep -u {alice.account} | wc -l")) <= 2, "the bomb is gone")
