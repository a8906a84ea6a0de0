"""Owners, modes, kinds; links that others made; what repairs may touch."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from oqtod.admin.doctor import places, repairs
from oqtod.admin.doctor.finding import Run, SetOwner
from tests.unit.doctor.conftest import GID, UID, Fake


def about(fake: Fake, path: str) -> list[str]:
    return [one.found for one in places.permissions(fake.host()) if one.subject == path]


@pytest.fixture
def healthy(fake: Fake) -> Fake:
    fake.write("/var/lib/oqtod/oqto.db", "x", 0o600)
    return fake


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/oqto/config.toml", 0o644),
        ("/etc/oqto/config.toml", 0o600),
        ("/etc/oqto/sandbox.toml", 0o600),
        ("/etc/oqto", 0o777),
        ("/run/oqto", 0o700),
        ("/run/oqto/runner-sockets", 0o777),
        ("/var/lib/oqtod", 0o755),
        ("/var/lib/oqtod/oqto.db", 0o640),
        ("/var/lib/oqtod-supervisor", 0o755),
        ("/var/lib/oqtod-supervisor/accounts.json", 0o666),
    ],
)
def test_a_wrong_mode_is_found_and_repaired(healthy: Fake, path: str, mode: int) -> None:
    assert about(healthy, path) == []
    healthy.root.joinpath(path[1:]).chmod(mode)
    (found,) = [one for one in places.permissions(healthy.host()) if one.subject == path]
    assert f"{mode:04o}" in found.found
    assert isinstance(found.repair, SetOwner)
    repairs.repair(healthy.host(), found.repair)
    assert about(healthy, path) == []


@pytest.mark.parametrize("path", ["/run/oqto", "/run/oqto/supervisor.sock", "/run/oqto/oqtoctl.sock"])
def test_what_is_missing_is_made_by_a_command(fake: Fake, path: str) -> None:
    if path == "/run/oqto":
        (fake.root / "run/oqto/runner-sockets").rmdir()
        (fake.root / "run/oqto/runners").rmdir()
        (fake.root / "run/oqto").rmdir()
    (found,) = [one for one in places.permissions(fake.host()) if one.subject == path]
    assert found.found == "missing"
    assert isinstance(found.repair, Run)


def test_a_missing_database_is_nothing_to_repair(fake: Fake) -> None:
    (found,) = [x for x in places.permissions(fake.host()) if x.subject == "/var/lib/oqtod/oqto.db"]
    assert found.severity == "problem"
    assert found.repair is None
    assert "backup" in found.advice


def test_a_folder_in_place_of_a_socket(fake: Fake) -> None:
    fake.folder("/run/oqto/supervisor.sock")
    assert "a folder, where a socket should be" in about(fake, "/run/oqto/supervisor.sock")


def test_a_socket_is_looked_at_without_connecting(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fake.root / "run/oqto")  # its path is short there
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("supervisor.sock")
        Path("supervisor.sock").chmod(0o660)
        assert about(fake, "/run/oqto/supervisor.sock") == []
        Path("supervisor.sock").chmod(0o666)
        assert about(fake, "/run/oqto/supervisor.sock") != []


def test_a_link_in_a_folder_that_others_write_to_is_not_followed(fake: Fake) -> None:
    folder = fake.folder("/home/oqto_alice", 0o770)
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="did not make"):
        fake.host().look("/home/oqto_alice/link")
    folder.chmod(0o755)
    assert fake.host().look("/home/oqto_alice/link").kind == "file"


def test_links_stay_beneath_the_root(fake: Fake) -> None:
    (fake.root / "etc/up").symlink_to("../../../../../../etc/passwd")
    assert fake.host().read("/etc/up").startswith(f"root:x:{UID}")


def test_a_repair_follows_no_link_and_leaves_files_with_two_names_alone(fake: Fake, tmp_path: Path) -> None:
    other = fake.write("/home/oqto_alice/secret", "x", 0o600)
    os.link(other, fake.root / "var/lib/oqtod/oqto.db")
    with pytest.raises(repairs.NotRepaired, match="several names"):
        repairs.repair(fake.host(), SetOwner("/var/lib/oqtod/oqto.db", UID, GID, 0o666))
    assert other.stat().st_mode & 0o777 == 0o600
    fake.folder("/var/lib/oqtod", 0o777)
    (fake.root / "var/lib/oqtod/audit").symlink_to("/home/oqto_alice/secret")
    with pytest.raises(repairs.NotRepaired, match="not followed"):
        repairs.repair(fake.host(), SetOwner("/var/lib/oqtod/audit", UID, GID, 0o666))


def test_repairs_come_in_an_order_that_helps() -> None:
    start, owner = Run(("systemctl", "start", "oqtod.service")), SetOwner("/run/oqto", 0, 0, 0o755)
    users, folders = Run(("systemd-sysusers", "x")), Run(("systemd-tmpfiles", "--create", "x"))
    restart = Run(("systemctl", "restart", "oqtod.service"))
    gateway = Run(("systemctl", "restart", "oqtod-gateway.service"))
    assert repairs.ordered([start, owner, folders, users, start]) == [users, folders, owner, start]
    assert repairs.ordered([start, gateway, restart]) == [restart]
    with pytest.raises(ValueError, match="no repair"):
        repairs.ordered([Run(("rm", "-r", "/"))])
