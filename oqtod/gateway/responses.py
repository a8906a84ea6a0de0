"""The heads of the responses to one request: interim ones first, in whatever pieces they come. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from oqtod.gateway.heads import BadHead, ResponseHead, end_of_head, response_head

_MOST_INTERIM = 16


class Responses:
    """What a service says until its response begins."""

    __slots__ = ("_count", "_last", "_method", "_said")

    def __init__(self, method: bytes, last: ResponseHead | None) -> None:
        """`last` is the head of the response before on the same connection."""
        self._method = method
        self._last = last
        self._said = b""
        self._count = 0

    @property
    def heard(self) -> bool:
        """Whether there was anything at all."""
        return bool(self._said) or self._count > 0

    def take(self, data: bytes) -> Iterator[tuple[ResponseHead, bytes]]:
        """Yield each head that is complete with this, and the bytes behind it. Raises BadHead."""
        seen = len(self._said)
        said = self._said + data if seen else data
        while length := end_of_head(said, seen):
            head = response_head(said[:length], self._method, self._last)
            said, seen = said[length:], 0
            self._count += 1
            if self._count > _MOST_INTERIM:
                raise BadHead("it never comes to its answer")
            yield head, said
        self._said = said
