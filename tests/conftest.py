"""Every test ends as it began: no child, no socket, no temporary file more than before."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure: nothing here is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_folder = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Give this run temporary files of its own: others may run on the same machine.

    pytest's own folders stay where they are; they are kept for a look at what failed.
    """
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    # A short name, since Unix sockets in it have room for 107 characters.
    config.stash[_folder] = folder = Path(tempfile.mkdtemp(prefix="oqt."))
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    tempfile.tempdir = None
    shutil.rmtree(config.stash[_folder], ignore_errors=True)


def _children() -> set[str]:
    """Our child processes, the ended ones that nobody waited for included."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except FileNotFoundError:
            continue  # a thread that has ended meanwhile: its children are another's now, which is read too
        for pid in children:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
            except OSError:
                continue
            found.add(f"process {pid}: {command.strip() or '(ended, nobody waited for it)'}")
    return found


def _sockets() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue  # the one that lists the folder
        if target.startswith("socket:"):
            found.add(f"descriptor {link.name}: {target}")
    return found


def _files(folder: Path) -> set[str]:
    return {f"file {path}" for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test that leaves something behind. What wider fixtures made before it is not its own."""
    folder = request.config.stash[_folder]
    before = _children() | _sockets() | _files(folder)
    yield
    left = (_children() | _sockets() | _files(folder)) - before
    assert not left, "left behind: " + "; ".join(sorted(left))
