"""What an endpoint is: a route, and beside it what the API's description says of it.

    def routes(self) -> list[Endpoint]:
        return [
            Endpoint("GET", "/api/keys", self.keys, answers={200: views.OwnApiKeys}),
            Endpoint(
                "POST", "/api/keys", self.make_key,
                takes=NewKey, answers={201: views.MadeApiKey}, refuses=["conflict"],
            ),
            Endpoint("DELETE", "/api/keys/{key_id}", self.revoke_key, answers={204: None}),
            Endpoint("GET", "/api/admin/sessions", self.list_sessions,
                     asks=Listing, answers={200: list[views.Session]}),
        ]

- The handler's docstring is the summary (its first line) and the description (the rest).
- `takes` is what `requests.body` decodes in the handler, `asks` what `requests.query` does: the same types.
  What may be missing of a query has a default, or is `… | UnsetType = UNSET`: a query has no null.
- `answers` says for each status what is sent: a type that msgspec encodes (a frozen Struct of
  `oqtod.api.views`, or a list of them), a `Media` for what is no JSON, None for nothing.
- `refuses` names the codes of `oqtod.errors` that this endpoint has besides those that follow from the rest
  (`Operation.codes`), RUNNER those of asking a runner.
- Who may come in stands in `oqtod.accounts.access`, and is taken from there.
- What stands in braces in the path is told of in `PARAMETERS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oqtod.accounts import access
from oqtod.errors import STATUS

PARAMETERS = {
    "invite_id": "The id of an invite code",
    "key": "A session: its id or its readable id",
    "key_id": "The id of an API key",
    "name": "A user: the id or the user name",
    "path": "Whatever follows",
    "port": "A port of the session's: one of its `preview_ports`",
    "asset": "A file of the terminal's page",
}
"""What stands in the braces of a path."""

RUNNER = ("conflict", "unprocessable", "bad_gateway")
"""The codes with which a runner, or the supervisor on the way to it, may have something refused."""


@dataclass(frozen=True, slots=True)
class Media:
    """What is sent or taken and is no JSON of ours: its media type, and what it holds."""

    kind: str
    holds: str


Content = object
"""A type that msgspec encodes or decodes, a Media, several of those in a tuple, or None for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What the description says of one method of one path."""

    method: str
    path: str
    text: str
    """The summary in its first line, and what else there is to say."""
    answers: Mapping[int, Content]
    takes: Content = None
    asks: type[msgspec.Struct] | None = None
    refuses: Sequence[str] = ()
    failures: Mapping[int, Content] = field(default_factory=dict)
    """Errors that have another shape, by status: those of a session's service, or for somebody who looks."""
    anything: bool = False
    """Whether somebody's own program answers, with whatever status and content."""

    def __post_init__(self) -> None:
        unknown = set(self.refuses) - set(STATUS)
        assert not unknown, f"{self.method} {self.path}: no such code: {unknown}"
        assert self.text, f"{self.method} {self.path} has no description"

    @property
    def need(self) -> access.Need:
        """Who may come in."""
        return access.needed(self.method, self.path)

    @property
    def codes(self) -> set[str]:
        """Return the codes of the errors that it can be answered with, but for mistakes of ours."""
        codes = {"bad_request", "forbidden", "unavailable", *self.refuses}
        if self.need.level != "public":
            codes.add("unauthorized")
        if "{" in self.path:
            codes.add("not_found")
        if self.takes is not None:
            codes |= {"request_timeout", "payload_too_large", "unprocessable"}
        if self.asks is not None:
            codes.add("unprocessable")
        return codes


class Endpoint(Route):
    """A route that is described."""

    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request], Awaitable[Response]],
        *,
        answers: Mapping[int, Content],
        takes: Content = None,
        asks: type[msgspec.Struct] | None = None,
        refuses: Sequence[str] = (),
        failures: Mapping[int, Content] | None = None,
    ) -> None:
        super().__init__(path, handler, methods=[method])
        if any(isinstance(x, Media) and x.kind == "text/event-stream" for x in answers.values()):
            self.methods = {method}  # a HEAD would never end
        self.operation = Operation(
            method=method,
            path=path,
            text=inspect.getdoc(handler) or "",
            answers=answers,
            takes=takes,
            asks=asks,
            refuses=refuses,
            failures=failures or {},
        )
