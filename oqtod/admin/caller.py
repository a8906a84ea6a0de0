"""Whoever calls oqtoctl: the options that every command takes, and how errors reach people and scripts."""

from __future__ import annotations

import difflib
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import click

from oqtod.admin import output
from oqtod.admin.client import Daemon, Trouble, Where
from oqtod.commands.exits import FAILED, USAGE

_GIVEN = "oqtoctl.given"


@dataclass(frozen=True, slots=True)
class Caller:
    """What a command is called with, as `ctx.obj`: `@click.pass_obj`."""

    daemon: Daemon
    as_json: bool
    """Whether standard output is to be JSON."""


def _note(context: click.Context, option: click.Parameter, value: object) -> None:
    """Keep an option of every command for the command itself, wherever on the line it stood."""
    if value not in (None, False):
        context.meta.setdefault(_GIVEN, {})[option.name] = value


class Everywhere(click.Option):
    """An option that every command takes."""


def everywhere() -> list[click.Parameter]:
    """Return the options that every command takes."""
    file = click.Path(dir_okay=False)
    options: list[tuple[str, dict[str, Any]]] = [
        ("--json", {"is_flag": True, "help": "Print JSON, for scripts; errors too, on stderr."}),
        (
            "--server",
            {"metavar": "URL", "help": "Use the server there, with a token.  [$OQTO_SERVER_URL]"},
        ),
        (
            "--admin-socket",
            {"metavar": "PATH", "type": file, "help": "Use this admin socket.  [$OQTO_ADMIN_SOCKET]"},
        ),
        (
            "--token-file",
            {"metavar": "FILE", "type": file, "help": "Take the token from here.  [$OQTO_TOKEN]"},
        ),
    ]
    return [Everywhere([name], expose_value=False, callback=_note, **settings) for name, settings in options]


def caller_of(context: click.Context) -> Caller:
    """Return who calls. Raises UsageError for options that contradict each other."""
    given = context.meta.get(_GIVEN, {})
    if "server" in given and "admin_socket" in given:
        raise click.UsageError("--server and --admin-socket exclude each other", context)
    if "token_file" in given and "admin_socket" in given:
        raise click.UsageError("the admin socket takes no token: --token-file goes with --server", context)
    where = Where(given.get("server"), given.get("admin_socket"), given.get("token_file"))
    return Caller(Daemon(where), as_json=bool(given.get("json")))


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether to go on, unless `yes`. Raises Abort; UsageError where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("this can't be taken back: say --yes where nobody can be asked")
    click.confirm(output.printable(question), abort=True, err=True)


class Command(click.Command):
    """A command of oqtoctl. `examples` are whole command lines; its help and the manual page show them."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params += everywhere()

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, with `ctx.obj` a Caller."""
        ctx.obj = caller_of(ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write its own options, then examples."""
        own = [x.get_help_record(ctx) for x in self.get_params(ctx) if not isinstance(x, Everywhere)]
        with formatter.section("Options"):
            formatter.write_dl([record for record in own if record is not None])
        _write_end(formatter, self.examples)


class Group(click.Group):
    """A group of commands of oqtoctl.

    `lazy` holds commands by name, as "module:attribute", which are imported when they are needed.
    """

    command_class = Command

    def __init__(
        self, *args: Any, lazy: Mapping[str, str] | None = None, examples: Sequence[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.examples = examples
        self.params += everywhere()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order in which they were written down."""
        return [*self.commands, *self.lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported if need be."""
        if cmd_name in self.lazy:
            module, _, attribute = self.lazy[cmd_name].partition(":")
            found: click.Command = getattr(importlib.import_module(module), attribute)
            return found
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for; for one that isn't there, say what was probably meant."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            alike = difflib.get_close_matches(name, self.list_commands(ctx), 2, 0.5)
            meant = f" Did you mean {' or '.join(alike)}?" if alike else f" See {ctx.command_path} --help."
            raise click.UsageError(f"there is no command {output.printable(name)!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write its options where it is oqtoctl itself, then its commands."""
        if ctx.parent is None:
            super().format_options(ctx, formatter)
        else:
            self.format_commands(ctx, formatter)
        _write_end(formatter, self.examples)


Group.group_class = Group


class Root(Group):
    """oqtoctl itself: how a run of it ends."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line, and exit; with `standalone_mode=False`, raise what went wrong instead."""
        given = sys.argv[1:] if args is None else list(args)
        run = partial(super().main, given, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            code: Any = run()
        except Trouble as trouble:
            _end(trouble.body, trouble.exit_code, as_json="--json" in given)
        except click.ClickException as error:
            if "--json" not in given:
                error.show()
                sys.exit(error.exit_code)
            kind = "usage" if error.exit_code == USAGE else "failed"
            body = {"error": error.format_message(), "code": kind.upper(), "error_code": kind}
            _end(body, error.exit_code, as_json=True)
        except (click.Abort, KeyboardInterrupt):
            click.echo("Aborted.", err=True)
            sys.exit(FAILED)
        sys.exit(code)


def _end(body: Mapping[str, Any], code: int, *, as_json: bool) -> NoReturn:
    """Say what failed and what to do, and exit."""
    if as_json:
        click.echo(json.dumps(body, indent=2), err=True)
    else:
        output.warn(f"Error: {body['error']}")
        if body.get("hint"):
            output.warn(f"  {body['hint']}")
    sys.exit(code)


def _write_end(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
