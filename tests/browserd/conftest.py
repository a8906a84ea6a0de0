"""One web site and one daemon for all tests of a module, which leave it as they found it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browserd.daemon import Daemon, Viewer, browserd, watching
from tests.browserd.server import site


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    with site() as url:
        yield url


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short name: Unix sockets have room for 107 characters."""
    made = Path(tempfile.mkdtemp(prefix="b."))
    try:
        yield made
    finally:
        shutil.rmtree(made)


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    assert shutil.which("chromium"), "chromium is missing: packaging/setup test installs it"
    with browserd(folder, "--download-limit-mb", "3") as running:
        running.do("open", "about:blank", timeout=60)
        yield running


@pytest.fixture
def viewer(daemon: Daemon) -> Iterator[Viewer]:
    with watching(daemon) as joined:
        yield joined
