"""The manual: pages for man(1), and docs/commands.md, both from the programs' own options and help.

usage: manual.py pages FOLDER      write oqtoctl.8 and the others
       manual.py markdown          print docs/commands.md
"""

# ruff: noqa: E402  what it describes is in the checkout, not on the path

from __future__ import annotations

import argparse
import datetime
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "packaging")]

import click
from manual_texts import PROGRAMS, Block, Code, Program

from oqtod import __version__
from oqtod.admin.caller import Everywhere
from oqtod.config.keys import Key, dev_user_keys, keys, sections
from oqtod.config.toml import key_text, value_text
from oqtod.config.unbuilt import feature_missing

CONFIG_PAGE = "oqto-config.toml"


@dataclass(frozen=True)
class Option:
    """An option as it is typed ("-n, --lines N"), and what it does."""

    typed: str
    text: str


@dataclass(frozen=True)
class Entry:
    """A command or subcommand."""

    path: str
    usage: str
    paragraphs: list[str]
    options: list[Option]
    examples: Sequence[str]
    verbatim: str = ""


def entries(program: Program) -> list[Entry]:
    """Return the program, and all that is below it, in the order of its help."""
    module, _, name = program.source.partition(":")
    found = getattr(importlib.import_module(module), name)
    if isinstance(found, click.Command):
        return list(_of_click(found, click.Context(found, info_name=program.name)))
    return [_of_argparse(found())]


def _of_click(command: click.Command, context: click.Context) -> Iterator[Entry]:
    is_group = isinstance(command, click.Group)
    is_top = context.parent is None
    parameters = [x for x in command.params if is_top or not isinstance(x, Everywhere)]
    options = [_option(x) for x in parameters if isinstance(x, click.Option) and not x.hidden]
    if is_top:
        options.append(Option("-h, --help", "Show help and exit; for every command, too."))
    arguments = [_value(x) for x in parameters if isinstance(x, click.Argument)]
    pieces = [context.command_path, "[OPTIONS]", *arguments, *(["COMMAND [ARGS]..."] if is_group else [])]
    paragraphs = [" ".join(x.split()) for x in inspect.cleandoc(command.help or "").split("\n\n")]
    yield Entry(context.command_path, " ".join(pieces), paragraphs, options, getattr(command, "examples", ()))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from _of_click(below, click.Context(below, info_name=name, parent=context))


def _option(option: click.Option) -> Option:
    names = ", ".join(sorted([*option.opts, *option.secondary_opts], key=len))
    if not option.is_flag and not option.count:
        names += f" {_value(option)}"
    return Option(names, f"{option.help or ''}{' Required.' if option.required else ''}")


def _value(parameter: click.Parameter) -> str:
    if parameter.metavar is not None:
        return parameter.metavar
    if isinstance(parameter.type, click.Choice):
        return "|".join(parameter.type.choices)
    return str(parameter.name).upper()


def _of_argparse(parser: argparse.ArgumentParser) -> Entry:
    formatter = parser._get_formatter()
    options = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue  # between us and ourselves
        text = formatter._expand_help(action) if action.help else ""
        value = formatter._metavar_formatter(action, action.dest.upper())(1)[0] if action.nargs != 0 else ""
        typed = ", ".join(action.option_strings)
        text = "Show help and exit." if action.dest == "help" else f"{text[:1].upper()}{text[1:]}."
        text = re.sub(r"\.+$", ".", text)
        required = " Required." if action.option_strings and action.required else ""
        options.append(Option(f"{typed} {value}".strip(), text + required))
    usage = " ".join(parser.format_usage().partition(":")[2].split())
    raw = parser.formatter_class is argparse.RawDescriptionHelpFormatter
    epilog = parser.epilog or ""
    paragraphs = [" ".join((parser.description or "").split())]
    if epilog and not raw:
        paragraphs.append(" ".join(epilog.split()))
    return Entry(parser.prog, usage, paragraphs, options, (), epilog if raw else "")


def configuration() -> list[tuple[str, list[Block]]]:
    """Return what there is to say of the configuration file, a heading and blocks for each section of it."""
    found: list[tuple[str, list[Block]]] = []
    for section in sections().values():
        blocks: list[Block] = [section.description]
        blocks += [_key(x) for x in keys().values() if x.section == section.path]
        found.append((section.path or "AT THE TOP", blocks))
        if section.path == "auth":
            about = f"{keys()['auth.dev_users'].description}. Each has these keys."
            found.append(("[auth.dev_users]", [about, *map(_key, dev_user_keys().values())]))
    return found


def _key(key: Key) -> Block:
    default = key.shown.strip("()") if key.default is None else value_text(key.default)
    text = f"{key.description}. {key.allowed[0].upper()}{key.allowed[1:]}."
    text += " Required." if key.required else f" Default: {default or 'none'}."
    if feature_missing(key.path):
        text += " Not built yet: only the default is accepted."
    return (key_text(key.name), text)


# Pages for man(1), in the macros of man(7).


def roff(text: str) -> str:
    """Return text as it stands in a page."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in escaped.split("\n"))


def _prose(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"\\fB\1\\fR", roff(text))


def _typed(text: str) -> str:
    """Options bold, what stands for a value in italics."""
    words = [
        f"\\fB{roff(x)}\\fR" if x.startswith("-") or x.islower() else f"\\fI{roff(x)}\\fR"
        for x in text.split()
    ]
    return " ".join(words)


def _blocks(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, tuple):
            yield f".TP\n.B {roff(block[0])}\n{_prose(block[1])}"
        elif isinstance(block, Code):
            yield f".PP\n.RS 4\n.nf\n{roff(block)}\n.fi\n.RE"
        else:
            yield f".PP\n{_prose(block)}"


def _head(name: str, section: int, summary: str) -> list[str]:
    title = f'.TH "{roff(name.upper())}" "{section}" "{_date()}" "oqtod {__version__}" "oqtod"'
    # No hyphenation, no justification: options are searched for, and copied.
    return [title, ".nh", ".ad l", ".SH NAME", f"{roff(name)} \\- {roff(summary)}"]


def page(program: Program) -> str:
    """Return a program's page."""
    top, *below = entries(program)
    lines = _head(program.name, program.section, program.summary)
    lines += [".SH SYNOPSIS", f".B {roff(top.usage)}", ".SH DESCRIPTION", *_blocks(top.paragraphs)]
    if top.verbatim:
        lines += _blocks([Code(top.verbatim.strip())])
    lines += [".SH OPTIONS", *_options(top)]
    if below:
        lines.append(".SH COMMANDS")
        for entry in below:
            lines += [f".SS {roff(entry.path)}", f".B {roff(entry.usage)}", *_blocks(entry.paragraphs)]
            lines += [*_options(entry)]
            if entry.examples:
                lines += _blocks(["For example:", Code("\n".join(entry.examples))])
    for heading, blocks in program.more.items():
        lines += [f".SH {heading}", *_blocks(blocks)]
    if program.see_also:
        lines += [".SH SEE ALSO", roff(", ".join(program.see_also))]
    return "\n".join(lines) + "\n"


def _options(entry: Entry) -> Iterator[str]:
    for option in entry.options:
        yield f".TP\n{_typed(option.typed)}\n{_prose(option.text)}"


def configuration_page() -> str:
    """Return the page of the configuration file."""
    lines = _head(CONFIG_PAGE, 5, "configuration of oqtod")
    about: list[Block] = [
        "The configuration is a TOML file, /etc/oqto/config.toml on a server. Later wins: built-in defaults, "
        "the file, the environment (OQTO__SECTION__KEY), the command line. An unknown key, a wrong type or "
        "a combination that can't work stops the start.",
        "In paths ~, $VAR and ${VAR} are expanded; an unset variable is an error. A secret can be written as "
        "env:NAME, and is then taken from the environment.",
        "To begin a file, to check one, and to see what is in force:",
        Code("oqtod config init\noqtod config check --config FILE\noqtod config show --sources"),
    ]
    lines += [".SH DESCRIPTION", *_blocks(about)]
    for heading, blocks in configuration():
        lines += [f".SH {roff(heading if heading == heading.upper() else f'[{heading}]')}", *_blocks(blocks)]
    lines += [".SH SEE ALSO", roff("oqtod(8), oqtoctl(8)")]
    return "\n".join(lines) + "\n"


def _date() -> str:
    """Return the date of the version, not of the build: the same sources make the same pages."""
    changelog = (CHECKOUT / "packaging/debian/changelog").read_text(encoding="utf-8")
    found = re.search(r"^ -- .*>  (.*)$", changelog, re.MULTILINE)
    assert found is not None
    moment: datetime.datetime = parsedate_to_datetime(found[1])
    return moment.strftime("%Y-%m-%d")


def pages() -> dict[str, str]:
    """Return every page, by its file's name."""
    made = {f"{program.name}.{program.section}": page(program) for program in PROGRAMS}
    return made | {f"{CONFIG_PAGE}.5": configuration_page()}


# docs/commands.md.


def markdown() -> str:
    """Return docs/commands.md."""
    parts = [
        "# Commands",
        "Made from the programs' own help by `make manual`, as are the pages for man(1). Keys of the "
        "configuration: [configuration.md](configuration.md).",
    ]
    for program in PROGRAMS:
        top, *below = entries(program)
        parts += [f"## {program.name}", f"{program.summary[0].upper()}{program.summary[1:]}."]
        parts += _markdown_entry(top)
        for entry in below:
            parts += [f"### {entry.path}", *_markdown_entry(entry)]
        for heading, blocks in program.more.items():
            parts += [f"### {program.name}: {heading.lower()}", *_markdown_blocks(blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown_entry(entry: Entry) -> Iterator[str]:
    yield f"```\n{entry.usage}\n```"
    yield from map(_escaped, entry.paragraphs)
    if entry.verbatim:
        yield f"```\n{entry.verbatim.strip()}\n```"
    if entry.options:
        yield "\n".join(f"- `{option.typed}`: {_escaped(option.text)}" for option in entry.options)
    if entry.examples:
        yield "```\n" + "\n".join(entry.examples) + "\n```"


def _markdown_blocks(blocks: Sequence[Block]) -> Iterator[str]:
    items: list[str] = []
    for block in blocks:
        if isinstance(block, tuple):
            items.append(f"- `{block[0]}`: {_escaped(block[1])}")
            continue
        if items:
            yield "\n".join(items)
            items = []
        yield f"```\n{block}\n```" if isinstance(block, Code) else _escaped(block)
    if items:
        yield "\n".join(items)


def _escaped(text: str) -> str:
    return re.sub(r"([*_<>\[\]])", r"\\\1", text)


def main(arguments: list[str]) -> Any:
    """Do what the first lines of this file say."""
    match arguments:
        case ["pages", folder]:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for name, text in pages().items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
        case ["markdown"]:
            sys.stdout.write(markdown())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
