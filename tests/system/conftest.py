"""Machines for the system tests: a bare one, and one with our package installed and two people."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest

from tests.clients import Http
from tests.system.machine import Machine
from tests.system.pristine import pristine_root

CHECKOUT = Path(__file__).parents[2]
PASSWORDS = {"alice": "alice's password", "bob": "bob's password"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="boots a container: run the tests as root"))


@pytest.fixture(scope="session")
def deb() -> Path:
    """Our package, built from this checkout."""
    subprocess.run([CHECKOUT / "packaging/build-deb"], check=True, timeout=300)
    (built,) = (CHECKOUT / "dist").glob("oqtod_*_all.deb")
    return built


@pytest.fixture(scope="session")
def boot(deb: Path) -> Iterator[Callable[[str], Machine]]:
    """Boots machines by name; the package is in /mnt. They are gone when the tests are."""
    machines: list[Machine] = []

    def boot_one(name: str) -> Machine:
        machines.append(Machine(pristine_root(), f"oqtod-{name}-{os.getpid()}", shown=[deb]))
        return machines[-1]

    yield boot_one
    for machine in machines:
        machine.power_off()


def install(machine: Machine, deb: Path) -> str:
    """Install our package the way an administrator does; what apt printed."""
    return machine.run("apt-get", "install", "--yes", f"/mnt/{deb.name}", timeout=180).stdout


@dataclass
class Host:
    """A machine with our package and the people of `PASSWORDS`."""

    machine: Machine

    def configure(self, **environment: str) -> None:
        """Restart oqtod with these variables set, such as OQTO__SESSIONS__AUTO_ATTACH; none: as installed."""
        lines = "".join(f'Environment="{name}={value}"\n' for name, value in environment.items())
        for unit in ("oqtod", "oqtod-gateway"):
            folder = f"/run/systemd/system/{unit}.service.d"
            self.machine.run("mkdir", "-p", folder)
            self.machine.run("tee", f"{folder}/test.conf", stdin=f"[Service]\n{lines}")
        self.machine.sh("systemctl daemon-reload; systemctl restart oqtod; systemctl start oqtod-gateway")

    def http(self) -> Http:
        """Somebody who isn't logged in."""
        return Http(self.machine.connect)

    def login(self, username: str) -> Http:
        """One of the people."""
        http = self.http()
        answer = http.login(username, PASSWORDS[username])
        assert answer.status == 200, answer
        return http


def people(passwords: dict[str, str]) -> str:
    """The configuration of these people."""
    return "".join(
        f'\n[[auth.dev_users]]\nid = "{name}"\nname = "{name.title()}"\nemail = "{name}@example.com"\n'
        f'password_hash = "{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}"\nrole = "user"\n'
        for name, password in passwords.items()
    )


def prepare(machine: Machine, deb: Path) -> Host:
    """Install our package, with the people of `PASSWORDS`."""
    install(machine, deb)
    machine.run("tee", "-a", "/etc/oqto/config.toml", stdin=people(PASSWORDS))
    machine.run("systemctl", "restart", "oqtod")
    machine.run("systemctl", "start", "oqtod-gateway")  # it is starting: this waits until it has
    return Host(machine)


@pytest.fixture(scope="session")
def installed_host(boot: Callable[[str], Machine], deb: Path) -> Host:
    return prepare(boot("host"), deb)


@pytest.fixture
def host(installed_host: Host) -> Iterator[Host]:
    """The host with two people. A journal line that the test doesn't expect fails it."""
    installed_host.machine.start_watching_the_journal()
    yield installed_host
    unexpected = installed_host.machine.unexpected_lines()
    assert not unexpected, "\n".join(unexpected)
