"""What it takes to watch a browser, beside Chromium's own screencast: python -m tests.bench.browser.

Both watch the same page in Chromiums with the same options, in turn and for several rounds. Medians count,
for ratios those of the rounds' own, since what else the machine does touches both. Whoever watches
acknowledges each frame at once. CPU time is that of the daemon and its Chromium together; of Chromium alone
where its screencast is read from its pipe.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from PIL import Image

from tests.bench.load import percentile
from tests.bench.processes import cpu_seconds
from tests.bench.screens import Pipe, Stream, chromium
from tests.browserd.daemon import Daemon, browserd
from tests.browserd.server import site

_COMMAND = (sys.executable, "-m", "runner.browser.main")
_SETTLE = 0.5
_SLOW = 1.0
_SPOT = (1000, 600)
_PATIENCE = 60.0
_DATA = re.compile(rb'"data":"([^"]*)"')
_BUSY = 0.5
"""The load average above which small figures mean little."""

Samples = dict[str, list[float]]
"""What was measured, by name, each time: frames a second, CPU seconds a second, seconds, bytes."""

Figures = dict[str, float]
"""What it comes to."""


@dataclass(frozen=True)
class Run:
    """What there is to measure, how long and how often."""

    daemon: Daemon
    alone: Pipe
    site: str
    folder: Path
    seconds: float
    rounds: int
    clicks: int
    browsers: int


def watched(run: Run) -> Samples:
    """An animated page, as the stream and as Chromium's own screencast show it."""
    stream, screencast = [], []
    for _ in range(run.rounds):
        with _shown(run, "animation.html"), Stream(run.daemon.path) as viewer:
            stream.append(_watch(viewer.frame, run.daemon.process.pid, run.seconds))
        run.alone.open(f"{run.site}/animation.html")
        run.alone.start()
        screencast.append(_watch(run.alone.frame, run.alone.process.pid, run.seconds))
        run.alone.stop()
        run.alone.open("about:blank")
    return _named("stream", stream) | _named("screencast", screencast)


def beside(run: Run) -> Samples:
    """The same page for a viewer alone, and beside one that takes a frame a second."""
    alone, shared = [], []
    with _shown(run, "animation.html"):
        for _ in range(run.rounds):
            with Stream(run.daemon.path) as viewer:
                alone.append(_watch(viewer.frame, run.daemon.process.pid, run.seconds))
            with _slow_viewer(run.daemon.path), Stream(run.daemon.path) as viewer:
                shared.append(_watch(viewer.frame, run.daemon.process.pid, run.seconds))
    return _named("alone", alone) | _named("beside", shared)


def unwatched(run: Run) -> Samples:
    """A page that rests while it is watched; one that is animated while it isn't."""
    found: Samples = {}
    with _shown(run, "play.html"), Stream(run.daemon.path) as viewer:
        viewer.frame()
        time.sleep(_SETTLE)
        pids = _tree(run.daemon.process.pid)
        found["rest cpu"] = [_cpu(pids, run.seconds)]
        found["rest daemon cpu"] = [_cpu(pids[:1], run.seconds)]
    with _shown(run, "animation.html"):
        with Stream(run.daemon.path) as viewer:
            size = len(viewer.frame())
        time.sleep(_SETTLE)
        daemon = psutil.Process(run.daemon.process.pid)
        before = daemon.io_counters().read_chars
        found["unwatched cpu"] = [_cpu([daemon.pid], run.seconds)]
        # All else that it reads, of its pages' memory, is less than a frame.
        found["unwatched frames"] = [(daemon.io_counters().read_chars - before) / run.seconds // size]
    return found


def clicked(run: Run) -> Samples:
    """From a click that turns the page red, or white again, until a frame shows it."""
    delays = []
    with _shown(run, "play.html"), Stream(run.daemon.path) as viewer:
        while _is_red(viewer.frame()):
            pass
        for count in range(run.clicks):
            # The page rests in between, and clicks fall anywhere between two of Chromium's frames.
            time.sleep(_SETTLE * (0.4 + (count * 0.618) % 0.2))
            begun = time.perf_counter()
            viewer.click(*_SPOT)
            while True:
                frame = viewer.frame()
                arrived = time.perf_counter()
                if _is_red(frame) == (count % 2 == 0):
                    break
            delays.append(arrived - begun)
    return {"click": delays}


def started(run: Run) -> Samples:
    """Browsers that are all started at once, until each has opened a page."""
    with ExitStack() as stack:
        begun = time.perf_counter()
        with ThreadPoolExecutor(run.browsers) as threads:

            def use(folder: Path) -> float:
                daemon = stack.enter_context(browserd(folder, command=_COMMAND))
                daemon.do("open", f"{run.site}/play.html", timeout=_PATIENCE)
                return time.perf_counter() - begun

            folders = [run.folder / str(number) for number in range(run.browsers)]
            return {"started": list(threads.map(use, folders))}


ROWS: dict[str, Callable[[Run], Samples]] = {
    "watched": watched,
    "beside": beside,
    "unwatched": unwatched,
    "clicked": clicked,
    "started": started,
}


@contextmanager
def _shown(run: Run, page: str) -> Iterator[None]:
    run.daemon.do("open", f"{run.site}/{page}", timeout=_PATIENCE)
    try:
        yield
    finally:
        run.daemon.do("open", "about:blank", timeout=_PATIENCE)


@contextmanager
def _slow_viewer(path: Path) -> Iterator[None]:
    enough = threading.Event()
    with Stream(path) as viewer, ThreadPoolExecutor(1) as thread:

        def look() -> None:
            while not enough.wait(_SLOW):
                viewer.frame()

        looking = thread.submit(look)
        try:
            yield
        finally:
            enough.set()
            looking.result(_PATIENCE)


def _watch(frame: Callable[[], bytes], pid: int, seconds: float) -> Figures:
    """Return frames and bytes that come, and CPU seconds that a process and all below it use, in a second."""
    settled = time.perf_counter() + _SETTLE
    while time.perf_counter() < settled:
        frame()
    pids = _tree(pid)
    before, begun, sizes = cpu_seconds(pids), time.perf_counter(), []
    while time.perf_counter() < begun + seconds:
        sizes.append(len(frame()))
    used, passed = cpu_seconds(pids) - before, time.perf_counter() - begun
    return {
        "frames": len(sizes) / passed,
        "cpu": used / passed,
        "cpu/frame": used / len(sizes),
        "bytes/frame": statistics.mean(sizes),
    }


def _cpu(pids: list[int], seconds: float) -> float:
    before, begun = cpu_seconds(pids), time.perf_counter()
    time.sleep(seconds)
    return (cpu_seconds(pids) - before) / (time.perf_counter() - begun)


def _tree(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _named(name: str, rounds: list[Figures]) -> Samples:
    return {f"{name} {figure}": [measured[figure] for measured in rounds] for figure in rounds[0]}


def _is_red(message: bytes) -> bool:
    found = _DATA.search(message)
    assert found is not None
    picture = Image.open(io.BytesIO(base64.b64decode(found[1])))
    picture.draft("RGB", (picture.width // 8, picture.height // 8))
    width, height = picture.size
    pixel = picture.convert("RGB").getpixel((width * 3 // 4, height * 3 // 4))
    assert isinstance(pixel, tuple)
    green = pixel[1]
    return green < 128


@dataclass(frozen=True)
class Target:
    """What a figure ought to be, or its ratio to another one of the same run."""

    name: str
    figure: str
    by: str | None
    target: float
    at_least: bool = False


TARGETS = [
    Target("processor's share of the daemon, nobody watches", "unwatched cpu", None, 0.01),
    Target("frames captured while nobody watches", "unwatched frames", None, 0),
    Target("seconds from a click to its pixels, p50", "click p50", None, 0.15),
    Target("frames: the stream ÷ the screencast", "stream frames", "screencast frames", 0.9, at_least=True),
    Target("CPU time: the stream ÷ the screencast", "stream cpu", "screencast cpu", 1.3),
    Target(
        "CPU time of a frame: the stream ÷ the screencast", "stream cpu/frame", "screencast cpu/frame", 1.3
    ),
    Target("frames: beside a slow viewer ÷ alone", "beside frames", "alone frames", 0.9, at_least=True),
]


def figures_of(samples: Samples) -> Figures:
    """Return medians, and of clicks and starts what people notice."""
    figures = {name: statistics.median(values) for name, values in samples.items()}
    if (clicks := samples.get("click")) is not None:
        figures |= {f"click p{percent}": percentile(clicks, percent) for percent in (50, 99)}
    if (starts := samples.get("started")) is not None:
        figures |= {"started first": min(starts), "started all": max(starts)}
    return figures


def compare(samples: Samples) -> list[dict[str, object]]:
    """Return what can be said about the targets."""
    figures = figures_of(samples)
    found: list[dict[str, object]] = []
    for target in TARGETS:
        if target.figure not in figures:
            continue
        value = figures[target.figure]
        if target.by is not None:
            rounds = zip(samples[target.figure], samples[target.by], strict=True)
            value = statistics.median(one / other for one, other in rounds)
        found.append(
            {
                "name": target.name,
                "value": round(value, 3),
                "target": target.target,
                "at_least": target.at_least,
                "met": value >= target.target if target.at_least else value <= target.target,
            }
        )
    return found


LINES = {
    "an animated page, the stream": "stream",
    "an animated page, Chromium's own screencast": "screencast",
    "an animated page, a viewer alone": "alone",
    "an animated page, beside one frame a second": "beside",
    "an animated page, nobody watches: the daemon": "unwatched",
    "a resting page that is watched": "rest",
    "a resting page that is watched: the daemon": "rest daemon",
}
COLUMNS = (
    ("frames/s", "frames", 1, 1),
    ("CPU s/s", "cpu", 1, 3),
    ("CPU ms/frame", "cpu/frame", 1000, 1),
    ("kB/frame", "bytes/frame", 0.001, 1),
)
"""Heading, figure, scale, digits."""


def show(figures: Figures, compared: list[dict[str, object]]) -> None:
    """Print the table, then what was compared."""
    print(f"{'':46}" + "".join(f"{heading:>14}" for heading, *_ in COLUMNS))
    for line, name in LINES.items():
        if f"{name} cpu" in figures:
            found = ((figures.get(f"{name} {figure}"), *how) for _, figure, *how in COLUMNS)
            cells = (
                "-" if value is None else f"{value * scale:.{digits}f}" for value, scale, digits in found
            )
            print(f"{line:46}" + "".join(f"{cell:>14}" for cell in cells))
    if "click p50" in figures:
        p50, p99 = (figures[f"click p{percent}"] * 1000 for percent in (50, 99))
        print(f"{'from a click to its pixels':46} {p50:6.0f} ms p50 {p99:6.0f} ms p99")
    if "started all" in figures:
        first, last = figures["started first"], figures["started all"]
        print(f"{'browsers that are started at once':46} {first:6.1f} s first {last:6.1f} s all")
    print()
    for made in compared:
        sign, word = "≥" if made["at_least"] else "≤", "met" if made["met"] else "NOT met"
        print(f"{made['name']:56} {made['value']:>8.3f}  {sign} {made['target']:<5} {word}")


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS), help="some of: %(default)s")
    parser.add_argument(
        "--quick", action="store_true", help="short rounds and few clicks, in less than a minute"
    )
    parser.add_argument("--rounds", type=int, default=12, help="rounds; the median counts (default: 12)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for a measurement (default: 2)")
    parser.add_argument("--clicks", type=int, default=200, help="clicks (default: 200)")
    parser.add_argument("--browsers", type=int, default=10, help="browsers started at once (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    rows = options.rows.split(",")
    if unknown := set(rows) - set(ROWS):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(ROWS)}")
    load_average = os.getloadavg()[0]
    samples: Samples = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oqb.")))
        url = stack.enter_context(site())
        daemon = stack.enter_context(browserd(folder / "daemon", command=_COMMAND))
        daemon.do("open", "about:blank", timeout=_PATIENCE)
        alone = stack.enter_context(chromium(daemon.chromium().cmdline(), folder / "alone"))
        run = Run(
            daemon, alone, url, folder, options.seconds, options.rounds, options.clicks, options.browsers
        )
        if options.quick:
            run = replace(run, rounds=3, clicks=20, browsers=3)
        for name, measure in ROWS.items():
            if name in rows:
                samples |= measure(run)
    figures = figures_of(samples)
    compared = compare(samples)
    show(figures, compared)
    if options.json is not None:
        machine = {"cpus": os.cpu_count(), "kernel": os.uname().release, "load": load_average}
        document = {"machine": machine, "figures": figures, "compared": compared, "samples": samples}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    if load_average > _BUSY:
        print(f"The load was {load_average:.1f} before it began: others were at work too.", file=sys.stderr)


if __name__ == "__main__":
    main()
