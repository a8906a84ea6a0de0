"""What the gateway itself answers, as bytes. No I/O."""

from __future__ import annotations

import json

from oqtod.errors import Refusal


def refused(refusal: Refusal, request_id: str, *, close: bool, bodiless: bool) -> bytes:
    """Return the response for a refusal; with `close`, the last one on its connection.

    `bodiless` is the answer to HEAD, RFC 9110 section 9.3.2.
    """
    body = json.dumps(refusal.body(request_id)).encode()
    head = [
        f"HTTP/1.1 {refusal.status} ",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        f"x-request-id: {request_id}",
    ]
    if refusal.retry_after is not None:
        head.append(f"retry-after: {refusal.retry_after}")
    if close:
        head.append("connection: close")
    return "\r\n".join([*head, "", ""]).encode() + (b"" if bodiless else body)
