"""The one error that people see: what failed, a stable code, and what to do next.

The HTTP front turns it into the body of INTERFACES: `{"error", "code", "error_code", "hint"?, "request_id"}`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

STATUS = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "conflict": 409,
    "payload_too_large": 413,
    "unprocessable": 422,
    "too_many_requests": 429,
    "internal": 500,
    "bad_gateway": 502,
    "unavailable": 503,
}
"""The codes there are, and the HTTP status of each, RFC 9110 section 15."""


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What failed. `hint` says what to do about it; the journal and the audit log know the `request_id`."""

    error: str
    code: Annotated[str, msgspec.Meta(extra_json_schema={"enum": [code.upper() for code in STATUS]})]
    error_code: Annotated[str, msgspec.Meta(extra_json_schema={"enum": [*STATUS]})]
    request_id: str
    hint: str | msgspec.UnsetType = msgspec.UNSET


class Refusal(Exception):
    """A request that is answered with an error. `code` is one of the table's; its HTTP status follows."""

    def __init__(
        self, code: str, message: str, hint: str | None = None, *, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """The HTTP status, RFC 9110 section 15."""
        return STATUS[self.code]

    def body(self, request_id: str) -> dict[str, str]:
        """Return the JSON body."""
        body = ErrorBody(
            error=self.message,
            code=self.code.upper(),
            error_code=self.code,
            request_id=request_id,
            hint=msgspec.UNSET if self.hint is None else self.hint,
        )
        encoded: dict[str, str] = msgspec.to_builtins(body)
        return encoded
