"""Requests that hide another one, at oqtod and at nginx: a service never hears anything that isn't clear.

nginx is the measure for what may be taken: where it refuses and oqtod does not, there is a reason.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.odd_requests import CLEAR, NOT_CLEAR
from tests.integration.previews import Heard, Preview, Wire, answering, preview, session
from tests.integration.reverse_proxies import free_port, nginx_with

__all__ = ["preview", "session"]

_NGINX = """
    large_client_header_buffers 4 16k;
    upstream service {{ server 127.0.0.1:{service}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_ignore_client_abort on;  # it has said all, and reads
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_pass http://service;
        }}
    }}
"""

ONLY_NGINX_REFUSES = {
    "a length among blanks": "a tab around a value is as good as a blank, RFC 9110 section 5.5",
    "chunks among blanks": "the same",
    "a target above the top": "what a path means is the service's to say: it gets it as it came",
    "a target with an encoded NUL": "the same; and %00 is no NUL",
    "a target with a bad escape": "the same",
    "a method in small letters": "a method is any token, RFC 9110 section 9.1, and 'get' is not 'GET' to us",
}

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) (/[\x21-\x7e]*) HTTP/1\.1\r\n")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\x21-\x7e\x80-\xff\t ]*)\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")


@dataclass
class Outcome:
    """What came of some bytes: answers and their statuses, what the service heard, and as what it came."""

    answer: bytes
    statuses: list[int]
    heard: list[Heard]
    seen: list[bytes]


def sent(data: bytes, wire: Wire, service: int) -> Outcome:
    """Send bytes to a proxy before a service at a port."""
    with answering(service) as (wires, heard):
        try:
            wire.send(data).finish()
        except OSError:
            pass  # it is refused before it was read
        wire.wait_for_end()
    statuses = re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", wire.seen)
    return Outcome(bytes(wire.seen), [int(x) for x in statuses], heard, [bytes(x.seen) for x in wires])


def understood(data: bytes) -> list[Heard]:
    """The requests in bytes that no program could read in another way; a part of one may follow them."""
    found, position = [], 0
    while position < len(data):
        end = data.find(b"\r\n\r\n", position) + 4
        if end < 4:
            break
        line = _LINE.match(data, position)
        assert line is not None, data[position:end]
        fields: dict[bytes, list[bytes]] = {}
        position = line.end()
        while field := _FIELD.match(data, position, end):
            fields.setdefault(field[1].lower().replace(b"_", b"-"), []).append(field[2])
            position = field.end()
        assert position == end - 2, data[position:end]
        assert len(fields.get(b"host", [])) == 1, fields
        body, position = body_of(fields, data, end)
        if position < 0:
            break
        found.append(Heard(line[1], line[2], body))
    return found


def body_of(fields: dict[bytes, list[bytes]], data: bytes, start: int) -> tuple[bytes, int]:
    """Read a body; return it and its end, or -1 where it isn't whole."""
    lengths, codings = fields.get(b"content-length", []), fields.get(b"transfer-encoding", [])
    assert len(lengths) + len(codings) <= 1, fields
    if lengths:
        assert lengths[0].isdigit()
        end = start + int(lengths[0])
        return data[start:end], end if end <= len(data) else -1
    if not codings:
        return b"", start
    assert codings == [b"chunked"]
    body, position = b"", start
    while (chunk := _CHUNK.match(data, position)) is not None:
        end = chunk.end() + int(chunk[1], 16)
        if end == chunk.end():
            if (over := data.find(b"\r\n\r\n", end - 2)) < 0:
                return body, -1
            trailers = data[end : over + 2]
            assert re.fullmatch(rb"(?:%b)*" % _FIELD.pattern, trailers), trailers
            return body, over + 4
        body += data[chunk.end() : end]
        assert data[end : end + 2] in (b"\r\n", b"\r", b"")
        position = end + 2
    assert len(data) - position <= 0 or b"\r\n" not in data[position:], data[position:]
    return body, -1


@pytest.fixture(scope="module")
def nginx(session: Preview, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """nginx alone: its port, and its service's, which is another one of the session's."""
    service, port = session.spare, free_port()
    with nginx_with(_NGINX.format(service=service, port=port), tmp_path_factory.mktemp("nginx"), port):
        yield port, service


def filled(data: bytes, preview: Preview) -> bytes:
    host = b"127.0.0.1:%d" % preview.gateway
    for name, value in ((b"PATH", preview.path), (b"HOST", host), (b"AUTH", preview.authorization)):
        data = data.replace(name, value)
    return data


def hidden(preview: Preview) -> bytes:
    return preview.request(b"/hidden", b"Connection: close")


def at_oqtod(data: bytes, preview: Preview) -> Outcome:
    outcome = sent(filled(data, preview) + hidden(preview), preview.connect(), preview.port)
    # h11 and the strictest reading agree on each connection: together they are all that was heard.
    assert sorted(map(repr, outcome.heard)) == sorted(
        repr(heard) for seen in outcome.seen for heard in understood(seen)
    )
    return outcome


def at_nginx(data: bytes, preview: Preview, nginx: tuple[int, int]) -> Outcome:
    port, service = nginx
    with Wire(socket.create_connection(("127.0.0.1", port))) as wire:
        outcome = sent(filled(data, preview) + hidden(preview), wire, service)
    for heard in outcome.heard:
        heard.target = heard.target.removeprefix(preview.path) or b"/"
    return outcome


@pytest.mark.parametrize("name", NOT_CLEAR)
def test_what_is_not_clear_goes_nowhere(preview: Preview, name: str) -> None:
    """It is refused, and nothing behind it is heard: neither here nor, on another connection, later."""
    outcome = at_oqtod(NOT_CLEAR[name], preview)
    assert outcome.statuses in ([400], [414], [431], []), outcome
    assert outcome.answer.count(b"\r\nconnection: close\r\n") == len(outcome.statuses)
    assert outcome.heard == []
    assert not any(b"hidden" in seen for seen in outcome.seen)


# To the API, an upgrade is a wish that it does not have to hear.
@pytest.mark.parametrize("name", [name for name in NOT_CLEAR if name != "an upgrade with a body"])
def test_what_is_not_clear_is_refused_by_the_api_too(preview: Preview, name: str) -> None:
    data = NOT_CLEAR[name].replace(b"PATH", b"/api/keys")
    with preview.connect() as wire:
        outcome = sent(filled(data, preview) + hidden(preview), wire, preview.port)
    assert outcome.statuses in ([400], [414], [431], []), outcome
    assert outcome.answer.count(b"\r\nconnection: close\r\n") == len(outcome.statuses)
    assert outcome.seen == []


@pytest.mark.parametrize("name", CLEAR)
def test_what_is_clear_arrives_as_it_does_through_nginx(
    preview: Preview, nginx: tuple[int, int], name: str
) -> None:
    clear = CLEAR[name]
    expected = [Heard(clear.method, clear.path, clear.body)]
    if not clear.last:
        expected.append(Heard(b"GET", b"/hidden", b""))
    ours = at_oqtod(clear.data, preview)
    assert ours.heard == expected
    assert ours.statuses == [200] * len(expected)
    theirs = at_nginx(clear.data, preview, nginx)
    if theirs.statuses in ([400], [501]):
        assert theirs.heard == []
        assert name in ONLY_NGINX_REFUSES
    else:
        assert theirs.heard[: len(expected)] == expected  # nginx goes on where HTTP/1.0 wants to


FIELDS = [
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length:0\r\n",
        b"content-length: 20\r\n",
        b"Content-Length: 5, 5\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:CHUNKED\r\n", b"Transfer-Encoding: x\r\n"),
    *(
        b"Connection: close\r\n",
        b"Connection: X\r\n",
        b"Expect: 100-continue\r\n",
        b"X: y\r\n",
        b"X:",
        b" z\r\n",
    ),
]
BODY = [
    *(
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"X: y\r\n\r\n",
        b"5;a\r\n",
        b"5",
        b"a\r\n",
        b"hello",
        b"\r\n",
    ),
    b"GET PATH/more HTTP/1.1\r\nHost: HOST\r\nAUTH\r\n\r\n",
]
NOISE = st.sampled_from(
    [b"", b"", b"", b"\r\n", b"\n", b"\r", b"\t", b" ", b":", b";", b",", b"\0", b"\x0b", b"\x85"]
)
SOUP = st.tuples(
    st.lists(st.sampled_from(FIELDS), max_size=3).map(b"".join),
    NOISE,
    st.just(b"\r\n"),
    st.lists(st.sampled_from(BODY), max_size=3).map(b"".join),
    NOISE,
    st.lists(st.sampled_from(BODY), max_size=3).map(b"".join),
).map(b"".join)
STARTS = [b"POST PATH HTTP/1.1\r\nHost: HOST\r\nAUTH\r\n", b"GET PATH HTTP/1.0\r\nHost: HOST\r\nAUTH\r\n"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from(STARTS), soup=SOUP)
def test_nothing_else_is_heard_than_through_nginx(
    session: Preview, nginx: tuple[int, int], start: bytes, soup: bytes
) -> None:
    """Of anything at all: either may refuse what the other one takes, but neither hears another thing."""
    ours = at_oqtod(start + soup, session)
    session.leave()
    theirs = at_nginx(start + soup, session, nginx)
    compared = min(len(ours.heard), len(theirs.heard))
    assert ours.heard[:compared] == theirs.heard[:compared]
