"""What the benchmarks make of what they measured, and that the clients of the byte path do what they say."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.bench import browser, load
from tests.bench.bytes import Figures, compare
from tests.bench.load import Address
from tests.bench.processes import free_port, listens

PATIENCE = 20.0


@pytest.fixture
def echo() -> Iterator[Address]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.echo", str(port)])
    try:
        until = time.monotonic() + PATIENCE
        while not listens(port):
            assert time.monotonic() < until
            time.sleep(0.01)
        yield Address(port)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_every_message_comes_back(echo: Address) -> None:
    assert load.round_trips(echo, "/ws", 0.05)
    assert len(load.round_trips_of_many(echo, "/ws", 10, 20.0, 0.25)) == 50
    assert load.upgrades(echo, "/ws", 4, 0.05) > 0
    with load.websockets(echo, "/ws", 20) as held:
        assert len(held) == 20


def ratio(figure: str, ours: float, theirs: float, *, by: str, direct: float = 0.0) -> dict[str, object]:
    results: dict[str, Figures] = {"oqtod": {figure: ours}, by: {figure: theirs}, "direct": {figure: direct}}
    (found,) = [made for made in compare(results) if made["by"] == by]
    return found


def test_more_is_better_or_less_is() -> None:
    assert ratio("requests 16", 40.0, 100.0, by="nginx")["met"]
    assert not ratio("requests 16", 30.0, 100.0, by="nginx")["met"]
    assert ratio("idle", 4.0, 10.0, by="configurable-http-proxy")["met"]
    assert not ratio("idle", 6.0, 10.0, by="configurable-http-proxy")["met"]


def test_of_round_trips_what_is_added_counts() -> None:
    found = ratio("websocket 1 p50", 90.0, 80.0, by="nginx", direct=60.0)
    assert (found["ratio"], found["met"]) == (1.5, True)
    # A proxy can't add nothing: that is noise, and says neither yes nor no.
    assert ratio("websocket 1 p50", 90.0, 60.0, by="nginx", direct=60.0)["met"] is None


def test_what_was_not_measured_is_not_compared() -> None:
    assert compare({"oqtod": {"requests 16": 1.0}, "direct": {}}) == []
    assert [x["by"] for x in compare({"oqtod": {"key": 3.0, "key alone": 2.0}})] == ["the terminal alone"]


def test_of_a_watched_browser_the_medians_of_the_rounds_count() -> None:
    samples = {"stream frames": [50.0, 50.0, 20.0], "screencast frames": [60.0, 25.0, 20.0]}
    samples |= {"click": [0.1] * 98 + [0.4] * 2, "unwatched frames": [1.0]}
    made = {each["name"]: each for each in browser.compare(samples)}
    assert made["frames: the stream ÷ the screencast"]["value"] == 1.0
    assert made["seconds from a click to its pixels, p50"]["met"]
    assert not made["frames captured while nobody watches"]["met"]
    assert len(made) == 3
