"""What the way through the gateway costs, beside other proxies: python -m tests.bench.bytes.

All peers stand in front of the same backends in the same run, and each row is measured in rounds that go over
all peers; the best of the rounds counts, since what else the machine does only makes things slower. oqtod
runs in personal mode, with authentication: each request bears a token, and the backends are programs on the
ports of a session. `python -m tests.bench.bytes --quick --peers oqtod,nginx --rows requests,bulk` is for in
between.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import load, peers
from tests.bench.load import percentile
from tests.bench.peers import Peer
from tests.bench.processes import cpu_seconds, memory, with_children

_IDLE, _IDLE_QUICK = 2000, 500
_WARM_UP = 20
_SETTLE = 0.5
_STREAMS = (1, 4)
_CONNECTIONS = (16, 128)
_MANY, _RATE = 200, 20.0
_AT_ONCE = 16
_KEYS = 400
_BUSY = 0.5
"""The load average above which small figures mean little."""

Figures = dict[str, float]
"""What was measured of one peer, by name: rates a second, seconds, bytes."""


@dataclass(frozen=True)
class Run:
    """How long and how often to measure. `seconds` is for one; `idle` WebSockets are held open."""

    folder: Path
    seconds: float
    rounds: int
    idle: int


def requests(peer: Peer, run: Run) -> Figures:
    """Small answers on kept connections."""
    return {
        f"requests {count}": load.small_requests(peer.address, peer.small, count, run.seconds, run.folder)
        for count in _CONNECTIONS
    }


def bulk(peer: Peer, run: Run) -> Figures:
    """A big file, and the CPU time that the proxy's processes take for it."""
    paths = {"bulk": peer.bulk} | ({"files": peer.files} if peer.files is not None else {})
    found = {}
    for name, path in paths.items():
        for streams in _STREAMS:
            pids = with_children(peer.pid) if peer.pid is not None else []
            before = cpu_seconds(pids)
            count, seconds = load.bulk(peer.address, path, streams, run.seconds)
            found[f"{name} {streams}"] = count / seconds
            if pids:
                found[f"{name} {streams} cpu"] = (cpu_seconds(pids) - before) / (count / 2**30)
    return found


def round_trips(peer: Peer, run: Run) -> Figures:
    """Messages on one WebSocket, and on many."""
    one = load.round_trips(peer.websockets, peer.echo, run.seconds)
    many = load.round_trips_of_many(peer.websockets, peer.echo, _MANY, _RATE, run.seconds)
    return {
        f"websocket {name} p{percent}": percentile(taken, percent)
        for name, taken in (("1", one), (str(_MANY), many))
        for percent in (50, 99)
    }


def upgrades(peer: Peer, run: Run) -> Figures:
    """Connections, each upgraded and closed."""
    return {"upgrades": load.upgrades(peer.websockets, peer.echo, _AT_ONCE, run.seconds)}


def keys(peer: Peer, run: Run) -> Figures:
    """Keystrokes at a terminal through the gateway, and at the same terminal's own socket."""
    assert peer.terminal is not None
    assert peer.terminal_alone is not None
    through = load.keystrokes(peer.address, peer.terminal, _KEYS)
    alone = load.keystrokes(load.Address(peer.terminal_alone), "/ws", _KEYS)
    return {"key": statistics.median(through), "key alone": statistics.median(alone)}


def idle(peer: Peer, run: Run) -> Figures:
    """Memory of a WebSocket that is open."""
    assert peer.pid is not None
    with load.websockets(peer.websockets, peer.echo, _WARM_UP):
        time.sleep(_SETTLE)
    before = memory(with_children(peer.pid))
    with load.websockets(peer.websockets, peer.echo, run.idle):
        time.sleep(_SETTLE)
        return {"idle": (memory(with_children(peer.pid)) - before) / run.idle}


ROWS: dict[str, Callable[[Peer, Run], Figures]] = {
    "idle": idle,
    "requests": requests,
    "bulk": bulk,
    "websockets": round_trips,
    "upgrades": upgrades,
    "keys": keys,
}
_HIGHER_IS_BETTER = ("requests", "bulk", "files", "upgrades")


def measure(run: Run, names: list[str], rows: list[str]) -> tuple[dict[str, Figures], list[str]]:
    """Start the peers, and measure them in turn; return the figures, and what could not be measured.

    oqtod runs always, as the backends are in its session.
    """
    results: dict[str, Figures] = {name: {} for name in names}
    failures: list[str] = []
    with ExitStack() as stack:
        ours, behind = stack.enter_context(peers.oqtod(run.folder))
        running = [ours] if ours.name in names else []
        running += [
            stack.enter_context(start(run.folder, behind))
            for name, start in peers.PEERS.items()
            if name in names
        ]
        for number in range(run.rounds):
            for row in rows:
                for peer in running:
                    if not _applies(row, peer, number):
                        continue
                    step = f"round {number + 1}: {row} of {peer.name}"
                    print(f"\r\033[K{step}", end="", file=sys.stderr, flush=True)
                    try:
                        _keep_best(results[peer.name], ROWS[row](peer, run))
                    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                        failures.append(f"{step}: {error}")
    print("\r\033[K", end="", file=sys.stderr)
    return results, failures


def _applies(row: str, peer: Peer, number: int) -> bool:
    """Say whether a peer has a row in a round. Memory isn't noisy, and is best measured before all else."""
    if row == "idle":
        return peer.pid is not None and number == 0
    return row != "keys" or peer.terminal is not None


def _keep_best(kept: Figures, fresh: Figures) -> None:
    for name, value in fresh.items():
        higher = name.startswith(_HIGHER_IS_BETTER) and not name.endswith("cpu")
        kept[name] = (max if higher else min)(kept.get(name, value), value)


@dataclass(frozen=True)
class Ratio:
    """A figure of oqtod's by a peer's, and what it ought to be."""

    name: str
    figure: str
    peer: str
    target: float
    at_least: bool = True
    added: bool = False
    """Whether the figures are what the proxies add to the direct way."""


def _added(name: str, peer: str, target: float, percent: int) -> list[Ratio]:
    figures = [f"websocket {count} p{percent}" for count in (1, _MANY)]
    return [Ratio(name, figure, peer, target, at_least=False, added=True) for figure in figures]


_CHP = "configurable-http-proxy"
RATIOS = [
    Ratio("small requests", "requests 16", _CHP, 1.5),
    Ratio("small requests", "requests 16", "traefik", 0.8),
    Ratio("small requests", "requests 16", "nginx", 0.35),
    *(Ratio("bulk", f"bulk {streams}", "nginx", 1.3) for streams in _STREAMS),
    *_added("added round trip", "nginx", 1.5, 50),
    *_added("added round trip", _CHP, 1.0, 99),
    Ratio("memory of an idle WebSocket", "idle", _CHP, 0.5, at_least=False),
    Ratio("keystroke through gateway and terminal", "key", "the terminal alone", 2.0, at_least=False),
]


def compare(results: dict[str, Figures]) -> list[dict[str, object]]:
    """Return the ratios that can be made of what was measured.

    Where a peer seems to add nothing, there is noise and no ratio.
    """
    found: list[dict[str, object]] = []
    for ratio in RATIOS:
        ours = results.get("oqtod", {})
        theirs = results.get(ratio.peer, {})
        if ratio.figure == "key":
            theirs = {"key": ours["key alone"]} if "key alone" in ours else {}
        direct = results.get("direct", {}).get(ratio.figure) if ratio.added else 0.0
        if direct is None or ratio.figure not in ours or ratio.figure not in theirs:
            continue
        base = theirs[ratio.figure] - direct
        value = (ours[ratio.figure] - direct) / base if base > 0 else None
        met = None
        if value is not None:
            met = value >= ratio.target if ratio.at_least else value <= ratio.target
        found.append(
            {
                "name": ratio.name,
                "figure": ratio.figure,
                "by": ratio.peer,
                "ratio": round(value, 3) if value is not None else None,
                "target": ratio.target,
                "at_least": ratio.at_least,
                "met": met,
            }
        )
    return found


@dataclass(frozen=True)
class Column:
    """A column of the table: its two lines of heading, the figure, and how it is shown."""

    top: str
    bottom: str
    figure: str
    scale: float = 1.0
    digits: int = 0
    added: bool = False


COLUMNS = [
    *(Column("req/s", f"at {count}", f"requests {count}") for count in _CONNECTIONS),
    *(
        column
        for streams in _STREAMS
        for column in (
            Column("MB/s", f"{streams} str.", f"bulk {streams}", 1e-6),
            Column("CPU s", "/GiB", f"bulk {streams} cpu", 1.0, 2),
        )
    ),
    *(
        Column(f"+ws {count}", f"p{percent} µs", f"websocket {count} p{percent}", 1e6, added=True)
        for count in (1, _MANY)
        for percent in (50, 99)
    ),
    Column("bytes", "/idle ws", "idle"),
    Column("upgr.", "/s", "upgrades"),
]


def show(results: dict[str, Figures], ratios: list[dict[str, object]]) -> None:
    """Print the table, then the ratios."""
    rows = dict(results)
    if "files 1" in results.get("oqtod", {}):
        files = {k.replace("files", "bulk"): v for k, v in results["oqtod"].items() if k.startswith("files")}
        rows["oqtod, file service"] = files
    direct = results.get("direct", {})
    print(f"{'':24}" + "".join(f"{column.top:>10}" for column in COLUMNS))
    print(f"{'':24}" + "".join(f"{column.bottom:>10}" for column in COLUMNS))
    for name, figures in rows.items():
        print(f"{name:24}" + "".join(f"{_cell(column, name, figures, direct):>10}" for column in COLUMNS))
    if direct:
        print("WebSocket round trips are what is added to the direct one, whose own are shown.")
    ours = results.get("oqtod", {})
    if "key" in ours:
        print(
            f"keystroke: {ours['key'] * 1e6:.0f} µs through the gateway, "
            f"{ours['key alone'] * 1e6:.0f} µs at the terminal itself"
        )
    print()
    for ratio in ratios:
        name = f"{ratio['name']} ({ratio['figure']}) ÷ {ratio['by']}"
        value = "noise" if ratio["ratio"] is None else f"{ratio['ratio']:.2f}"
        word = "can't say" if ratio["met"] is None else "met" if ratio["met"] else "NOT met"
        print(f"{name:80} {value:>8}  {'≥' if ratio['at_least'] else '≤'} {ratio['target']:<5} {word}")


def _cell(column: Column, name: str, figures: Figures, direct: Figures) -> str:
    value = figures.get(column.figure)
    if value is None:
        return "-"
    if column.added and name != "direct":
        if column.figure not in direct:
            return "-"
        value -= direct[column.figure]
    return f"{value * column.scale:,.{column.digits}f}"


def main() -> None:
    """Measure, print, and write what was measured."""
    names = ["oqtod", *peers.PEERS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", default=",".join(names), help="some of: %(default)s")
    parser.add_argument("--rows", default=",".join(ROWS), help="some of: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one short round, in less than a minute")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the best counts (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for a measurement (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    wanted, rows = options.peers.split(","), options.rows.split(",")
    for given, known in ((wanted, names), (rows, list(ROWS))):
        if unknown := set(given) - set(known):
            parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="oqb.") as folder:
        run = Run(Path(folder), options.seconds, options.rounds, _IDLE)
        if options.quick:
            run = replace(run, seconds=0.5, rounds=1, idle=_IDLE_QUICK)
        results, failures = measure(run, wanted, [row for row in ROWS if row in rows])
    ratios = compare(results)
    show(results, ratios)
    if options.json is not None:
        machine = {"cpus": os.cpu_count(), "kernel": os.uname().release, "load": load_average}
        document = {"machine": machine, "results": results, "ratios": ratios, "failures": failures}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    if load_average > _BUSY:
        print(f"The load was {load_average:.1f} before it began: others were at work too.", file=sys.stderr)
    for failure in failures:
        print(f"not measured: {failure}", file=sys.stderr)
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
