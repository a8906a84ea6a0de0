"""The page's files are there, are what they say, and need nothing from elsewhere."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from runner.terminal import assets

STATIC = Path(assets.__file__).parent / "static"


def text(name: str) -> str:
    found = assets.asset(name)
    assert found is not None
    return found[0].decode()


def test_every_name_is_a_file_with_its_media_type() -> None:
    types = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for name in assets.NAMES:
        found = assets.asset(name)
        assert found is not None
        assert found[0] == (STATIC / name).read_bytes()
        assert found[1].partition(";")[0] == types[Path(name).suffix]


@pytest.mark.parametrize(
    "name", ["", ".", "../assets.py", "README.md", "/etc/passwd", "INDEX.HTML", "xterm.js\0"]
)
def test_no_other_name_is_served(name: str) -> None:
    assert assets.asset(name) is None


def test_the_page_loads_only_what_is_served_beside_it() -> None:
    page = text("index.html")
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert {url.removeprefix("static/") for url in loaded} == assets.NAMES - {"index.html"}
    assert all(url.startswith("static/") for url in loaded)


def test_the_page_keeps_its_policy() -> None:
    """No inline script, style element or handler, which the policy would block."""
    page = text("index.html")
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"\son\w+=|<style|javascript:", page)


def test_the_vendored_files_are_the_ones_in_the_readme() -> None:
    rows = re.findall(
        r"^\| (\S+) \| (\S+) \| ([\d.]+) \| ([0-9a-f]{64}) \|$", (STATIC / "README.md").read_text(), re.M
    )
    assert {row[0] for row in rows} == {"xterm.js", "xterm.css", "addon-fit.js"}
    for name, _, _, digest in rows:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name
    for licence in ("LICENSE.xterm", "LICENSE.addon-fit"):
        assert "Permission is hereby granted" in (STATIC / licence).read_text()
