"""What oqtoctl prints: for programs a row a line and nothing cut, for terminals nothing that steers them."""

from __future__ import annotations

import json
import re
import time

import pytest

from oqtod.admin import output
from oqtod.admin.session_top import _Look


def test_piped_tables_are_aligned_text_with_every_column_filled(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", ">size", "note"), [("a", 1, None), ("longer", 12345, "x" * 300), ("b", 2, "")])
    assert capsys.readouterr().out.splitlines() == [
        "NAME     SIZE  NOTE",
        "a           1  -",
        f"longer  12345  {'x' * 300}",
        "b           2  -",
    ]


def test_an_empty_table_is_a_heading_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "note"), [], empty="There is nothing.")
    assert capsys.readouterr().out == "NAME  NOTE\n"


def test_on_a_terminal_people_are_told_that_there_is_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.table(("name", "note"), [], empty="There is nothing.")
    assert capsys.readouterr().out == "There is nothing.\n"


def test_on_a_terminal_tables_fit_its_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    output.table(("name", "note"), [("[red]a", "word " * 30)])
    shown = capsys.readouterr().out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(map(len, plain.splitlines())) <= 40
    assert shown.count("word") == 30
    assert "[red]a" in shown  # no markup of rich's: people choose names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain näme", "plain näme"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("two\nlines\tand a tab", "two\\nlines\\tand a tab"),
        ("\x9b31m", "\\x9b31m"),
        ("right\u202eleft", "right\\u202eleft"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_others_wrote_does_not_steer_a_terminal(text: str, shown: str) -> None:
    assert output.printable(text) == shown
    assert output.cell(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), ("", "-"), (True, "yes"), (False, "no"), (0, "0"), ([], "-"), (["a", "b"], "a,b")],
)
def test_cells(value: object, shown: str) -> None:
    assert output.cell(value) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (1023, "1023B"), (1024, "1.0K"), (1536, "1.5K"), (10 * 2**20, "10M"), (2**50, "1024T")],
)
def test_sizes(count: int, shown: str) -> None:
    assert output.size(count) == shown


def test_moments_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    try:
        assert output.moment("2030-07-01T12:00:00.123456Z") == "2030-07-01 14:00:00"
        assert output.moment(None) is None
    finally:
        monkeypatch.undo()
        time.tzset()


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    output.document({"name": "n\x1bäme\u2028"})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed) == {"name": "n\x1bäme\u2028"}


def look(moment: float, **cpu: float) -> _Look:
    seen = _Look.__new__(_Look)
    seen.moment = moment
    seen.sessions = [
        {
            "id": name,
            "readable_id": name,
            "user_id": "u",
            "linux_user": "oqto_u",
            "last_activity_at": None,
            "busy": False,
            "usage": {"cpu": seconds, "memory": 10, "tasks": 3},
        }
        for name, seconds in cpu.items()
    ]
    return seen


def test_cpu_use_is_what_was_spent_between_two_looks() -> None:
    measured = look(12.0, idle=5.0, busy=4.0, new=30.0).since(look(10.0, idle=5.0, busy=1.0, gone=9.0))
    assert [(x["id"], x["cpu_percent"]) for x in measured] == [("busy", 150.0), ("idle", 0.0), ("new", 0.0)]
