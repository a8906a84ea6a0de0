"""The command oqto-sandbox: run anything the way a session runs it, and ask what that means."""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.sandbox.policy import HOST_FILE, SandboxRefused
from runner.sandbox.seccomp import SeccompUnavailable
from runner.sandbox.workspace import WorkspaceSandbox

_QUESTIONS = ("explain", "show", "check")

DONE, FAILED, REFUSED = 0, 1, 3

_EPILOG = """\
oqto-sandbox explain [PATH...]   say whether a session could read or write PATH, and which line decided
oqto-sandbox show                print the effective policy, with the line that each part comes from
oqto-sandbox check               say whether the files are in order, and what this host can enforce
oqto-sandbox -- explain          run a program of that name

/etc/oqto/sandbox.toml rules if it exists, else ~/.config/oqto/sandbox.toml; the others, as
DIR/.oqto/sandbox.toml, only add to it. The environment is a session's, not the caller's.
Exit codes: the command's own; 1 it could not be started, 2 usage, 3 a sandbox file is refused.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Running a program replaces this process, so that returns only when it fails."""
    outer = parser()
    options = outer.parse_args(arguments)
    argv = options.command
    if not argv or argv == ["--"]:
        outer.error("there is no COMMAND to run")
    if argv[0] in _QUESTIONS:
        question = argparse.ArgumentParser(prog=f"oqto-sandbox {argv[0]}")
        _add_options(question, **dict.fromkeys(("workspace", "personal", "json"), argparse.SUPPRESS))
        question.set_defaults(path=[])
        if argv[0] == "explain":
            question.add_argument("path", metavar="PATH", nargs="*")
        options = question.parse_args(argv[1:], options)
    workspace = Path(os.path.realpath(options.workspace))
    if not workspace.is_dir():
        return _fail(f"the workspace {workspace} isn't a folder", FAILED)
    account = pwd.getpwuid(os.geteuid())
    sandbox = WorkspaceSandbox(
        account, workspace, personal=options.personal or not os.path.lexists(HOST_FILE)
    )
    try:
        if argv[0] in _QUESTIONS:
            return _answer(sandbox, argv[0], options.path, as_json=options.json)
        return _run(sandbox, argv[1:] if argv[0] == "--" else argv)
    except SandboxRefused as refused:
        return _fail(f"the sandbox is refused: {refused}", REFUSED)
    except SeccompUnavailable as error:
        return _fail(str(error), FAILED)
    except OSError as error:
        return _fail(f"the sandbox can't be built: {error}", FAILED)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="oqto-sandbox",
        description="Run COMMAND under the sandbox that a session in DIR would have.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(parser, workspace=Path(), personal=False, json=False)
    parser.add_argument(
        "command", metavar="COMMAND", nargs=argparse.REMAINDER, help="what to run, with its arguments"
    )
    return parser


def _add_options(parser: argparse.ArgumentParser, **defaults: object) -> None:
    parser.add_argument(
        "--workspace",
        metavar="DIR",
        type=Path,
        default=defaults["workspace"],
        help="default: the current folder",
    )
    parser.add_argument(
        "--personal",
        action="store_true",
        default=defaults["personal"],
        help="as personal mode does: ~/.config/oqto/sandbox.toml rules even where there is one in /etc",
    )
    parser.add_argument(
        "--json", action="store_true", default=defaults["json"], help="for explain, show and check"
    )


def _run(sandbox: WorkspaceSandbox, argv: Sequence[str]) -> int:
    bwrap = shutil.which("bwrap")
    if bwrap is None and sandbox.policy().enabled:
        return _fail("bwrap isn't installed; run: apt install bubblewrap", FAILED)
    command = sandbox.command(
        argv,
        bwrap=bwrap or "bwrap",
        extra={"TERM": os.environ.get("TERM", "dumb")},
        programs=[found for found in [_own_program(argv[0])] if found is not None],
    )
    for descriptor in command.descriptors:
        os.set_inheritable(descriptor, True)
    try:
        os.chdir(sandbox.workspace)
        os.execvpe(command.argv[0], command.argv, dict(command.environment))  # noqa: S606  its whole purpose
    except OSError as error:
        return _fail(f"can't run {command.argv[0]}: {error.strerror}", FAILED)


def _own_program(name: str) -> Path | None:
    """The program's file where it is one of ours, which may be in a folder that the sandbox hides."""
    beside = Path(sys.argv[0]).absolute().parent / name
    return beside if name.startswith("oqto-") and beside.is_file() else None


def _answer(sandbox: WorkspaceSandbox, question: str, paths: Sequence[str], *, as_json: bool) -> int:
    from runner.sandbox import answers  # not needed to run something

    if question == "explain" and paths:
        return answers.explain_paths(sandbox, paths, as_json=as_json)
    if question == "check":
        return answers.check(sandbox, as_json=as_json)
    return answers.show(sandbox, as_json=as_json)


def _fail(message: str, code: int) -> int:
    print(f"oqto-sandbox: {message}", file=sys.stderr)
    return code
