"""The system's accounts, people's accounts against the registry, locks, homes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from oqtod.admin.doctor import accounts
from oqtod.admin.doctor.host import Answer
from tests.unit.doctor.conftest import PASSWD, REGISTRY, Fake, bad


@pytest.fixture(autouse=True)
def no_units(fake: Fake) -> None:
    fake.answers[("systemctl", "list-units")] = Answer(0)


def told(fake: Fake) -> list[str]:
    found = [*accounts.system(fake.host()), *accounts.files(fake.host()), *accounts.registry(fake.host())]
    return [f"{one.subject}: {one.found}" for one in bad(found) if "home" not in one.subject or one.advice]


def rows(*changes: dict[str, Any]) -> bytes:
    (alice,) = REGISTRY["accounts"]  # type: ignore[misc]  # a list, as it stands there
    return msgspec.json.encode({"version": 1, "accounts": [alice | change for change in changes]})


def homes_aside(lines: list[str]) -> list[str]:
    """Without root nobody can give a home to another uid."""
    return [line for line in lines if "and not to oqto_alice" not in line and "uid" not in line[:12]]


def test_a_healthy_host_has_no_findings(fake: Fake) -> None:
    entries = PASSWD.replace("oqtod:x:0", "oqtod:x:900")
    fake.write("/etc/passwd", entries)
    assert [x for x in homes_aside(told(fake)) if "uid 0" not in x and "is that of" not in x] == []


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("/etc/passwd", "oqtod:x:", "gone:x:", "oqtod (user): not in /etc/passwd"),
        ("/etc/group", "oqto-admin:", "other:", "oqto-admin (group): not in /etc/group"),
        ("/etc/group", "oqto:x", "other:x", "oqto (group): not in /etc/group"),
        ("/etc/passwd", "oqto_alice:x:2000", "someone:x:2000", "oqto_alice: in the registry (uid 2000)"),
        ("/etc/passwd", "oqto_alice:x:2000", "oqto_alice:x:2001", "oqto_alice: uid 2001 in /etc/passwd"),
        ("/etc/passwd", "oqto_alice:/bin/bash", "oqto_alice:/bin/fish", "its shell is /bin/fish"),
        ("/etc/passwd", ":/home/oqto_alice:", ":/home/else:", "its home is /home/else"),
        ("/etc/group", "oqto:x:990:oqto_alice", "oqto:x:990:", "not in the group oqto"),
        ("/etc/group", "oqto_alice:x:2000", "oqto_alice:x:2001", "has no group of its own"),
        ("/etc/passwd", "root:x", "nonsense\nroot:x", "/etc/passwd: line 1 is not whole"),
    ],
)
def test_what_administrators_break(fake: Fake, path: str, old: str, new: str, expected: str) -> None:
    text = (fake.root / path[1:]).read_text()
    assert old in text
    assert not any(expected in line for line in told(fake))
    fake.write(path, text.replace(old, new))
    assert any(expected in line for line in told(fake)), told(fake)


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        (b"{", "can't be read"),
        (rows({"state": "creating"}), "creating: the registry says that this did not end"),
        (rows({"state": "deleted"}), "has uid 2000, which belonged to a deleted account"),
        (
            rows({"state": "deleted", "uid": 1999}),
            "oqto_alice: in /etc/passwd (uid 2000), and not in the reg",
        ),
        (rows({}, {"name": "oqto_bob"}), "uid 2000 twice"),
    ],
)
def test_what_the_registry_says(fake: Fake, registry: bytes, expected: str) -> None:
    assert not any(expected in line for line in told(fake))
    fake.write(accounts.places.REGISTRY, registry, 0o600)
    assert any(expected in line for line in told(fake)), told(fake)


def test_two_of_one_uid(fake: Fake) -> None:
    fake.write("/etc/passwd", PASSWD + "twin:x:2000:2000::/:/bin/sh\n")
    assert "/etc/passwd: uid 2000 is that of oqto_alice and twin" in told(fake)


def test_a_home_that_is_gone_or_open(fake: Fake) -> None:
    home = fake.root / "home/oqto_alice"
    home.chmod(0o777)
    assert "/home/oqto_alice: mode 0777" in told(fake)
    home.chmod(0o500)
    assert "/home/oqto_alice: mode 0500" in told(fake)
    home.rmdir()
    assert "/home/oqto_alice: missing" in told(fake)
    home.symlink_to("/etc")
    fake.folder("/home", 0o777)
    assert any("/home/oqto_alice: could not be looked at: a link" in line for line in told(fake))


@pytest.mark.parametrize(("holder", "is_found"), [("", True), ("\0", True), ("999999999", False)])
def test_a_lock_that_nobody_holds(fake: Fake, holder: str, is_found: bool) -> None:
    fake.folder("/proc")
    fake.write("/etc/passwd.lock", holder)
    assert any("/etc/passwd.lock" in line for line in told(fake)) == is_found
