"""What a service reports: kept for a while, kept short, whoever has the file open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from runner import output_log
from runner.output_log import KEPT, MOST, OutputLog


@pytest.fixture
def log(tmp_path: Path) -> OutputLog:
    return OutputLog(tmp_path / "terminal.log")


def test_nothing_has_been_reported_yet(log: OutputLog) -> None:
    log.shorten()
    assert (log.text(), log.last_lines()) == ("", "")


def test_the_run_before_is_kept_and_the_reason_of_an_end_is_this_runs(log: OutputLog) -> None:
    for run in ("first", "second", "third"):
        log.begin()
        log.path.write_text(f"{run} run\n")
    assert log.text() == "second run\nthird run\n"
    log.begin()
    assert log.text() == "third run\n"
    assert log.last_lines() == ""


def test_a_long_file_is_cut_at_a_line_and_its_writer_goes_on(log: OutputLog) -> None:
    descriptor = os.open(log.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        while os.fstat(descriptor).st_size <= MOST:
            os.write(descriptor, b"a line of what it reports\n")
        log.shorten()
        assert 0 < log.path.stat().st_size <= KEPT
        os.write(descriptor, b"the last\n")
        assert set(log.path.read_text().splitlines()) == {"a line of what it reports", "the last"}
        assert log.text().endswith("the last\n")
    finally:
        os.close(descriptor)


def test_a_short_file_stays(log: OutputLog) -> None:
    log.path.write_text("x" * (MOST - 1))
    log.shorten()
    assert log.path.stat().st_size == MOST - 1


async def test_a_link_in_its_place_is_not_followed(
    log: OutputLog, tmp_path: Path, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:

    other = tmp_path / "other"
    other.write_text("x" * (MOST + 1))
    log.path.symlink_to(other)
    with trio.move_on_after(output_log._LOOK_INTERVAL * 2.5):
        await log.keep_short()
    assert other.stat().st_size == MOST + 1
    assert "can't be cut" in caplog.text
