"""The rest: unwise settings, clocks, the login provider, programs, the audit log, space."""

from __future__ import annotations

import json
import os
import tomllib
from email.utils import formatdate
from pathlib import Path

import pytest

from oqtod.admin.doctor import audit, clocks, configuration, daemon, disks, login, programs, setting
from oqtod.admin.doctor.host import Answer, Unreachable
from tests.unit.doctor.conftest import Fake, bad, only, replace

CHECKOUT = Path(__file__).parents[3]
ISSUER = "https://id.example.org"
PRODUCTION = {"auth.dev_mode": False, "auth.jwt_secret": "0123456789ABCDEFGHJKLMNPQRSTUVWX"}
OIDC = PRODUCTION | {"auth.oidc_issuer": ISSUER, "auth.oidc_audience": "oqto"}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, None),
        (PRODUCTION, None),
        (PRODUCTION | {"auth.jwt_secret": "a" * 40}, "auth.jwt_secret"),
        (PRODUCTION | {"auth.jwt_secret": "my-secret-my-secret-0987654321-zyx"}, "auth.jwt_secret"),
        ({"server.trusted_proxies": ["127.0.0.1"]}, "auth.dev_mode"),
        (PRODUCTION | {"server.host": "0.0.0.0"}, "server.host"),
        ({"server.port": 443}, "server.port"),
    ],
)
def test_settings_that_are_legal_and_unwise(fake: Fake, settings: dict[str, object], key: str | None) -> None:
    found = bad(configuration.wise(fake.host(**settings)))
    assert [one.subject for one in found] == ([] if key is None else [key])
    assert not any("my-secret" in one.found for one in found), "a secret is shown"


def test_a_configuration_newer_than_the_gateway(fake: Fake) -> None:
    unit = "Id=oqtod-gateway.service\nActiveState=active\nActiveEnterTimestamp=@{}\n"
    fake.answers[("systemctl", "show")] = Answer(0, unit.format(int(fake.now)))
    assert list(configuration.in_force(fake.host())) == []
    fake.answers[("systemctl", "show")] = Answer(0, unit.format(int(fake.now) - 5000))
    assert only(configuration.in_force(fake.host())).found == "changed since the gateway started"


def test_the_gateways_variables_are_those_of_its_unit(fake: Fake, tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text("# ours\nAUTH='a b'\n")
    shown = f'Environment=OQTO__SERVER__PORT=81 "X=y z"\nEnvironmentFiles={file} (ignore_errors=no)\n'
    fake.answers[("systemctl", "show")] = Answer(0, shown)
    found = setting.unit_environment(fake.execute)
    assert found == {"OQTO__SERVER__PORT": "81", "X": "y z", "AUTH": "a b"}
    fake.answers.clear()
    assert setting.unit_environment(fake.execute) == {}


def test_a_clock_that_was_set_back(fake: Fake) -> None:
    assert list(clocks.clock(fake.host())) == []
    fake.now -= 3600
    assert "accounts.json was written" in only(clocks.clock(fake.host())).found


def test_a_clock_away_from_the_hardwares(fake: Fake) -> None:
    fake.write("/sys/class/rtc/rtc0/since_epoch", str(int(fake.now) + 200_000))
    assert "hardware" in only(clocks.clock(fake.host())).found


def provider(fake: Fake, *, issuer: str = ISSUER, status: int = 200, late: float = 0.0) -> list[str]:
    document = {"issuer": issuer, "jwks_uri": f"{ISSUER}/keys"}
    date = formatdate(fake.now + late, usegmt=True)

    def fetch(url: str) -> login.Fetched:
        if url.endswith("/keys"):
            return login.Fetched(200, date, b'{"keys": []}')
        assert url == f"{ISSUER}/.well-known/openid-configuration"
        return login.Fetched(status, date, json.dumps(document).encode())

    return [one.found for one in login.provider(fake.host(**OIDC), fetch)]


def test_the_login_provider(fake: Fake) -> None:
    assert provider(fake) == []
    for found, said in (
        (provider(fake, issuer="https://other.example.org"), "calls itself"),
        (provider(fake, status=404), "answered with 404"),
        (provider(fake, late=-900), "900 seconds ahead"),
    ):
        assert len(found) == 1
        assert said in found[0]
    assert list(login.provider(fake.host())) == []


def test_a_provider_that_is_down(fake: Fake) -> None:
    def fetch(url: str) -> login.Fetched:
        raise OSError(0, "name not known", url)

    assert "can't be reached: name not known" in only(login.provider(fake.host(**OIDC), fetch)).found


def healthy_programs(fake: Fake) -> None:
    for name in ("bwrap", "useradd", "userdel", "groupadd", "groupdel", "kill"):
        fake.write(f"/usr/bin/{name}", "#!", 0o755)
    for name in ("oqtod", "oqto-runner", "oqto-ttyd", "oqto-files", "oqto-sandbox"):
        fake.write(f"/usr/bin/{name}", "#!", 0o755)
    fake.write("/bin/kill", "#!", 0o755)


def test_programs(fake: Fake) -> None:
    healthy_programs(fake)
    assert bad(programs.needed(fake.host())) == []
    (fake.root / "usr/bin/useradd").unlink()
    assert only(bad(programs.needed(fake.host()))).subject == "useradd"
    fake.write("/usr/bin/useradd", "#!", 0o777)
    assert "mode 0777" in only(bad(programs.needed(fake.host()))).found
    fake.write("/usr/bin/useradd", "", 0o755)
    assert only(bad(programs.needed(fake.host()))).found == "an empty file"


def test_a_terminal_program_that_was_named_must_be_there(fake: Fake) -> None:
    healthy_programs(fake)
    host = fake.host(**{"local.ttyd_binary": "/opt/ttyd"})
    assert only(bad(programs.needed(host))).subject == "/opt/ttyd"


def test_what_browsers_need(fake: Fake) -> None:
    def found(**settings: object) -> list[str]:
        named = {f"agent_browser.{name}": value for name, value in settings.items()}
        return [one.subject for one in bad(programs.needed(fake.host(**named)))]

    healthy_programs(fake)
    assert found() == []
    names = "chromium or chromium-browser or google-chrome or google-chrome-stable"
    assert found(enabled=True) == ["oqto-browserd", names]
    fake.write("/usr/bin/oqto-browserd", "#!", 0o755)
    assert found(enabled=True) == [names]
    assert found(enabled=True, executable_path="/opt/c") == ["/opt/c"]
    fake.write("/usr/bin/chromium", "#!", 0o755)
    assert found(enabled=True) == []
    assert found(enabled=True, binary="agent-browser") == ["agent-browser"]
    assert found(enabled=True, extensions=["/opt/e"]) == ["/opt/e"]
    fake.write("/opt/e/manifest.json", "{}")
    assert found(enabled=True, extensions=["/opt/e"]) == []


def test_an_old_bwrap_and_systemd(fake: Fake) -> None:
    fake.write("/usr/bin/bwrap", "#!", 0o755)
    fake.answers[("bwrap", "--help")] = Answer(0, "--args --disable-userns")
    fake.answers[("systemctl", "--version")] = Answer(0, "systemd 241 (241)\n")
    found = {one.subject: one.found for one in programs.versions(fake.host())}
    assert found == {"bwrap": "knows no --bind-fd", "systemd": "version 241"}


def test_the_lowest_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert dict(line.split(">=") for line in project["dependencies"]) == programs.FLOORS


def test_package_files(fake: Fake) -> None:
    fake.write("/var/lib/dpkg/info/oqtod.list", "/.\n/usr/share/oqtod/a.py\n/usr/bin/oqtod\n")
    fake.write("/usr/share/oqtod/a.py", "x")
    fake.write("/usr/bin/oqtod", "#!", 0o755)
    fake.answers[("dpkg-query",)] = Answer(0, f"ii  {programs.__version__}")
    fake.answers[("dpkg", "--verify")] = Answer(0)
    assert list(programs.package(fake.host())) == []
    fake.write("/usr/share/oqtod/a.py", "x", 0o666)
    fake.answers[("dpkg-query",)] = Answer(0, "iF  0.0.1")
    fake.answers[("dpkg", "--verify")] = Answer(
        1,
        "missing   c /etc/oqto/sandbox.toml\n??5?????? c /etc/oqto/config.toml\n??5??????   /usr/bin/oqtod\n",
    )
    found = {one.subject: one.found for one in programs.package(fake.host())}
    assert found["oqtod"] == "the package is in the state iF"
    assert "should be root 0644" in found["/usr/share/oqtod/a.py"]
    assert found["/usr/bin/oqtod"] == "not what the package installed"
    assert found["/etc/oqto/sandbox.toml"] == "missing, though the package has it"
    assert "/etc/oqto/config.toml" not in found


def test_the_audit_log(fake: Fake) -> None:
    fake.write("/etc/logrotate.d/oqtod", "x")
    assert list(audit.log(fake.host())) == []
    big = fake.write("/var/lib/oqtod/audit.log.jsonl", "")
    os.truncate(big, 2 * 1024**3)  # sparse
    assert "2048 MB" in only(bad(audit.log(fake.host()))).found


def figures(*, free: int = 500_000, inodes: int = 50_000, flags: int = 0) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, 1_000_000, free, free, 100_000, inodes, inodes, flags, 255))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (figures(), set()),
        (figures(free=100), {"0 MB of 3906 MB are free"}),
        (figures(free=30_000), {"117 MB are free, 3.0 %"}),
        (figures(inodes=3), {"3 of 100000 inodes are free"}),
        (figures(flags=os.ST_RDONLY), {"mounted read-only"}),
        (figures(flags=os.ST_NOEXEC), {"mounted noexec"}),
    ],
)
def test_file_systems(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, state: os.statvfs_result, said: set[str]
) -> None:
    host = fake.host()
    monkeypatch.setattr(type(host), "space", lambda *_: state)
    assert {one.found for one in disks.file_systems(host)} == said


def test_the_daemons_own_word(fake: Fake) -> None:
    fake.answers[("systemctl", "show")] = Answer(0, "Id=oqtod-gateway.service\nActiveState=active\n")
    answer: dict[str, object] = {"status": "degraded", "version": "0.0.1"}
    answer["checks"] = {"disk": {"status": "failed", "error": "1 MB free"}, "audit": {"status": "ok"}}
    told = {one.subject: one.found for one in daemon.health(replace(fake.host(), ask=lambda _: answer))}
    assert told["gateway: disk"] == "1 MB free"
    assert told["gateway"].startswith("version 0.0.1 runs")

    def silent(_: str) -> object:
        raise Unreachable("connection refused")

    assert "connection refused" in only(daemon.health(replace(fake.host(), ask=silent))).found
    strange = replace(fake.host(), ask=lambda _: ["x"])
    assert "a strange answer" in only(daemon.health(strange)).found
