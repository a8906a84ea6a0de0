"""Exit codes of all commands, and leaving with a configuration's problems."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from oqtod import config
from oqtod.config import ConfigRefused, Loaded

log = logging.getLogger(__name__)

FAILED = 1
USAGE = 2
REFUSED = 3
UNREACHABLE = 4
FORBIDDEN = 5


def configuration_or_exit(path: Path | None, overrides: Mapping[str, object] | None = None) -> Loaded:
    """Return the configuration, or end the program with 3 and every problem on stderr."""
    try:
        return config.load(path, overrides=overrides or {})
    except ConfigRefused as refused:
        click.echo(str(refused), err=True)
        sys.exit(REFUSED)


def configuration_or_none(path: Path | None, overrides: Mapping[str, object] | None = None) -> Loaded | None:
    """Return the configuration for a reload, or None with every problem in the log: the old one stays."""
    try:
        return config.load(path, overrides=overrides or {})
    except ConfigRefused as refused:
        log.error("the configuration was not reloaded: %s", refused)
        return None
