"""Audit log and metrics of the package: rotated by the host's own logrotate, read as administrators do."""

from __future__ import annotations

import json
from typing import Any

from tests.system.conftest import Host

LOG = "/var/lib/oqtod/audit.log.jsonl"


def lines(host: Host, path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.machine.run("cat", path).stdout.splitlines()]


def test_logrotate_moves_it_and_the_next_line_is_in_the_new_file(host: Host) -> None:
    machine = host.machine
    refused = host.http().get("/api/admin/audit").headers["x-request-id"]
    machine.sh("oqtoctl audit tail -n 1")  # returns after what was asked for before is in the file
    checked = machine.run("logrotate", "--debug", "/etc/logrotate.d/oqtod")
    assert "error" not in checked.stderr.lower()
    machine.run("logrotate", "--force", "/etc/logrotate.d/oqtod")
    assert refused in [line["request_id"] for line in lines(host, f"{LOG}.1")]

    after = host.http().get("/api/admin/audit").headers["x-request-id"]
    shown = machine.sh("oqtoctl audit tail --json --event request.denied -n 2").splitlines()
    assert [json.loads(line)["request_id"] for line in shown] == [refused, after]
    found = lines(host, LOG)
    assert found[0]["path"] == "/api/admin/audit"  # the tail from before the rotation, or what came after it
    assert after in [line["request_id"] for line in found]
    modes = machine.run("stat", "--format=%U:%G %a", LOG, f"{LOG}.1").stdout.split("\n")[:2]
    assert modes == ["oqtod:oqtod 600"] * 2

    machine.run("logrotate", "--force", "/etc/logrotate.d/oqtod")
    assert refused in machine.run("zcat", f"{LOG}.2.gz").stdout
    assert machine.run("stat", "--format=%U:%G %a", f"{LOG}.2.gz").stdout.strip() == "oqtod:oqtod 600"


def test_metrics_at_the_admin_socket(host: Host) -> None:
    command = ("curl", "--silent", "--unix-socket", "/run/oqto/oqtoctl.sock", "http://localhost/metrics")
    page = host.machine.run(*command).stdout
    assert "oqtod_audit_healthy 1.0" in page
    assert "process_resident_memory_bytes" in page
    host.machine.expect_in_journal("refused uid")
    assert "oqtod_" not in host.machine.run(*command, user="nobody", check=False).stdout
    assert host.http().get("/metrics").status == 401


def test_metrics_for_the_node_exporter(host: Host) -> None:
    machine = host.machine
    unit, collected = "oqtod-metrics.service", "/var/lib/prometheus/node-exporter"
    machine.sh(
        f"cp /usr/share/doc/oqtod/examples/prometheus/oqtod-metrics.* /etc/systemd/system; "
        f"mkdir -p {collected}; systemctl daemon-reload"
    )
    try:
        for _ in range(2):
            machine.run("systemctl", "start", unit)
        page = machine.run("cat", f"{collected}/oqtod.prom", user="nobody").stdout
        assert "oqtod_audit_healthy 1.0" in page
        assert "process_" not in page
        assert machine.run("ls", collected).stdout.split() == ["oqtod.prom"]
        assert machine.run("systemd-analyze", "verify", "oqtod-metrics.timer").stderr == ""
    finally:
        machine.sh("rm /etc/systemd/system/oqtod-metrics.*; systemctl daemon-reload")
