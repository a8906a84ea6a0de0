"""The audit log of a running gateway: rotated, killed, read and followed with nothing lost or torn."""

from __future__ import annotations

import grp
import gzip
import http.client
import json
import os
import pwd
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.accounts import Host, running, start
from tests.integration.clients import Client

SHIPPED = Path(__file__).parents[2] / "packaging/debian/oqtod.logrotate"
LOG = "state/oqto/audit.log.jsonl"
WRITERS = 8
LINES = 10_000


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with running(tmp_path_factory.mktemp("audit")) as host:
        yield host


def rotate(host: Host) -> None:
    """Rotate the log with logrotate, as the package has it done."""
    us = f"su {pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}"
    text = SHIPPED.read_text().replace("/var/lib/oqtod/audit.log.jsonl", str(host.folder / LOG))
    config = host.folder / "logrotate.conf"
    config.write_text(text.replace("su oqtod oqtod", us))
    config.chmod(0o644)
    command = ["logrotate", "--force", "--state", str(host.folder / "logrotate.state"), str(config)]
    environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def all_lines(host: Host) -> list[dict[str, Any]]:
    """Every line of the log and of what was rotated. Raises ValueError for a torn one."""
    found = []
    for file in (host.folder / LOG).parent.glob("audit.log.jsonl*"):
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert data.endswith(b"\n") or not data
        found += [json.loads(line) for line in data.splitlines()]
    return found


def denied(port: int, count: int, ids: list[str]) -> None:
    """Make requests that are each an event, on one connection; note what their ids are."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        for _ in range(count):
            connection.request("GET", "/api/admin/users")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 401
            ids.append(answer.headers["x-request-id"])
    except (http.client.HTTPException, ConnectionError):
        pass  # the gateway was killed: what was answered counts
    finally:
        connection.close()


@contextmanager
def requests_made(host: Host, count: int) -> Iterator[list[str]]:
    """Make `count` requests at the side; all of them are answered when this ends."""
    ids: list[str] = []
    threads = [
        threading.Thread(target=denied, args=(host.port, count // WRITERS, ids)) for _ in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield ids
    finally:
        for thread in threads:
            thread.join()


def test_ten_thousand_lines_while_logrotate_rotates(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        rotations = 0
        with requests_made(host, LINES) as ids:
            while len(ids) < LINES:
                seen = len(ids)
                if (host.folder / LOG).exists():
                    rotate(host)
                    rotations += 1
                if rotations % 5 == 0:
                    host.process.send_signal(signal.SIGHUP)  # harmless, and not needed
                if rotations == 40:
                    break
                while len(ids) < min(LINES, seen + LINES // 30):
                    threading.Event().wait(0.01)
        assert rotations >= 10
    written = Counter(line["request_id"] for line in all_lines(host))
    assert written == Counter(ids)
    assert len(ids) == LINES


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """Lines of before are whole, and the next gateway goes on after them."""
    before: list[str] = []
    for _ in range(3):
        host = start(tmp_path)
        try:
            with requests_made(host, 8000) as ids:
                while len(ids) < 500:
                    threading.Event().wait(0.01)
                host.process.kill()
        finally:
            host.process.communicate(timeout=20)
        before += ids
    with running(tmp_path) as host:
        last: list[str] = []
        denied(host.port, 10, last)
    lines = (host.folder / LOG).read_bytes().splitlines()
    whole = [json.loads(line)["request_id"] for line in lines if line.endswith(b"}")]
    assert len(lines) - len(whole) <= 3  # a torn one for each time that it was killed, at most
    assert whole[-10:] == last
    assert len(whole) == len(set(whole))
    # What wasn't in the file yet is what was answered in the last moments.
    assert len(set(before) - set(whole)) <= 3 * 10 * WRITERS


def read(client: Client, query: str = "") -> Any:
    answer = client.send("GET", f"/api/admin/audit{query}")
    assert answer.status == 200, answer.body
    return answer.json


def test_reading_it(host: Host) -> None:
    dev = host.logged_in()
    dev.send("GET", "/api/admin/users")
    (line,) = read(host.admin, "?event=request.denied&user=dev&limit=1")["lines"]
    assert (line["path"], line["status"], line["outcome"]) == ("/api/admin/users", 403, "denied")
    assert line in host.audit()
    assert [x["event"] for x in read(host.admin, "?event=auth&user=DEV")["lines"]] == ["auth.login"]
    assert read(host.admin, "?user=nobody") == {"lines": [], "complete": True}
    later = line["timestamp"].replace("Z", "%2B00:00")
    assert read(host.admin, f"?since={later}")["lines"][0] == line
    assert read(host.admin, "?since=2999-01-01T00:00:00Z")["lines"] == []
    rotate(host)
    assert line in read(host.admin, "?limit=1000")["lines"]
    own = [x for x in read(host.admin)["lines"] if x["path"] == "/api/admin/audit"]
    assert {(x["event"], x["user_id"]) for x in own} == {("admin.request", "root")}
    assert own[0]["detail"] == "reads the audit log user=dev event=request.denied"


@pytest.mark.parametrize(
    "query",
    [
        *("limit=-1", "limit=1001", "limit=x", "limit=%D9%A3", "event=nonsense", "since=yesterday"),
        *("since=2026-01-01", "since=9999-12-31T23:59:59-23:00"),
    ],
)
def test_questions_that_make_no_sense(host: Host, query: str) -> None:
    assert host.admin.send("GET", f"/api/admin/audit?{query}").status in (400, 422)


def test_for_administrators_only(host: Host) -> None:
    assert host.client().send("GET", "/api/admin/audit").status == 401
    assert host.logged_in().send("GET", "/api/admin/audit?follow=1").status == 403


@contextmanager
def followed(host: Host, query: str) -> Iterator[Iterator[dict[str, Any]]]:
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
    connection.request(
        "GET", f"/api/admin/audit?follow=1&{query}", headers={"Authorization": f"Bearer {host.admin.token}"}
    )
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")

    def lines() -> Iterator[dict[str, Any]]:
        for line in answer:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))

    try:
        yield lines()
    finally:
        answer.close()
        connection.close()


def test_following_it_goes_on_when_it_is_rotated(host: Host) -> None:
    ids: list[str] = []
    denied(host.port, 3, ids)
    with followed(host, "limit=2&event=request.denied") as lines:
        assert [next(lines)["request_id"] for _ in range(2)] == ids[1:]
        for _ in range(3):
            denied(host.port, 4, ids)
            assert [next(lines)["request_id"] for _ in range(4)] == ids[-4:]
            rotate(host)


def test_following_does_not_feed_itself(host: Host) -> None:
    with followed(host, "limit=0") as lines, followed(host, "limit=0"):
        ids: list[str] = []
        denied(host.port, 1, ids)
        assert next(lines)["request_id"] == ids[0]
        denied(host.port, 1, ids)
        assert next(lines)["request_id"] == ids[1]  # and no line in between


def test_no_line_is_told_twice_or_left_out(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        assert host.admin.token is not None
        with requests_made(host, 2000) as ids:
            while len(ids) < 500:
                threading.Event().wait(0.01)
            with followed(host, "limit=50&event=request.denied") as lines:
                told = [next(lines)["request_id"]]
                while len(ids) < 2000:
                    told.append(next(lines)["request_id"])
                denied(host.port, 1, ids)
                while told[-1] != ids[-1]:
                    told.append(next(lines)["request_id"])
        written = [line["request_id"] for line in host.audit() if line["event"] == "request.denied"]
    assert told == written[written.index(told[0]) :]
    assert len(told) >= 50


def test_there_is_none(tmp_path: Path) -> None:
    with running(tmp_path, OQTO__LOGGING__AUDIT_ENABLED="false") as host:
        assert host.admin.send("GET", "/api/admin/audit").status == 404


def oqtoctl(host: Host, *arguments: str) -> list[str]:
    return [
        str(Path(sys.executable).parent / "oqtoctl"),
        *("--admin-socket", str(host.folder / "state/oqto/oqtoctl.sock"), *arguments),
    ]


def shown(host: Host, *arguments: str) -> list[str]:
    command = oqtoctl(host, "audit", "tail", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()


def test_oqtoctl_shows_it(host: Host) -> None:
    host.logged_in().send("GET", "/api/admin/users")
    (line,) = shown(host, "--event", "request.denied", "--user", "dev", "-n", "1")
    when, what = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", r"GET  /api/admin/users  403  \(.*\)"
    assert re.fullmatch(rf"{when}  request\.denied +denied +dev +10\.[0-9.]+ +{what}", line)
    (raw,) = shown(host, "--event", "request.denied", "--user", "dev", "-n", "1", "--json")
    assert json.loads(raw) in host.audit()
    assert shown(host, "--since", "2999-01-01T00:00:00Z") == []
    last = json.loads(shown(host, "--json", "-n", "1")[0])
    assert last["actor"] == {"kind": "socket", "uid": os.getuid()}  # the reading before this one
    refused = subprocess.run(
        oqtoctl(host, "audit", "tail", "--event", "x\x1b[31m"), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "\x1b" not in refused.stderr
    assert "auth.login" in refused.stderr


def test_oqtoctl_follows_it(host: Host) -> None:
    command = oqtoctl(host, "audit", "tail", "-f", "-n", "1", "--event", "request", "--json")
    ids: list[str] = []
    denied(host.port, 1, ids)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            for _ in range(3):
                assert json.loads(process.stdout.readline())["request_id"] == ids[-1]
                rotate(host)
                denied(host.port, 1, ids)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()
