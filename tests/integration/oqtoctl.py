"""oqtoctl as somebody runs it: the real command, and what came of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from oqtod.admin.oqtoctl import main

OQTOCTL = str(Path(sys.executable).parent / "oqtoctl")


@dataclass
class Done:
    """A run that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The error, in --json mode."""
        return json.loads(self.err)

    @property
    def rows(self) -> list[list[str]]:
        """The lines of a table, the heading left out, by their columns."""
        return [line.split() for line in self.out.splitlines()[1:]]


class _Captured(io.TextIOWrapper):
    """Standard output that is a pipe."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        return self._bytes.getvalue().decode()


@dataclass
class Oqtoctl:
    """Runs commands with the environment of the one whose folder this is."""

    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "OQTO_CONFIG": str(self.folder / "config.toml"),
            **more,
        }

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Done:
        """Run a command line, whatever comes of it. In this process: starting Python takes a while."""
        out, err, code = _Captured(), _Captured(), 0
        with patch.dict(os.environ, self.environment(**environment), clear=True):
            with patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))):
                with redirect_stdout(out), redirect_stderr(err):
                    try:
                        main(list(arguments))
                    except SystemExit as ended:
                        assert ended.code is None or isinstance(ended.code, int)
                        code = ended.code or 0
        return Done(code, out.text, err.text)

    def program(self, *arguments: str, **environment: str) -> Done:
        """Run the program itself."""
        done = subprocess.run(
            [OQTOCTL, *arguments],
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Done:
        """Run it, which must work."""
        done = self.run(*arguments, stdin=stdin, **environment)
        assert done.code == 0, (arguments, done)
        return done
