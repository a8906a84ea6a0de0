"""The audit log: whole lines, in order, none lost, whatever happens to the file."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from oqtod.telemetry import audit, line_file
from oqtod.telemetry.audit import EVENTS, Actor, Audit, Line


def line(number: int, **fields: object) -> Line:
    return Line(
        event="admin.request",
        outcome="success",
        request_id=str(number),
        actor=Actor("token", ip="::1"),
        **fields,
    )


@asynccontextmanager
async def keeping(log: Audit) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.keep)
        yield
        nursery.cancel_scope.cancel()
    await log.close()


def numbers(*files: Path) -> list[int]:
    return [int(json.loads(x)["request_id"]) for file in files for x in file.read_text().splitlines()]


async def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "below" / "audit.jsonl"
    log = Audit(path)
    async with keeping(log):
        log.write(line(1, detail='a "quoted"\nsecond {line}\u2028\x00', path="/x\r\ny"))
    (text,) = path.read_text().splitlines()
    assert json.loads(text)["detail"] == 'a "quoted"\nsecond {line}\u2028\x00'
    assert json.loads(text)["actor"] == {"kind": "token", "ip": "::1"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def write(log: Audit, first: int, end: int) -> None:
    for number in range(first, end):
        log.write(line(number))
        await trio.sleep(0)


async def test_ten_thousand_at_once_while_the_file_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = Audit(path)
    rotated: list[Path] = []
    async with keeping(log):
        for start in range(0, 10_000, 2000):
            async with trio.open_nursery() as nursery:
                for first in range(start, start + 2000, 500):
                    nursery.start_soon(write, log, first, first + 500)
                with trio.fail_after(10):
                    while not path.exists():
                        await trio.sleep(0)
                rotated.append(path.rename(tmp_path / f"audit.jsonl.{start}"))
                if start == 4000:
                    log.reopen()
    assert sorted(numbers(*rotated, *([path] if path.exists() else []))) == list(range(10_000))


async def test_an_end_in_the_middle_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    log = Audit(path)
    writing, go_on, real = threading.Event(), threading.Event(), os.write

    def slow(descriptor: int, data: bytes) -> int:
        writing.set()
        assert go_on.wait(10)
        return real(descriptor, data)

    monkeypatch.setattr(line_file.os, "write", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.keep)
        log.write(line(1))
        assert await trio.to_thread.run_sync(writing.wait, 10)
        nursery.cancel_scope.cancel()
    log.write(line(2))
    go_on.set()
    await log.close()
    assert numbers(path) == [1, 2]


async def test_a_line_that_was_torn_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"torn":')
    log = Audit(path)
    async with keeping(log):
        log.write(line(1))
    torn, whole = path.read_text().splitlines()
    assert torn == '{"torn":'
    assert json.loads(whole)["request_id"] == "1"


async def test_a_disk_that_fails_is_reported_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    log = Audit(path)
    real, room = os.write, 100

    def full(descriptor: int, data: bytes) -> int:
        nonlocal room
        written = real(descriptor, bytes(data)[:room])
        room -= written
        if not written:
            raise OSError(28, "No space left on device")
        return written

    monkeypatch.setattr(line_file.os, "write", full)
    async with keeping(log):
        for number in range(10):
            log.write(line(number))
        with trio.fail_after(60):
            while log.trouble is None:
                await trio.sleep(0.1)
            assert "No space left" in (log.trouble or "")
            assert path.read_bytes() == b""  # nothing of it rather than half a line
            room = 1_000_000
            while log.trouble is not None:
                await trio.sleep(0.1)
    assert numbers(path) == list(range(10))


async def test_a_file_that_is_emptied_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"request_id": "0"}\n' * 100)
    log = Audit(path)
    real, failed = os.write, False

    def full(descriptor: int, data: bytes) -> int:
        nonlocal failed
        if failed:
            return real(descriptor, data)
        if os.fstat(descriptor).st_size > 100:
            os.truncate(path, 0)  # somebody makes room in the middle of it
            return real(descriptor, bytes(data)[:10])
        failed = True
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(line_file.os, "write", full)
    async with keeping(log):
        log.write(line(1))
        with trio.fail_after(60):
            await log.settle(timeout=60)
    assert failed
    assert numbers(path) == [1]


async def test_two_write_to_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    first, second = Audit(path), Audit(path)
    async with keeping(first), keeping(second), trio.open_nursery() as nursery:
        nursery.start_soon(write, first, 0, 1000)
        nursery.start_soon(write, second, 1000, 2000)
    assert sorted(numbers(path)) == list(range(2000))


async def test_what_does_not_fit_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_WAITING", 5)
    path = tmp_path / "missing"
    path.mkdir()  # a folder can't be written to
    log = Audit(path)
    async with keeping(log):
        for number in range(8):
            log.write(line(number))
        with trio.fail_after(60):
            while "3 lines were lost: the audit log" not in (log.trouble or ""):
                await trio.sleep(0.1)
            path.rmdir()
            while log.trouble is not None:
                await trio.sleep(0.1)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert [x["event"] for x in lines] == ["admin.request"] * 5 + ["audit.lost"]
    assert lines[-1]["detail"] == "3 lines"


async def test_links_are_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    (tmp_path / "audit.jsonl").symlink_to(target)
    log = Audit(tmp_path / "audit.jsonl")
    async with keeping(log):
        log.write(line(1))
        with trio.fail_after(60):
            while log.trouble is None:
                await trio.sleep(0.1)
    assert target.read_bytes() == b""


async def test_without_a_file(tmp_path: Path) -> None:
    log = Audit(None)
    log.write(line(1))
    assert log.trouble is None
    await log.close()


def test_events_are_documented() -> None:
    text = (Path(__file__).parents[3] / "docs/audit.md").read_text()
    assert dict(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (.*) \|$", text, re.MULTILINE)) == EVENTS
