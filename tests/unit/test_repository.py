"""What every file of this repository keeps to, and what must agree between several of them."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import oqtod

CHECKOUT = Path(__file__).parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
CONTROL = (CHECKOUT / "packaging/debian/control").read_text()

MOST_LINES = 400

NOT_PYTHON = {"bubblewrap", "dbus", "libseccomp2", "passwd", "systemd"}
"""What the package depends on beside Python's modules."""


def listed(*patterns: str) -> list[str]:
    """The files of the checkout, the new ones included; in an unpacked archive, what lies there."""
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(asked, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    names = done.stdout.splitlines()
    if done.returncode != 0:
        names = [str(x.relative_to(CHECKOUT)) for top in patterns for x in (CHECKOUT / top).rglob("*.py")]
    return sorted(name for name in names if name.endswith(".py") and (CHECKOUT / name).exists())


CODE = listed("oqtod", "runner", "packaging", "tests")


@pytest.mark.parametrize("name", CODE)
def test_a_module_says_what_it_owns_and_is_not_too_long(name: str) -> None:
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) < MOST_LINES
    if text:
        said = ast.get_docstring(ast.parse(text))
        assert said, "no docstring"
        assert said.splitlines()[0].rstrip(":;.") == said.splitlines()[0].rstrip(":;.").strip() != ""
    assert not re.search(r"(^|/)(utils?|helpers?|common|managers?|misc)(\.py|/)", name)


def python_packages(field: str) -> dict[str, str]:
    """The python3-* packages of a field of debian/control, with the versions that they need."""
    found = re.search(rf"^{field}:\n((?: .*\n)+)", CONTROL, re.MULTILINE)
    assert found
    return dict(re.findall(r"^ python3-([a-z0-9-]+) \(>= ([0-9.]+)\),$", found[1], re.MULTILINE))


def declared(requirements: list[str]) -> dict[str, str]:
    split = [re.fullmatch(r"([a-z0-9-]+)>=([0-9.]+)", requirement) for requirement in requirements]
    assert all(split), requirements
    called = {"pyjwt": "jwt", "systemd-python": "systemd"}
    return {called.get(x[1], x[1]): x[2] for x in split if x}


def test_debian_and_python_depend_on_the_same() -> None:
    ours = declared([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["systemd"]])
    assert python_packages("Depends") == ours


def test_what_else_the_package_depends_on() -> None:
    found = re.search(r"^Depends:\n((?: .*\n)+)", CONTROL, re.MULTILINE)
    assert found
    names = re.findall(r"^ ([a-z0-9][a-z0-9.+-]*)", found[1], re.MULTILINE)
    assert {name for name in names if not name.startswith("python3-")} == NOT_PYTHON


def test_the_version_is_one() -> None:
    changelog = (CHECKOUT / "packaging/debian/changelog").read_text()
    top = re.match(r"oqtod \(([^)]+)\) ", changelog)
    assert top
    assert top[1] == oqtod.__version__
    assert oqtod.__version__ in (CHECKOUT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("script", PROJECT["scripts"])
def test_every_command_is_there_and_in_the_package(script: str, tmp_path: Path) -> None:
    module, _, function = PROJECT["scripts"][script].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    launchers = [sys.executable, "packaging/launchers.py", "pyproject.toml", str(CHECKOUT), str(tmp_path)]
    subprocess.run(launchers, cwd=CHECKOUT, check=True)
    command = [sys.executable, "-I", str(tmp_path / script), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "usage" in shown.stdout.lower()
    rules = (CHECKOUT / "packaging/debian/rules").read_text()
    copied = re.search(r"^\tcp -R .*? (oqtod .*) \$\(DEST\)", rules, re.MULTILINE)
    assert copied
    assert module.partition(".")[0] in copied[1].split()


def test_documents_link_to_what_exists() -> None:
    for document in [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document}: {target}"
