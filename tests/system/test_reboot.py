"""What a reboot of the host leaves: sessions that are stopped, say why, and can be resumed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.system.conftest import Host, prepare
from tests.system.machine import Machine
from tests.system.pristine import pristine_root
from tests.system.test_main_job import arrive


def test_after_a_reboot_sessions_are_stopped_and_resume(deb: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", pristine_root(), root], check=True)
    machine = Machine(root, "oqtod-reboot", shown=[deb], remembers=True)
    try:
        alice = arrive(prepare(machine, deb), "alice")
        with alice.terminal() as terminal:
            terminal.run("echo kept >kept.txt")
    finally:
        machine.power_off()

    machine = Machine(root, "oqtod-reboot", remembers=True)
    try:
        machine.run("systemctl", "start", "oqtod", "oqtod-gateway")
        alice.http = Host(machine).login("alice")
        shown = alice.http.get(f"/api/sessions/{alice.id}").json()
        assert (shown["status"], shown["error_message"]) == ("stopped", "the host was restarted")
        assert machine.run("pgrep", "-u", alice.account, check=False).stdout == "", "nobody was woken"
        assert alice.http.post(f"/api/sessions/{alice.id}/resume").json()["status"] == "running"
        with alice.terminal() as terminal:
            assert terminal.run("cat kept.txt") == "kept"
        uid = machine.run("id", "-u", alice.account).stdout
        assert uid == machine.run("stat", "--format=%u", f"/home/{alice.account}").stdout
    finally:
        machine.power_off()
