"""docs/api.md: it names every operation and every error, as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from oqtod.api.application import Api
from oqtod.api.contract import Operation
from oqtod.api.proxied import PROXIED
from oqtod.errors import STATUS
from oqtod.sessions.context import Gateway

TEXT = (Path(__file__).parents[2] / "docs/api.md").read_text()


class Unused:
    """A gateway that no request reaches."""

    audit = None
    sessions = None


def row(operation: Operation) -> str:
    need = operation.need
    who = ", ".join(f"`{scope}`" for scope in sorted(need.scopes)) if need.level == "scoped" else need.level
    summary = operation.text.partition("\n")[0].rstrip(".")
    return f"| {operation.method} | `{operation.path}` | {who} | {summary} |"


def test_every_operation_is_in_it() -> None:
    routes = Api(cast(Gateway, Unused()), None).routes()
    expected = sorted(
        (row(operation) for operation in [*(route.operation for route in routes), *PROXIED]),
        key=lambda line: line.split("`")[1],
    )
    found = re.findall(r"^\| [A-Z]+ \| `/.*$", TEXT, re.MULTILINE)
    assert found == expected, "the table should be:\n" + "\n".join(expected)


def test_every_error_is_in_it() -> None:
    found = re.findall(r"^\| `(\w+)` \| (\d+) \|", TEXT, re.MULTILINE)
    assert [(code, int(status)) for code, status in found] == list(STATUS.items())
