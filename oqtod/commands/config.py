"""``oqtod config``: check, show, describe and begin a configuration."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from oqtod.commands.exits import FAILED, REFUSED
from oqtod.config import ConfigRefused, Loaded, load

_Command = TypeVar("_Command", bound=Callable[..., Any])


def config_option(command: _Command) -> _Command:
    """Add ``--config F``, the same for every command that reads the configuration."""
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Configuration file, instead of $OQTO_CONFIG and the usual places.",
    )(command)


def load_or_exit(config_file: Path | None, *, overrides: dict[str, object] | None = None) -> Loaded:
    """Load the configuration, or say on stderr everything that is wrong with it and exit with 3."""
    try:
        return load(config_file, overrides=overrides or {})
    except ConfigRefused as refused:
        exit_refused(refused)


def exit_refused(refused: ConfigRefused) -> NoReturn:
    """Print every problem on stderr, a paragraph each, and exit with 3."""
    paragraphs = []
    for problem in refused.problems:
        heading, *details = str(problem).splitlines()
        paragraphs.append("\n".join([click.style(heading, fg="red", bold=True), *details]))
    count = len(paragraphs)
    summary = f"The configuration is refused: {count} problem{'' if count == 1 else 's'}."
    _say("\n\n".join([*paragraphs, summary]), err=True)
    sys.exit(REFUSED)


@click.group("config")
def config_group() -> None:
    """Check, show and describe the configuration."""


@config_group.command("check")
@config_option
def check(config_file: Path | None) -> None:
    """Tell whether the configuration can be used; exit with 3 and every problem when not.

    The sandbox file that goes with it is checked too: root's, or in personal mode one's own.
    """
    loaded = load_or_exit(config_file)
    if loaded.path is None:
        _say("OK: no configuration file, so the built-in defaults")
    else:
        _say(f"OK: {os.fsdecode(loaded.path)}")
    _check_sandbox(multi_user=loaded.config.local.linux_users.enabled)


def _check_sandbox(*, multi_user: bool) -> None:
    from runner.sandbox.policy import HOST_FILE, USER_FILE, SandboxRefused, load_policy

    home = Path.home()
    file = HOST_FILE if multi_user else home / USER_FILE
    host, user = (file, None) if multi_user else (None, file)
    try:
        load_policy(host=host, user=user, workspace=None, home=home)
    except SandboxRefused as refused:
        _say(click.style(str(refused), fg="red", bold=True), err=True)
        _say("Sessions would be refused. What each key means: docs/sandbox.md, oqto-sandbox(1).", err=True)
        sys.exit(REFUSED)
    if file.exists():
        _say(f"OK: {os.fsdecode(file)}")


@config_group.command("show")
@config_option
@click.option("--sources", is_flag=True, help="Say where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
def show(config_file: Path | None, *, sources: bool, as_json: bool) -> None:
    """Show the value that counts for every key. Secrets are shown as "(set)"."""
    from oqtod.config import effective

    loaded = load_or_exit(config_file)
    if as_json:
        document: dict[str, object] = {
            "file": None if loaded.path is None else os.fsdecode(loaded.path),
            "database_path": os.fsdecode(loaded.database_path),
            "values": effective.nested(effective.values(loaded)),
        }
        if sources:
            document["sources"] = loaded.sources
        click.echo(json.dumps(document, indent=2))
        return
    for text, comment in effective.lines(loaded, sources=sources):
        styled = click.style(text, bold=True) if text.startswith("[") else text
        gap = "  " if text and comment else ""
        _say(styled + gap + (click.style(comment, dim=True) if comment else ""))


@config_group.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from oqtod.config.json_schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@config_group.command("init")
@click.option(
    "--output",
    "--config",
    "output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write; it must not exist yet. Without it the text is printed.",
)
def init(output: Path | None) -> None:
    """Write a file with every key, its description and its default, all commented out."""
    from oqtod.config.template import default_file

    text = default_file()
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        # Not for others to read: it is where secrets will be written.
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(text)
    except OSError as error:
        hint = "; choose another name or move it away" if isinstance(error, FileExistsError) else ""
        _say(f"{os.fsdecode(output)}: can't be written: {error.strerror}{hint}", err=True)
        sys.exit(FAILED)
    _say(f"Wrote {os.fsdecode(output)}", err=True)


def _say(text: str, *, err: bool = False) -> None:
    """Print text that may hold names from outside; colours only on a terminal, and not with NO_COLOR."""
    printable = text.encode("utf-8", "backslashreplace").decode()
    if os.environ.get("NO_COLOR"):
        printable = re.sub(r"\x1b\[[0-9;]*m", "", printable)
    click.echo(printable, err=err)
