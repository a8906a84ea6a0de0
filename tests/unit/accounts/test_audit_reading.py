"""The audit log's end, read backwards: every line that is wanted, once, and no more work than is allowed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from oqtod.telemetry import audit, audit_reading
from oqtod.telemetry.audit import Actor, Audit, Line
from oqtod.telemetry.audit_reading import Wanted, last_lines


def text(number: int, **fields: str) -> bytes:
    line = {
        "timestamp": f"2026-01-01T00:00:{number / 1000:09.6f}Z",
        "event": "admin.request",
        "request_id": str(number),
    }
    return json.dumps(line | fields).encode() + b"\n"


def numbers(lines: list[bytes]) -> list[int]:
    return [int(json.loads(line)["request_id"]) for line in lines]


def test_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    events = ("auth.login", "auth.logout", "session.stop")
    path.write_bytes(b"".join(text(n, event=events[n % 3], user_id=f"u{n % 2}") for n in range(60)))
    assert numbers(last_lines(path, Wanted(), 5).lines) == [55, 56, 57, 58, 59]
    assert numbers(last_lines(path, Wanted(event="auth.login"), 2).lines) == [54, 57]
    assert numbers(last_lines(path, Wanted(event="auth"), 3).lines) == [55, 57, 58]
    assert numbers(last_lines(path, Wanted(users=frozenset({"u1"})), 2).lines) == [57, 59]
    since = json.loads(text(57))["timestamp"]
    found = last_lines(path, Wanted(since=since), 10)
    assert (numbers(found.lines), found.complete) == ([57, 58, 59], True)
    assert not last_lines(path, Wanted(), 59).complete
    assert last_lines(path, Wanted(), 60).complete
    assert last_lines(path, Wanted(), 0).newest == json.loads(text(59))["timestamp"]
    assert last_lines(path, Wanted(event="no"), 9).lines == []


@pytest.mark.parametrize("name", ["audit.jsonl.1", "audit.jsonl-20260101", "audit.jsonl.2026-01-01"])
def test_it_goes_on_in_the_file_that_was_rotated_last(tmp_path: Path, name: str) -> None:
    for older, when in (("audit.jsonl.2.gz", 3), ("audit.jsonl.3", 1), (name, 2), ("audit.jsonlx", 9)):
        (tmp_path / older).write_bytes(text(when))
        os.utime(tmp_path / older, (when, when))
    path = tmp_path / "audit.jsonl"
    assert numbers(last_lines(path, Wanted(), 9).lines) == [2]  # just rotated, and nothing new yet
    path.write_bytes(text(7))
    assert numbers(last_lines(path, Wanted(), 9).lines) == [2, 7]


def test_torn_lines_and_what_is_being_written_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(text(1) + b'{"timest\n' + b"\n" + b"\xff\xfe\n" + text(2) + text(3)[:-1])
    assert numbers(last_lines(path, Wanted(), 9).lines) == [1, 2]
    path.write_bytes(b"no end of a line")
    assert last_lines(path, Wanted(), 9).lines == []


def test_there_is_no_file(tmp_path: Path) -> None:
    found = last_lines(tmp_path / "audit.jsonl", Wanted(), 9)
    assert (found.lines, found.complete, found.newest) == ([], True, "")


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(text(1))
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        last_lines(tmp_path / "audit.jsonl", Wanted(), 9)


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 64))
def test_lines_are_found_wherever_blocks_end(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "blocks.jsonl"
    path.write_bytes(b"".join(text(n, detail="x" * length) for n, length in enumerate(lengths)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_reading, "_BLOCK", block)
        assert numbers(last_lines(path, Wanted(), 1000).lines) == list(range(len(lengths)))


def test_work_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_reading, "_BLOCK", 1000)
    monkeypatch.setattr(audit_reading, "MAX_SCANNED", 10_000)
    path, length = tmp_path / "audit.jsonl", len(text(10))
    path.write_bytes(text(9, event="auth.login") + b"".join(text(n) for n in range(10, 1000)))
    found = last_lines(path, Wanted(event="auth.login"), 1)
    assert (found.lines, found.complete) == ([], False)
    assert len(last_lines(path, Wanted(), 1000).lines) == pytest.approx(10_000 / length, abs=2)
    path.write_bytes(b"x" * 1_000_000 + b"\n")  # one line without an end
    assert not last_lines(path, Wanted(), 1).complete


def line(number: int) -> Line:
    return Line(event="admin.request", outcome="success", request_id=str(number), actor=Actor("token"))


async def test_followers_hear_of_lines_that_are_written(tmp_path: Path) -> None:
    log = Audit(tmp_path / "audit.jsonl")
    log.write(line(0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.keep)
        await log.settle(timeout=10)
        with log.follow() as follower:
            log.write(line(1))
            with trio.fail_after(10):
                lines, missed = await follower.next()
            assert (numbers(lines), missed) == ([1], 0)
            assert numbers((tmp_path / "audit.jsonl").read_bytes().splitlines()) == [0, 1]
        nursery.cancel_scope.cancel()
    await log.close()


async def test_a_slow_follower_is_told_how_much_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_FOLLOWED", 3)
    log = Audit(tmp_path / "audit.jsonl")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.keep)
        with log.follow() as follower, trio.fail_after(30):
            for number in range(10):
                log.write(line(number))
                await log.settle(timeout=10)
            lines, missed = await follower.next()
            assert (numbers(lines), missed) == ([0, 1, 2], 7)
            log.write(line(10))
            lines, missed = await follower.next()
            assert (numbers(lines), missed) == ([10], 0)
        nursery.cancel_scope.cancel()
    await log.close()
