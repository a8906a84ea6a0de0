"""The configuration file: which one is read, and its text as a TOML document."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .expansion import CannotExpand, variable
from .problems import ConfigRefused, Problem

SYSTEM_FILE: Final = Path("/etc/oqto/config.toml")
_LARGEST: Final = 1024 * 1024


def read(named: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, dict[str, object]]:
    """Read the file that applies: `named`, ``$OQTO_CONFIG``, the user's or the system's.

    One that was named must be there; without any the answer is (None, {}). Raises `ConfigRefused` when a
    file is there and can't be read: the next one in the order would not be what somebody meant.
    """
    if named is None and (from_environment := environ.get("OQTO_CONFIG")):
        named = Path(from_environment)
    for path in [named] if named else _usual_places(environ):
        try:
            return path, _parse(path, _bytes(path))
        except (FileNotFoundError, NotADirectoryError):
            if named:
                raise _refused(
                    path,
                    "no such file",
                    hint="`oqtod config init --output FILE` writes one with every key and its default",
                ) from None
        except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            hint = "it may be readable by root and a group only" if isinstance(error, PermissionError) else ""
            raise _refused(path, f"can't be read: {reason}", hint=hint) from error
    return None, {}


def _usual_places(environ: Mapping[str, str]) -> list[Path]:
    try:
        return [Path(variable("XDG_CONFIG_HOME", environ), "oqto", "config.toml"), SYSTEM_FILE]
    except CannotExpand:  # a service without a home has no file of its own
        return [SYSTEM_FILE]


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise _refused(path, "too large", found="more than 1 MiB", allowed="1 MiB")
    return data


def _parse(path: Path, data: bytes) -> dict[str, object]:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _refused(path, "not UTF-8", found=f"a bad byte at offset {error.start}") from None
    except RecursionError:
        raise _refused(path, "not valid TOML", found="brackets nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and numbers longer than Python reads
        raise _refused(path, "not valid TOML", found=str(error)) from None


def _refused(
    path: Path, message: str, *, found: str = "", allowed: str = "", hint: str = ""
) -> ConfigRefused:
    source = os.fsdecode(path)
    return ConfigRefused(
        [Problem(source=source, key="", message=message, found=found, allowed=allowed, hint=hint)]
    )
