"""What systemd says of the units, as it says it."""

from __future__ import annotations

import pytest

from oqtod.admin.doctor import services, systemd
from oqtod.admin.doctor.finding import Finding
from oqtod.admin.doctor.host import Answer
from tests.unit.doctor.conftest import Fake

COMMON = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "FragmentPath": "/usr/lib/systemd/system/UNIT",
    "NeedDaemonReload": "no",
    "NRestarts": "0",
    "MainPID": "77",
    "ExecMainStatus": "0",
    "ActiveEnterTimestamp": "@1700000000",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateDevices": "yes",
    "PrivateNetwork": "yes",
    "MemoryDenyWriteExecute": "yes",
    "CapabilityBoundingSet": "",
    "User": "oqtod",
    "Group": "oqtod",
    "ExecStart": "{ path=/usr/bin/oqtod ; argv[]=/usr/bin/oqtod serve }",
}


def shown(**changes: str) -> str:
    blocks = [
        "\n".join(f"{key}={value}" for key, value in {"Id": name, **COMMON, **changes}.items())
        for name in ("oqtod.service", "oqtod-gateway.service")
    ]
    return "\n\n".join(blocks) + "\n"


def found(fake: Fake, **changes: str) -> list[Finding]:
    fake.answers[("systemctl", "show")] = Answer(0, shown(**changes))
    fake.answers[("systemd-analyze",)] = Answer(0)
    fake.answers[("journalctl",)] = Answer(0, "went wrong\n")
    return list(services.daemons(fake.host()))


def test_healthy_units_have_no_findings(fake: Fake) -> None:
    assert found(fake) == []


@pytest.mark.parametrize(
    ("changes", "said", "repair"),
    [
        ({"LoadState": "masked"}, "masked", None),
        ({"LoadState": "not-found", "FragmentPath": ""}, "no such unit", "systemctl daemon-reload"),
        ({"LoadState": "bad-setting", "LoadError": "line 3"}, "bad-setting", None),
        ({"NeedDaemonReload": "yes"}, "files changed", "systemctl daemon-reload"),
        ({"UnitFileState": "disabled"}, "not enabled", "systemctl enable oqtod.service"),
        ({"ActiveState": "inactive"}, "inactive; last in its journal: went wrong", "systemctl start"),
        (
            {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "3"},
            "status 3",
            "systemctl start",
        ),
        ({"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "9"}, "restarted 9", None),
        ({"NRestarts": "5"}, "restarted 5 times", None),
        ({"ProtectSystem": "no"}, "ProtectSystem=no", None),
        ({"CapabilityBoundingSet": "cap_sys_admin"}, "CapabilityBoundingSet=cap_sys_admin", None),
        ({"User": "root"}, "User=root", None),
        ({"FragmentPath": "/etc/systemd/system/oqtod.service"}, "stands in for the packaged unit", None),
        ({"DropInPaths": "/etc/systemd/system/oqtod.service.d/x.conf"}, "local changes", None),
        ({"ExecStart": "{ path=/bin/false ; argv[]=/bin/false }"}, "starts /bin/false", None),
    ],
)
def test_each_fault_is_said(fake: Fake, changes: dict[str, str], said: str, repair: str | None) -> None:
    fitting = [one for one in found(fake, **changes) if said in one.found]
    assert fitting
    assert all((repair or "") in str(one.repair or "") for one in fitting)
    assert any(one.repair is not None for one in fitting) == (repair is not None)


def test_a_line_that_systemd_ignores(fake: Fake) -> None:
    fake.answers[("systemctl", "show")] = Answer(0, shown())
    fake.answers[("systemd-analyze",)] = Answer(
        0, "", "/etc/systemd/system/oqtod.service.d/x.conf:2: Unknown\n"
    )
    assert any("x.conf:2" in one.found for one in services.daemons(fake.host()))


def test_systemd_that_does_not_answer_is_said_once(fake: Fake) -> None:
    fake.answers[("systemctl", "is-system-running")] = Answer(1, "", "Failed to connect to bus")
    (one,) = systemd.answers(fake.host())
    assert "Failed to connect to bus" in one.found


def test_a_bus_that_is_masked(fake: Fake) -> None:
    fake.answers[("systemctl", "is-system-running")] = Answer(0, "running\n")
    masked = "Id=dbus.socket\nActiveState=inactive\nLoadState=masked\n"
    fake.answers[("systemctl", "show")] = Answer(0, masked)
    fake.answers[("busctl",)] = Answer(1, "", "refused")
    assert "D-Bus: dbus.socket is inactive (masked)" in [
        f"{one.subject}: {one.found}" for one in systemd.answers(fake.host())
    ]


def test_a_runner_that_failed(fake: Fake) -> None:
    fake.answers[("systemctl", "list-units")] = Answer(
        0, "oqto-runner@oqto_alice.service loaded failed failed x\n"
    )
    name = "oqto-runner@oqto_alice.service"
    failed = f"Id={name}\nLoadState=loaded\nActiveState=failed\nResult=exit-code\n"
    fake.answers[("systemctl", "show")] = Answer(0, failed)
    fake.answers[("journalctl",)] = Answer(0, "no such file\n")
    # The templates get the same answer, and come first.
    one = list(services.accounts_runners(fake.host()))[-1]
    assert one.subject == name
    assert "no such file" in one.found
    assert str(one.repair) == f"systemctl reset-failed {name}"
