"""Checks run apart from each other; what the report and the table promise."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest

from oqtod.admin.doctor import report
from oqtod.admin.doctor.checks import CHECKS, Check
from oqtod.admin.doctor.command import doctor
from oqtod.admin.doctor.examination import Told, examine
from oqtod.admin.doctor.finding import Finding, Run, problem
from oqtod.admin.doctor.host import Host
from tests.unit.doctor.conftest import Fake

DOCUMENT = Path(__file__).parents[3] / "docs/doctor.md"


def breaks(_: Host) -> Iterator[Finding]:
    yield problem("first", "found", "matters", "advice")
    raise ZeroDivisionError("oops")


def works(_: Host) -> Iterator[Finding]:
    yield problem("second", "found", "matters", "advice")


def test_a_check_that_fails_takes_nothing_along(fake: Fake) -> None:
    told = examine(
        fake.host(), checks=[Check("a", "a check", [breaks, works]), Check("b", "b", [lambda _: []])]
    )
    assert [(one.check, one.finding.subject) for one in told] == [
        ("a", "first"),
        ("a", "a check"),
        ("a", "second"),
        ("b", "b"),
    ]
    assert "ZeroDivisionError: oops" in told[1].finding.found
    assert told[3].finding.severity == "ok"


def test_a_check_that_hangs_is_left_behind(fake: Fake) -> None:
    never, ended = threading.Event(), threading.Event()

    def hangs(_: Host) -> Iterator[Finding]:
        yield problem("first", "found", "matters", "advice")
        never.wait(60)
        ended.set()

    try:
        checks = [Check("a", "a", [hangs]), Check("b", "b", [works])]
        told = examine(fake.host(), checks=checks, patience=0.2)
    finally:
        never.set()
    assert ended.wait(10)
    assert [one.finding.subject for one in told] == ["first", "a", "second"]
    assert "did not end within 0.2 seconds" in told[1].finding.found


def test_no_check_breaks_on_an_empty_host(tmp_path: Path) -> None:
    """Whatever is missing: each check says what, and none is lost."""
    told = examine(Fake(tmp_path).host())
    assert {one.check for one in told} == {check.name for check in CHECKS}
    errors = ("KeyError", "IndexError", "AttributeError", "TypeError", "AssertionError", "ValueError")
    assert [one.finding.found for one in told if any(word in one.finding.found for word in errors)] == []


def test_names_are_one_each_and_explained() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    explained = re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert explained == names


def test_the_json_is_stable() -> None:
    repaired = Told("units", problem("u", "f", "m", "a", Run(("systemctl", "enable", "u"))))
    (left, fixed) = report.document([Told("x", Finding("ok", "s", "f"))], [repaired])
    assert list(left) == ["check", "severity", "subject", "found", "matters", "advice", "fixable", "fixed"]
    assert (left["fixable"], left["fixed"]) == (False, False)
    assert (fixed["fixable"], fixed["fixed"], fixed["severity"]) == (True, True, "problem")


def test_what_a_person_chose_cannot_steer_the_terminal() -> None:
    evil = Told("x", problem("a\x1b[2Jb", "c\nd", "e\x07", "f\r"))
    text = click.unstyle("\n".join(report.lines([evil], [], tried=False)))
    assert not any(character in text for character in "\x1b\x07\r")


def test_personal_mode_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    config = tmp_path / "config.toml"
    config.write_text("[server]\nprot = 1\n")
    run = click.testing.CliRunner().invoke
    answer = run(doctor, ["--personal", "--json", "--config", str(config)])
    found = json.loads(answer.stdout)
    assert any(one["subject"] == "server.prot" and one["severity"] == "problem" for one in found)
    config.write_text("")
    answer = run(doctor, ["--personal", "--json", "--config", str(config)])
    assert not any(
        one["check"] == "configuration" and one["severity"] == "problem" for one in json.loads(answer.stdout)
    )
