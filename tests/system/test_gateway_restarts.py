"""The gateway started again, in order or not: who connects meanwhile waits, and is served."""

from __future__ import annotations

import threading

from tests.system.conftest import Host


def test_nobody_is_turned_away_while_the_gateway_is_started_again(host: Host) -> None:
    host.machine.expect_in_journal("oqtod-gateway")  # that it was killed
    ended = threading.Event()
    refused: list[OSError] = []
    cut: list[OSError] = []
    served: list[int] = []

    def visit() -> None:
        while not ended.is_set():
            try:
                served.append(host.http().get("/api/health").status)
            except ConnectionRefusedError as error:
                refused.append(error)
            except OSError as error:
                cut.append(error)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        host.machine.run("systemctl", "restart", "oqtod-gateway")
        host.machine.sh("systemctl kill --signal=KILL oqtod-gateway; sleep 3")
    finally:
        ended.set()
        visitor.join()
    host.machine.run("systemctl", "start", "oqtod-gateway")
    assert not refused
    assert len(cut) <= 1  # who was being served when it was killed
    assert len(served) > 10
    assert set(served) == {200}
