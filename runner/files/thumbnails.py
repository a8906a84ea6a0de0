"""Small pictures of pictures, made by a process that lives for one of them.

A picture is somebody's program for a decoder. So the decoder gets a process of its own, with little memory
and little time, an open file and a pipe, and nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trio

from runner.files.errors import FileError

SIZES = range(16, 1025)
"""Pixels of the longer side."""

TIMEOUT = 10.0
MAX_SOURCE = 64 * 1024 * 1024
"""Bytes of a picture that is looked at."""

MAX_RESULT = 4 * 1024 * 1024
UNSUPPORTED, NO_PILLOW = 3, 4
"""Exit codes of the worker."""

_WORKER = Path(__file__).with_name("thumbnail_worker.py")
_AT_A_TIME = trio.CapacityLimiter(2)


async def make(source: int, size: int) -> bytes:
    """Return a PNG of the picture in the file `source`, within `size` by `size` pixels. Raises FileError."""
    if os.fstat(source).st_size > MAX_SOURCE:
        raise FileError("FILE_TOO_LARGE", f"pictures over {MAX_SOURCE} bytes are not looked at")
    async with _AT_A_TIME:
        try:
            with trio.fail_after(TIMEOUT):
                done = await trio.run_process(
                    [os.path.realpath(sys.executable), "-I", str(_WORKER), str(size), str(MAX_RESULT)],
                    stdin=source,
                    capture_stdout=True,
                    stderr=subprocess.DEVNULL,
                    env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ""} | _where_pillow_is(),
                    check=False,
                )
        except trio.TooSlowError:
            message = f"the picture took more than {TIMEOUT:g} seconds"
            raise FileError("UNSUPPORTED", message) from None
    if done.returncode == NO_PILLOW:
        raise FileError("UNAVAILABLE", "there are no thumbnails without Pillow: install python3-pil")
    if done.returncode != 0 or not done.stdout:
        raise FileError("UNSUPPORTED", "that is no picture, or too big a one")
    return done.stdout


def _where_pillow_is() -> dict[str, str]:
    """In a virtual environment the interpreter behind its link doesn't know the environment's packages."""
    return {"OQTO_PACKAGES": os.pathsep.join(path for path in sys.path if path.endswith("-packages"))}
