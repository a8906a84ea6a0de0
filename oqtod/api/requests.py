"""What every endpoint does with requests and answers: bodies decoded, JSON and errors written."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from oqtod.accounts.principal import Principal
from oqtod.errors import Refusal
from oqtod.store.database import StorageError

B = TypeVar("B", bound=msgspec.Struct)

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "payload_too_large"}


def principal_of(request: Request) -> Principal:
    """Return for whom a request acts: the gate has found out. Raises Refusal where it did not have to."""
    principal = request.scope["state"].get("principal")
    if not isinstance(principal, Principal):
        raise Refusal("unauthorized", "not logged in", "POST /api/auth/login with username and password")
    return principal


def address_of(request: Request) -> str:
    """Return the address that a request came from."""
    return request.client.host if request.client is not None else "local"


def note(request: Request, *, user_id: str | None = None, detail: str | None = None) -> None:
    """Tell the audit log whom a request was about, and what the rest of the line doesn't say."""
    state = request.scope["state"]
    if user_id is not None:
        state["audit_user"] = user_id
    if detail is not None:
        state["audit_detail"] = detail


async def body(request: Request, kind: type[B]) -> B:
    """Decode a JSON body. Raises Refusal: bad_request for what is no JSON, unprocessable for other fields."""
    raw = await request.body()
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise Refusal("unprocessable", f"the body doesn't fit: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("bad_request", f"the body is not JSON: {error}") from error


def query(request: Request, kind: type[B]) -> B:
    """Decode the query into a Struct. Raises Refusal: unprocessable for what doesn't fit.

    Names that the Struct doesn't have are left alone.
    """
    given = request.query_params
    for name in kind.__struct_fields__:
        if len(given.getlist(name)) > 1:
            raise Refusal("unprocessable", f"the query doesn't fit: {name} is in it more than once")
    try:
        return msgspec.convert(dict(given), kind, strict=False)
    except msgspec.ValidationError as error:
        raise Refusal("unprocessable", f"the query doesn't fit: {error}") from error


def json(content: object, *, status: int = 200) -> Response:
    """Answer with JSON that nobody keeps."""
    encoded = msgspec.json.encode(content)
    return Response(encoded, status, {"cache-control": "no-store"}, media_type="application/json")


def error(request_id: str, refusal: Refusal) -> Response:
    """Answer with an error, in the one shape they have."""
    answer = json(refusal.body(request_id), status=refusal.status)
    if refusal.retry_after is not None:
        answer.headers["retry-after"] = str(refusal.retry_after)
    return answer


async def refused(request: Request, refusal: Refusal) -> Response:
    """Answer a Refusal."""
    request.scope["state"]["refusal"] = refusal
    return error(request.scope["state"]["request_id"], refusal)


async def storage_failed(request: Request, failure: StorageError) -> Response:
    """Answer when the database can't be used."""
    return await refused(request, Refusal("unavailable", str(failure)))


def methods_at(routes: Sequence[BaseRoute], scope: MutableMapping[str, Any]) -> set[str]:
    """Return the methods that a path has; none where there is nothing."""
    return {
        method
        for route in routes
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def http_failed(request: Request, failure: HTTPException) -> Response:
    """Answer what the router refuses."""
    code = _CODES.get(failure.status_code, "bad_request")
    answer = await refused(request, Refusal(code, f"{request.method} {request.url.path}: {failure.detail}"))
    if code == "method_not_allowed":
        answer.headers["allow"] = ", ".join(sorted(methods_at(request.scope["app"].routes, request.scope)))
    return answer


async def went_wrong(request: Request, failure: Exception) -> Response:
    """Answer when we made a mistake; the front writes it into the journal."""
    return await refused(request, Refusal("internal", "something went wrong", "the journal says what"))
