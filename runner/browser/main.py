"""The command line of oqto-browserd and oqto-browser."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runner.browser import client
from runner.browser.settings import Settings, SettingsError, session_name, socket_path, stream_port

DONE, FAILED, USAGE = 0, 1, 2

_MOST_SECONDS: Final = 600.0

_COMMANDS: Final = """\
  serve [--socket PATH]            the daemon, in the foreground, until SIGTERM
  status                           what the browser is doing; starts nothing
  open URL | navigate URL          go to a page, and wait for it
  back | forward | reload | close
  set viewport WIDTH HEIGHT        | emulatemedia light|dark
  snapshot [-i]                    the page as text, with references; -i: what can be acted on
  click TARGET [--double | --button left|right|middle]        | hover TARGET
  fill TARGET TEXT | type TARGET TEXT | press KEY             | select TARGET VALUE...
  check TARGET | uncheck TARGET    | upload TARGET FILE...    | scroll TARGET
  scroll up|down|left|right [PIXELS]
  get text|html|value TARGET       | get attribute NAME TARGET | get url | get title
  eval SCRIPT
  wait TARGET | wait MILLISECONDS  | wait --text T | wait --url PART | wait --load
  screenshot [FILE] [--full]       | pdf FILE
  cookies | cookies set NAME VALUE [--url U] | cookies clear
  downloads [--wait]
  dialog accept [TEXT] | dialog dismiss
  tabs | tab N | tab new [URL]     | tab close [N]

TARGET is a CSS selector, text=TEXT, or a reference of the last snapshot, like @e12.
Frames and open shadow roots are searched too.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 for done, 1 for failed, 2 for a wrong command line."""
    name = Path(sys.argv[0]).name
    found = parser(name) if name.startswith("oqto-") else parser()
    options = found.parse_args(arguments)
    try:
        session = session_name(options.session)
        if options.command == "serve":
            return _serve(found, options, session)
        return _ask(options, session)
    except SettingsError as error:
        print(f"{found.prog}: {error}", file=sys.stderr)
        return USAGE


def client_parser() -> argparse.ArgumentParser:
    """Return the same under the agents' name."""
    return parser("oqto-browser")


def parser(prog: str = "oqto-browserd") -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s [options] COMMAND [ARG ...]",
        description="Drive the browser of a session. The first command starts it. Answers are JSON.",
        epilog=f"commands:\n{_COMMANDS}\nExit status: 0 done, 1 failed, 2 wrong command line.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--session", metavar="NAME", default="default", help="(default: %(default)s)")
    add("--headed", action="store_true", help="show a window on the display")
    add("--executable-path", metavar="PATH", help="the browser (default: chromium, or what is like it)")
    add("--extension", metavar="FOLDER", action="append", default=[], help="may be given again")
    add("--profile", metavar="FOLDER", type=Path, help="cookies, storage, cache")
    add("--downloads", metavar="FOLDER", type=Path, help="(default: downloads in the current folder)")
    add("--download-limit-mb", metavar="N", type=int, default=512, help="(default: %(default)s)")
    add("--page-memory-mb", metavar="N", type=int, default=2048, help="(default: %(default)s)")
    add("--timeout", metavar="S", type=float, default=30.0, help="seconds for the command (default: 30)")
    add("--json", action="store_true", help="answers are JSON anyway")
    add("--binary", metavar="B", help="with serve: another daemon, with the same command line, does the work")
    add("--ends-on-close", action="store_true", help=argparse.SUPPRESS)
    add("command", metavar="COMMAND", help="see below")
    add("arguments", metavar="ARG", nargs=argparse.REMAINDER, help="the command's")
    return parser


def _serve(parser: argparse.ArgumentParser, options: argparse.Namespace, session: str) -> int:
    more = argparse.ArgumentParser(prog=f"{parser.prog} serve", allow_abbrev=False)
    more.add_argument("--socket", metavar="PATH", type=Path, help="listen here (mode 0600)")
    listen = more.parse_args(options.arguments)
    for name in ("download_limit_mb", "page_memory_mb"):
        if not 1 <= getattr(options, name) <= 1 << 20:
            raise SettingsError(f"--{name.replace('_', '-')}: give a number of megabytes")
    socket = (listen.socket or socket_path(session)).absolute()
    settings = Settings(
        session=session,
        socket=socket,
        profile=(options.profile or socket.with_name(f"{session}.profile")).absolute(),
        downloads=(options.downloads or Path("downloads")).absolute(),
        headed=options.headed,
        executable=options.executable_path,
        extensions=tuple(options.extension),
        binary=options.binary,
        download_limit=options.download_limit_mb << 20,
        page_memory=options.page_memory_mb << 20,
        stream_port=stream_port(),
        ends_on_close=options.ends_on_close,
    )
    from runner.browser.serve import ListenError, serve  # trio, which a client doesn't need

    try:
        serve(settings)
    except ListenError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return FAILED
    return DONE


def _ask(options: argparse.Namespace, session: str) -> int:
    if not 0 < options.timeout <= _MOST_SECONDS:
        raise SettingsError(f"--timeout {options.timeout}: give seconds, at most {_MOST_SECONDS:.0f}")
    command = [options.command, *options.arguments]
    if options.command == "upload":  # the daemon has another current folder
        command[2:] = [str(Path(file).absolute()) for file in command[2:]]
    start = None if os.environ.get("OQTO_BROWSER_SOCKET") else _start_line(options)
    try:
        answer = client.ask(socket_path(session), command, seconds=options.timeout, start=start)
    except client.Unreachable as error:
        answer = {"success": False, "error": str(error), "code": "no_browser"}
    file = next((argument for argument in options.arguments if not argument.startswith("--")), None)
    try:
        return client.print_answer(client.save(answer, file))
    except OSError as error:
        failure = f"{file}: {error.strerror}"
        return client.print_answer({"success": False, "error": failure, "code": "failed"})


def _start_line(options: argparse.Namespace) -> list[str]:
    # As we were started ourselves, by whichever of the ways there are.
    line = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]]
    line += ["--session", options.session, "--ends-on-close"]
    if options.headed:
        line.append("--headed")
    for name in ("executable_path", "profile", "downloads", "download_limit_mb", "page_memory_mb", "binary"):
        if (value := getattr(options, name)) is not None:
            line += [f"--{name.replace('_', '-')}", str(value)]
    for extension in options.extension:
        line += ["--extension", extension]
    return [*line, "serve"]


if __name__ == "__main__":
    sys.exit(main())
