"""Sessions on an installed host: idle and busy ones, ports, caps, limits, and what happens when parts die."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.clients import Http, Terminal
from tests.system.conftest import Host
from tests.system.test_main_job import Person, arrive

PATIENCE = 20.0


def until(probe: Callable[[], object], what: str, *, patience: float = PATIENCE) -> None:
    """Look again and again until `probe` says something true."""
    deadline = time.monotonic() + patience
    while not probe():
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"


@pytest.fixture(autouse=True)
def as_installed(host: Host) -> Iterator[None]:
    """Every test may configure the host; afterwards it is as it was, without sessions."""
    host.configure()
    yield
    host.machine.expect_in_journal("oqto-runner|not settled|can't be reached|did not answer")
    host.configure()
    for name in ("alice", "bob"):
        http = host.login(name)
        for session in http.get("/api/sessions").json():
            http.post(f"/api/sessions/{session['id']}/stop")
            http.request("DELETE", f"/api/sessions/{session['id']}")
    assert leftovers(host) == ""


def leftovers(host: Host) -> str:
    """What sessions leave behind: nothing, when they have all been stopped."""
    return host.machine.sh("find /sys/fs/cgroup -name 'session-*'; find /run/oqto/runners -mindepth 3")


def show(http: Http, session_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = http.get(f"/api/sessions/{session_id}").json()
    return shown


def status(person: Person) -> str:
    return str(show(person.http, person.id)["status"])


def processes(host: Host, pattern: str) -> list[str]:
    return host.machine.run("pgrep", "-f", pattern, check=False).stdout.split()


IDLE = {
    "OQTO__SESSIONS__IDLE_TIMEOUT_MINUTES": "0.05",
    "OQTO__SESSIONS__IDLE_CHECK_INTERVAL_SECONDS": "0.5",
}


def test_output_alone_keeps_nothing_alive_but_typing_does(host: Host) -> None:
    host.configure(**IDLE)
    alice = arrive(host, "alice")
    with alice.terminal() as terminal:
        started = time.monotonic()
        while time.monotonic() < started + 5:
            terminal.run("true")
        assert status(alice) == "running"
        assert show(alice.http, alice.id)["idle_at"] is not None
        terminal.type("while :; do echo still printing; sleep 0.1; done\n")
        until(lambda: status(alice) == "stopped", "an idle session is stopped")
    shown = show(alice.http, alice.id)
    assert "idle_timeout_minutes" in shown["error_message"]
    assert processes(host, "still printing") == []
    resumed = alice.http.post(f"/api/sessions/{alice.id}/resume").json()
    assert resumed["status"] == "running"
    assert resumed["agent_port"] == alice.session["agent_port"]
    assert resumed["readable_id"] == alice.session["readable_id"]


def test_a_busy_session_is_kept_and_says_so(host: Host) -> None:
    host.configure(**IDLE)
    alice = arrive(host, "alice")
    with alice.terminal() as terminal:
        terminal.type("while :; do :; done\n")
        until(lambda: show(alice.http, alice.id)["busy"], "it says that it is busy")
        started = time.monotonic()
        while time.monotonic() < started + 5:
            assert status(alice) == "running"
        usage = show(alice.http, alice.id)["usage"]
        assert usage["cpu"] > 1
        assert usage["memory"] > 1_000_000
        assert usage["tasks"] >= 2
        terminal.type("\x03")
        until(lambda: status(alice) == "stopped", "the work is done")


def test_the_event_stream_tells_of_state_and_countdown(host: Host) -> None:
    host.configure(**IDLE)
    alice = arrive(host, "alice")
    stream = host.machine.connect()
    stream.settimeout(PATIENCE)
    stream.sendall(
        f"GET /api/sessions/{alice.id}/events HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
        f"Authorization: Bearer {alice.http.token}\r\n\r\n".encode()
    )
    seen = b""
    with stream:
        while b'"status":"stopped"' not in seen:
            piece = stream.recv(65536)
            assert piece, seen
            seen += piece
    assert b"content-type: text/event-stream" in seen.lower()
    assert b"event: idle" in seen
    counted = [json.loads(line) for line in re.findall(rb"data: (\{.*seconds_left.*\})", seen)]
    assert 0 < counted[0]["seconds_left"] <= 3
    assert counted[0]["idle_at"]


def test_a_preview_is_the_sessions_own(host: Host) -> None:
    alice, bob = arrive(host, "alice"), arrive(host, "bob")
    first, second, *_ = alice.session["preview_ports"]
    with alice.terminal() as terminal:
        assert terminal.run("echo $PORT") == str(first)
        assert terminal.run("echo $OQTO_PORTS").split(",")[1] == str(second)
        base = f"/api/sessions/{alice.id}/ports"
        nothing = alice.http.get(f"{base}/{first}/")
        assert nothing.status == 502
        assert "nothing listens" in nothing.json()["error"]
        terminal.run("mkdir -p site; echo '<h1>hello</h1>' >site/index.html; cd site")
        terminal.type("python3 -m http.server $PORT --bind 127.0.0.1\n")
        until(lambda: alice.http.get(f"{base}/{first}/").status == 200, "the app is up")
        answer = alice.http.get(f"{base}/{first}/index.html?x=1")
        assert answer.body == b"<h1>hello</h1>\n"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert bob.http.get(f"{base}/{first}/").status == 404
        assert alice.http.get(f"{base}/8080/").status == 404
        # Somebody else listens on a port of hers.
        serve = ("python3", "-m", "http.server", str(second), "--bind", "127.0.0.1", "--directory", "/tmp")
        host.machine.sh(f"setsid runuser -u {bob.account} -- {' '.join(serve)} >/dev/null 2>&1 &")
        until(lambda: processes(host, f"http.server {second}"), "bob's server runs")

        def answer_of_foreign() -> int:
            answer = alice.http.get(f"{base}/{second}/")
            print(answer)
            return answer.status

        until(lambda: answer_of_foreign() == 403, "a foreign listener is refused", patience=2)
        host.machine.run("pkill", "-f", f"http.server {second}")
        terminal.type("\x03")


def test_fifty_creates_at_once_stay_under_the_cap(host: Host) -> None:
    host.configure(OQTO__SESSIONS__MAX_CONCURRENT_SESSIONS="3")
    bob = arrive(host, "bob")
    alice = host.login("alice")
    sockets = [alice.connect() for _ in range(50)]
    request = (
        f"POST /api/sessions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: Bearer {alice.token}\r\n"
        "Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    ).encode()
    for one in sockets:
        one.settimeout(60)
        one.sendall(request)
    answers = []
    for one in sockets:
        with one:
            answer = b""
            while piece := one.recv(65536):
                answer += piece
        answers.append(int(answer.split()[1]))
    assert set(answers) <= {201, 409}
    assert 201 in answers
    states = [session["status"] for session in alice.get("/api/sessions").json()]
    assert states.count("running") == 3
    assert set(states) <= {"running", "stopped"}
    assert status(bob) == "running"


def test_limits_are_those_of_the_slice_and_shown(host: Host) -> None:
    host.configure(
        OQTO__LIMITS__MEMORY_MAX="2G", OQTO__LIMITS__TASKS_MAX="500", OQTO__LIMITS__CPU_QUOTA="150%"
    )
    alice = arrive(host, "alice")
    assert alice.session["limits"] == {"memory_max": "2G", "tasks_max": 500, "cpu_quota": "150%"}
    shown = host.machine.run(
        *("systemctl", "show", "-p", "MemoryMax,TasksMax,CPUQuotaPerSecUSec"), f"oqto-{alice.account}.slice"
    ).stdout.split()
    assert sorted(shown) == ["CPUQuotaPerSecUSec=1.500000s", f"MemoryMax={2 * 2**30}", "TasksMax=500"]


@pytest.mark.parametrize("victim", ["oqtod-gateway", "oqtod", "oqto-runner@oqto_alice"])
def test_killed_at_any_time_nothing_is_lost(host: Host, victim: str) -> None:
    host.machine.expect_in_journal("oqto")
    alice = arrive(host, "alice")
    with alice.terminal() as terminal:
        terminal.run("setsid --fork sleep 31415")
        unit = f"{victim}.service"
        pid = host.machine.run("systemctl", "show", "--value", "-p", "MainPID", unit).stdout.strip()
        host.machine.run("kill", "-9", pid)

        def replaced() -> bool:
            shown = host.machine.run("systemctl", "show", "--value", "-p", "MainPID", unit).stdout.strip()
            return shown not in ("0", pid)

        if not victim.startswith("oqto-runner"):
            until(replaced, f"{victim} is started again")
            host.machine.run("systemctl", "start", "oqtod", "oqtod-gateway")
            alice.http = host.login(
                "alice"
            )  # the secret of a start without auth.jwt_secret is for that start
    assert len(processes(host, "sleep 31415")) == 1
    assert status(alice) == "running"
    with alice.terminal() as terminal:
        assert terminal.run("id -un") == alice.account
    assert alice.http.post(f"/api/sessions/{alice.id}/stop").status == 204
    assert processes(host, "sleep 31415") == []
    assert status(alice) == "stopped"


def test_a_runner_that_hangs_is_waited_for_and_got_rid_of(host: Host) -> None:
    host.machine.expect_in_journal("oqto")
    host.configure(OQTO__RUNTIME__TIMEOUT="2")
    alice = arrive(host, "alice")
    unit = f"oqto-runner@{alice.account}.service"
    pid = host.machine.run("systemctl", "show", "--value", "-p", "MainPID", unit).stdout.strip()
    host.machine.run("kill", "-STOP", pid)
    started = time.monotonic()
    answer = alice.http.post("/api/sessions")
    assert answer.status == 503
    assert "did not answer" in answer.json()["error"]
    stopping = alice.http.post(f"/api/sessions/{alice.id}/stop")
    assert stopping.status == 503
    assert stopping.json()["hint"]
    assert time.monotonic() - started < 10
    host.machine.run("kill", "-CONT", pid)
    until(lambda: status(alice) == "stopped", "what was asked for is done in the end")
    states = {session["status"] for session in alice.http.get("/api/sessions").json()}
    until(lambda: states <= {"stopped", "failed"}, "the session that did not start is settled")


def test_services_that_die_are_started_again_and_say_why_they_fail(host: Host) -> None:
    host.machine.expect_in_journal("the service")
    alice = arrive(host, "alice")
    with alice.terminal() as terminal:
        terminal.run("true")
        host.machine.run("pkill", "-9", "-u", alice.account, "-x", "ttyd")
    until(
        lambda: show(alice.http, alice.id)["services"]["terminal"]["state"] == "running",
        "the terminal is started again by itself",
    )
    with alice.terminal() as terminal:
        assert terminal.run("id -un") == alice.account
    host.machine.run("tee", "/usr/local/bin/badtty", stdin="#!/bin/sh\necho no luck today\nexit 9\n")
    host.machine.run("chmod", "+x", "/usr/local/bin/badtty")
    host.configure(OQTO__LOCAL__TTYD_BINARY="/usr/local/bin/badtty")
    again = arrive(host, "alice")
    answer = again.http.get(f"/api/sessions/{again.id}/terminal/")
    assert answer.status == 503
    assert "no luck today" in answer.json()["error"]
    shown = show(again.http, again.id)["services"]["terminal"]
    assert shown["state"] == "failed"
    assert "no luck today" in shown["error"]


@pytest.mark.parametrize("escape", ["setsid --fork", "nohup", "sh -c 'trap \"\" TERM; sleep 27182 & wait' #"])
def test_nothing_escapes_a_stop(host: Host, escape: str) -> None:
    alice = arrive(host, "alice")
    with alice.terminal() as terminal:
        terminal.type(f"{escape} sleep 27182 >/dev/null 2>&1 &\n")
        until(lambda: processes(host, "sleep 27182"), "it runs")
        assert alice.http.post(f"/api/sessions/{alice.id}/stop").status == 204
    assert processes(host, "sleep 27182") == []
    assert leftovers(host) == ""


def test_who_is_taken_out_of_the_configuration_is_ended(host: Host) -> None:
    alice = arrive(host, "alice")
    bob = arrive(host, "bob")
    with bob.terminal() as terminal:
        terminal.run("setsid --fork sleep 16180")
    config = host.machine.run("cat", "/etc/oqto/config.toml").stdout
    without_bob = config[: config.index('\n[[auth.dev_users]]\nid = "bob"')]
    host.machine.run("tee", "/etc/oqto/config.toml", stdin=without_bob)
    try:
        host.machine.sh("systemctl restart oqtod; systemctl start oqtod-gateway")
        until(lambda: processes(host, "sleep 16180") == [], "bob's processes are ended")
        until(
            lambda: host.machine.run("pgrep", "-u", bob.account, check=False).stdout == "",
            "the runner too",
        )
        assert host.http().login("bob", "bob's password").status == 401
        assert show(host.login("alice"), alice.id)["status"] == "running"
    finally:
        host.machine.run("tee", "/etc/oqto/config.toml", stdin=config)


def test_sessions_outlive_an_upgrade_of_the_package(host: Host, deb: Path) -> None:
    host.machine.expect_in_journal("oqto")
    alice = arrive(host, "alice")
    with alice.terminal() as terminal:
        terminal.run("setsid --fork sleep 14142")
    runner = f"oqto-runner@{alice.account}.service"
    before = host.machine.run("systemctl", "show", "-p", "MainPID", runner).stdout
    host.machine.run("apt-get", "install", "--yes", "--reinstall", f"/mnt/{deb.name}", timeout=180)
    host.machine.run("systemctl", "start", "oqtod", "oqtod-gateway")
    alice.http = host.login("alice")
    assert len(processes(host, "sleep 14142")) == 1
    assert status(alice) == "running"
    assert host.machine.run("systemctl", "show", "-p", "MainPID", runner).stdout != before
    with alice.terminal() as terminal:
        assert terminal.run("id -un") == alice.account


@pytest.mark.parametrize(
    ("key", "when"),
    [
        ("OQTO__LOCAL__STOP_SESSIONS_ON_SHUTDOWN", "stop"),
        ("OQTO__LOCAL__CLEANUP_ON_STARTUP", "start"),
    ],
)
def test_sessions_may_be_tied_to_the_daemon(host: Host, key: str, when: str) -> None:
    host.configure(**{key: "true"})
    alice = arrive(host, "alice")
    with alice.terminal() as terminal:
        terminal.run("setsid --fork sleep 17320")
    host.machine.run("systemctl", "stop", "oqtod")
    assert bool(processes(host, "sleep 17320")) == (when == "start")
    host.machine.run("systemctl", "start", "oqtod", "oqtod-gateway")
    assert processes(host, "sleep 17320") == []
    shown = show(host.login("alice"), alice.id)
    assert shown["status"] == "stopped"
    assert key.rpartition("__")[2].lower() in shown["error_message"]


def test_a_preview_speaks_websocket(host: Host) -> None:
    alice = arrive(host, "alice")
    port = alice.session["preview_ports"][0]
    with alice.terminal() as terminal:
        terminal.type("ttyd -p $PORT -i lo -W sh\n")
        base = f"/api/sessions/{alice.id}/ports/{port}"
        until(lambda: alice.http.get(f"{base}/").status == 200, "the app is up")
        with Terminal(alice.http.websocket(f"{base}/ws", subprotocols=("tty",))) as inner:
            assert inner.run("echo from the $((1+1))nd") == "from the 2nd"


@pytest.mark.parametrize("victim", ["oqtod serve", "oqtod supervise", "oqto-runner", "ttyd", "oqto-files"])
def test_killed_in_the_middle_all_comes_to_rest(host: Host, victim: str) -> None:
    """Whatever is killed while sessions are made, opened and stopped: record and reality agree afterwards."""
    host.machine.expect_in_journal(".")
    chance = random.Random(victim)
    pauses = " ".join(f"0.{chance.randrange(10, 60)}" for _ in range(12))
    pattern = f"[{victim[0]}]{victim[1:]}"  # which doesn't match itself
    killer = f"for pause in {pauses}; do sleep $pause; pkill -9 -f '{pattern}' || :; done"

    def live(number: int) -> None:
        try:
            http = host.login("alice")
            session = http.post("/api/sessions")
            if session.status != 201:
                return
            path = f"/api/sessions/{session.json()['id']}"
            http.get(f"{path}/terminal/")
            http.get(f"{path}/files/tree?path=.")
            http.post(f"{path}/stop")
        except (OSError, HTTPException, AssertionError):
            pass  # the gateway was killed under our hands: that is what is tried here

    with ThreadPoolExecutor(4) as people:
        killing = people.submit(host.machine.sh, killer)
        while not killing.done():
            list(people.map(live, range(3)))
        killing.result()
    host.machine.run("systemctl", "start", "oqtod", "oqtod-gateway")

    def at_rest() -> bool:
        states = {session["status"] for session in host.login("alice").get("/api/sessions").json()}
        return states <= {"running", "stopped", "failed"}

    until(at_rest, "every session is in a state where it can stay", patience=60)
    http = host.login("alice")
    for session in http.get("/api/sessions").json():
        assert http.post(f"/api/sessions/{session['id']}/stop").status == 204
    assert leftovers(host) == ""
    again = arrive(host, "alice")
    with again.terminal() as terminal:
        assert terminal.run("id -un") == again.account
