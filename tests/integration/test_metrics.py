"""Metrics of a running gateway: who may read them, and what they say after something happened."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from oqtod.telemetry.metrics import METRICS
from tests.integration.accounts import CONFIG, PASSWORD, Host, running
from tests.integration.clients import Client, Terminal


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    config = CONFIG.replace("port = 0", "port = 0\nmetrics = true")
    with running(tmp_path_factory.mktemp("metrics"), config) as host:
        yield host


def values(text: bytes) -> dict[tuple[str, ...], float]:
    """The series of a page, by name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def at_admin_socket(host: Host, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(str(host.folder / "state/oqto/oqtoctl.sock"))
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_what_happened_is_counted(host: Host) -> None:
    client = host.logged_in()
    assert host.client().log_in("dev", "a wrong guess").status == 401
    session = client.post("/api/sessions").json["id"]
    assert client.send("PUT", f"/api/sessions/{session}/files/file?path=x", b"y" * 5000).status == 200
    terminal = Terminal(client, session)
    assert terminal.ask("echo hello") == "hello"
    open_now = values(host.admin.send("GET", "/metrics").body)
    terminal.close()
    answer = host.admin.send("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    found = values(answer.body)
    assert found["oqtod_sessions", "running"] == 1
    assert found["oqtod_session_starts_total", "started"] == 1
    assert found["oqtod_session_start_seconds_count",] == 1
    assert 0 < found["oqtod_session_start_seconds_sum",] < 60
    assert found["oqtod_port_blocks_used",] == 1
    assert found["oqtod_user_sessions", "dev"] == 1
    assert found["oqtod_user_sessions", "other"] == 0
    assert found["oqtod_logins_total", "password", "success"] >= 2
    assert found["oqtod_logins_total", "password", "denied"] == 1
    assert found["oqtod_audit_events_total", "session.create", "success"] == 1
    assert open_now["oqtod_websockets_open",] == 1
    assert open_now["oqtod_connections_open",] >= 2
    assert found["oqtod_websockets_total",] == 1
    assert found["oqtod_proxy_bytes_total", "from_clients"] >= 5000
    assert found["oqtod_proxy_bytes_total", "to_clients"] > 0
    assert found["oqtod_http_requests_total", "files", "2xx"] == 1
    assert found["oqtod_http_requests_total", "terminal", "1xx"] == 1
    assert found["oqtod_http_requests_total", "api", "4xx"] >= 1
    assert found["oqtod_audit_healthy",] == 1
    assert found["oqtod_database_bytes",] > 4096
    assert found["process_resident_memory_bytes",] > 1e6

    assert client.post(f"/api/sessions/{session}/stop").status == 204
    found = values(host.admin.send("GET", "/metrics").body)
    assert found["oqtod_session_stops_total", "asked"] == 1
    assert found["oqtod_sessions", "stopped"] == 1
    assert found["oqtod_port_blocks_used",] == 0


def test_every_metric_is_on_the_page(host: Host) -> None:
    client = host.logged_in()
    session = client.post("/api/sessions").json["id"]
    first = values(host.admin.send("GET", "/metrics").body)
    assert first["oqtod_user_memory_bytes", "dev"] >= 0
    # The use of the CPU is known from the second reading on; a reading is given again for a second.
    page, deadline = b"", time.monotonic() + 20
    while b"oqtod_user_cpus{" not in page:
        assert time.monotonic() < deadline
        page = host.admin.send("GET", "/metrics").body
    shown = {family.name for family in text_string_to_metric_families(page.decode())}
    assert {name for name in METRICS if name.removesuffix("_total") not in shown} == set()
    assert {name for name in shown if name not in METRICS and f"{name}_total" not in METRICS} == set()
    client.post(f"/api/sessions/{session}/stop")


def test_for_administrators_only(host: Host) -> None:
    assert host.client().send("GET", "/metrics").status == 401
    assert host.logged_in().send("GET", "/metrics").status == 403
    for scopes, status in ((["admin"], 200), (["sessions:read"], 403)):
        key = host.admin.post("/api/keys", {"name": "prometheus", "scopes": scopes}).json["api_key"]
        assert Client(host.port, token=key).send("GET", "/metrics").status == status
    assert host.admin.send("POST", "/metrics").status == 405
    denied = [line for line in host.audit() if line.get("path") == "/metrics"]
    assert {line["event"] for line in denied} == {"request.denied"}


@pytest.mark.parametrize("path", ["/metrics/", "//metrics", "/metrics%00", "/%2e/metrics", "/metrics/x"])
def test_no_other_way_leads_there(host: Host, path: str) -> None:
    for client in (host.client(), host.admin):
        assert b"oqtod_" not in client.send("GET", path).body
    assert host.client().send("GET", "/%6detrics").status == 401


def test_at_the_admin_socket_always_and_on_tcp_when_asked_for(tmp_path: Path) -> None:
    with running(tmp_path) as host:
        assert host.admin.send("GET", "/metrics").status == 404
        assert host.client().send("GET", "/metrics").status == 401
        status, page = at_admin_socket(host, "/metrics")
        assert status == 200
        assert values(page)["oqtod_sessions", "running"] == 0


def test_watching_shows_who_uses_the_host(host: Host) -> None:
    client = host.logged_in()
    session = client.post("/api/sessions").json["id"]
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
    connection.request("GET", "/api/admin/metrics", headers={"Authorization": f"Bearer {host.admin.token}"})
    response = connection.getresponse()
    assert response.headers["content-type"].startswith("text/event-stream")
    snapshot = json.loads(response.readline().removeprefix(b"data: "))
    response.close()
    connection.close()
    assert set(snapshot["host"]) == {
        "cpu_percent",
        "mem_total_bytes",
        "mem_used_bytes",
        "mem_available_bytes",
    }
    assert snapshot["containers"] == []
    assert snapshot["error"] is None
    assert snapshot["sessions"] == {"running": 1}
    (one,) = snapshot["session_use"]
    assert (one["id"], one["user_id"]) == (session, "dev")
    assert one["cpu_percent"] >= 0
    assert [(x["user_id"], x["sessions"]) for x in snapshot["users"]] == [("dev", 1)]
    client.post(f"/api/sessions/{session}/stop")
    assert host.client().log_in("root", PASSWORD).status == 200
