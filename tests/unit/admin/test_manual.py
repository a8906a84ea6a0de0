"""The manual: every command and option is in its page, the pages are clean, docs/commands.md is current."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from oqtod.config.keys import keys, sections
from tests.unit.admin.test_command_line import EVERY, command_at

CHECKOUT = Path(__file__).parents[3]
SCRIPTS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]
MANUAL = [sys.executable, "-B", str(CHECKOUT / "packaging/manual.py")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages by the name of what they describe."""
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([*MANUAL, "pages", str(folder)], check=True)
    return {page.stem: page for page in folder.iterdir()}


def shown(page: Path) -> str:
    """A page as man(1) shows it, in one line."""
    formatted = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-cbou", str(page)], capture_output=True, text=True, check=True
    )
    return " ".join(formatted.stdout.split())


def test_every_program_has_a_page(pages: dict[str, Path]) -> None:
    assert set(SCRIPTS) <= set(pages)


@pytest.mark.parametrize("name", [*SCRIPTS, "oqto-config.toml"])
def test_a_page_is_clean(pages: dict[str, Path], name: str) -> None:
    said = subprocess.run(
        ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", "-z", str(pages[name])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stderr == ""
    headings = re.findall(r"^\.SH (.*)$", pages[name].read_text(), re.MULTILINE)
    assert headings[0] == "NAME"
    assert "DESCRIPTION" in headings


def test_every_command_of_oqtoctl_is_in_its_page(pages: dict[str, Path]) -> None:
    text = shown(pages["oqtoctl"])
    for path in EVERY:
        assert f"oqtoctl {' '.join(path)} [OPTIONS]" in text
        for parameter in command_at(path).params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert not option.startswith("-") or option in text, (path, option)
    for code in range(6):
        assert re.search(rf"EXIT STATUS.* {code} ", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_option_that_help_tells_of_is_in_the_page(pages: dict[str, Path], name: str) -> None:
    text = shown(pages[name])
    for command in ([], ["serve"], ["supervise"], ["config", "show"]) if name == "oqtod" else ([],):
        program = [str(Path(sys.executable).parent / name), *command, "--help"]
        told = subprocess.run(program, capture_output=True, text=True, check=True).stdout
        options = set(re.findall(r"^ +(?:-\w(?: [A-Z=]+)?, )?(--[\w-]+)", told, re.MULTILINE))
        assert options
        assert [option for option in options if option not in text] == []


def test_every_key_is_in_the_page_of_the_configuration(pages: dict[str, Path]) -> None:
    text = shown(pages["oqto-config.toml"])
    assert [key.path for key in keys().values() if f" {key.name} " not in text] == []
    assert [section for section in sections() if section and f"[{section}]" not in text] == []


def test_the_reference_is_current() -> None:
    made = subprocess.run([*MANUAL, "markdown"], capture_output=True, text=True, check=True)
    assert made.stdout == (CHECKOUT / "docs/commands.md").read_text(), "run: make manual"
