"""Heads, ours and h11's: what h11 refuses is refused, what is clear is read in the same way."""

from __future__ import annotations

import tracemalloc

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oqtod.gateway.heads import (
    MAX_HEAD,
    MAX_NAME,
    BadHead,
    RequestHead,
    ResponseHead,
    end_of_head,
    request_head,
    response_head,
)


def request(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([line, *fields, b"", b""])


REFUSED = {
    "no host": request(),
    "two hosts": request(b"Host: a", b"Host: a"),
    "host with a blank": request(b"Host: a b"),
    "host with a user": request(b"Host: a@b"),
    "host with a path": request(b"Host: a/b"),
    "two hosts in one": request(b"Host: a, b"),
    "blank before the colon": request(b"Host: a", b"X : y"),
    "folded": request(b"Host: a", b"X: y", b" z"),
    "folded at once": request(b" X: y", b"Host: a"),
    "no name": request(b"Host: a", b": y"),
    "no colon": request(b"Host: a", b"X"),
    "bare line feed": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare line feed in a value": request(b"Host: a", b"X: y\nContent-Length: 5"),
    "bare carriage return in a value": request(b"Host: a", b"X: y\rContent-Length: 5"),
    "NUL": request(b"Host: a", b"X: y\0z"),
    "control character": request(b"Host: a", b"X: y\x0bz"),
    "deleted": request(b"Host: a", b"X: y\x7f"),
    "blank before the line": b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "empty line before": b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two blanks in the line": request(b"Host: a", line=b"GET  / HTTP/1.1"),
    "a tab in the line": request(b"Host: a", line=b"GET\t/ HTTP/1.1"),
    "a blank after the line": request(b"Host: a", line=b"GET / HTTP/1.1 "),
    "a blank in the target": request(b"Host: a", line=b"GET /a b HTTP/1.1"),
    "a method that is none": request(b"Host: a", line=b"G(T / HTTP/1.1"),
    "a target that is none": request(b"Host: a", line=b"GET a HTTP/1.1"),
    "a star for GET": request(b"Host: a", line=b"GET * HTTP/1.1"),
    "CONNECT": request(b"Host: a:1", line=b"CONNECT a:1 HTTP/1.1"),
    "beyond ASCII in the target": request(b"Host: a", line=b"GET /\xff HTTP/1.1"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": request(b"Host: a", line=b"GET / HTTP/2.0"),
    "HTTP/1.2": request(b"Host: a", line=b"GET / HTTP/1.2"),
    "http/1.1": request(b"Host: a", line=b"GET / http/1.1"),
    "the start of HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "another server's target": request(b"Host: a", line=b"GET http://b/ HTTP/1.1"),
    "a server with a user": request(b"Host: a", line=b"GET http://x@a/ HTTP/1.1"),
    "ftp": request(b"Host: a", line=b"GET ftp://a/ HTTP/1.1"),
    "both lengths": request(b"Host: a", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "both lengths, the other way": request(b"Host: a", b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "two lengths": request(b"Host: a", b"Content-Length: 5", b"Content-Length: 6"),
    "the same length twice": request(b"Host: a", b"Content-Length: 5", b"Content-Length: 5"),
    "two lengths in one": request(b"Host: a", b"Content-Length: 5, 5"),
    "a sign": request(b"Host: a", b"Content-Length: +5"),
    "less than nothing": request(b"Host: a", b"Content-Length: -5"),
    "hexadecimal": request(b"Host: a", b"Content-Length: 0x5"),
    "an underscore": request(b"Host: a", b"Content-Length: 1_0"),
    "no length": request(b"Host: a", b"Content-Length:"),
    "other digits": request(b"Host: a", b"Content-Length: \xb2"),
    "more than there is": request(b"Host: a", b"Content-Length: 9999999999999999999999"),
    "gzip": request(b"Host: a", b"Transfer-Encoding: gzip"),
    "gzip in chunks": request(b"Host: a", b"Transfer-Encoding: gzip, chunked"),
    "chunks of chunks": request(b"Host: a", b"Transfer-Encoding: chunked, chunked"),
    "chunked twice": request(b"Host: a", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "chunked, as it were": request(b"Host: a", b"Transfer-Encoding: xchunked"),
    "chunked with a parameter": request(b"Host: a", b"Transfer-Encoding: chunked;a=b"),
    "chunked by quotes": request(b"Host: a", b'Transfer-Encoding: "chunked"'),
    "identity": request(b"Host: a", b"Transfer-Encoding: identity"),
    "chunks in HTTP/1.0": request(b"Host: a", b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"),
    "two upgrades": request(b"Host: a", b"Upgrade: a", b"Upgrade: b", b"Connection: upgrade"),
    "too many fields": request(b"Host: a", *[b"X: y"] * 200),
}


def taken(data: bytes) -> RequestHead | None:
    """The head, None when it isn't complete. Raises BadHead."""
    length = end_of_head(data)
    return request_head(data[:length]) if length else None


@pytest.mark.parametrize("head", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_clear_is_refused(head: bytes) -> None:
    with pytest.raises(BadHead):
        taken(head)


@pytest.mark.parametrize("head", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_clear_is_refused_after_a_clear_one_too(head: bytes) -> None:
    before = request_head(request(b"Host: a"))
    with pytest.raises(BadHead):
        length = end_of_head(head)
        request_head(head[:length], before)


@pytest.mark.parametrize(
    "fields",
    [
        [b"HTTP/1.1 200 OK", b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"HTTP/1.1 200 OK", b"Content-Length: 5", b"Content-Length: 5"],
        [b"HTTP/1.1 200 OK", b"Content-Length: 5, 5"],
        [b"HTTP/1.1 200 OK", b"Content-Length: +5"],
        [b"HTTP/1.1 200 OK", b"Transfer-Encoding: gzip, chunked"],
        [b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked"],
        [b"HTTP/1.1 200 OK", b"X : y"],
        [b"HTTP/1.1 200 OK", b"X: y", b" z"],
        [b"HTTP/1.1 200 OK", b"X: y\0"],
        [b"HTTP/1.1 200 OK", b"X: y\nSet-Cookie: z"],
        [b"HTTP/1.1 20 OK"],
        [b"HTTP/1.1 2000 OK"],
        [b"HTTP/1.1 099 OK"],
        [b"HTTP/2 200 OK"],
        [b"ICY 200 OK"],
        [b"babble"],
        [b""],
    ],
)
def test_responses_that_are_not_clear_are_refused(fields: list[bytes]) -> None:
    data = b"\r\n".join([*fields, b"", b""])
    with pytest.raises(BadHead):
        response_head(data[: end_of_head(data)], b"GET")


def test_what_a_head_says() -> None:
    head = request_head(
        request(
            b"HOST: Oqto.example:80",
            b"X:  y \t",
            b"Cookie: a",
            b"Cookie: b",
            b"Accept:",
            b"Authorization: c",
            b"Authorization: d",
            b"Connection: Upgrade, X-More",
            b"Upgrade: websocket",
            b"Content-Length: 007",
            line=b"POST http://oqto.EXAMPLE:80?a=/b HTTP/1.1",
        )
    )
    assert (head.method, head.target, head.length, head.chunked) == (b"POST", b"/?a=/b", 7, False)
    assert head.fields[1] == (b"x", b"y")
    assert head.found[b"cookie"] == b"a; b"
    assert head.found[b"accept"] == b""
    assert head.found[b"authorization"] == b""  # two of them: neither
    assert head.named == {b"upgrade", b"x-more"}
    assert (head.upgrade, head.close) == (b"websocket", False)
    assert request_head(request(b"Host: a", b"Connection: keep-alive , Close")).close
    assert request_head(request(line=b"GET / HTTP/1.0")).close
    assert request_head(request(b"Host: a", b"Upgrade: websocket")).upgrade is None
    assert request_head(request(b"Host: a", b"Upgrade: h2c", b"Connection: upgrade")).upgrade is None
    waits = request(b"Host: a", b"Expect: 100-Continue", line=b"PUT / HTTP/1.1")
    assert request_head(waits).waits
    assert not request_head(waits.replace(b"HTTP/1.1", b"HTTP/1.0")).waits  # it has no such answers
    assert request_head(request(b"Host: [::1]:80", line=b"OPTIONS * HTTP/1.1")).target == b"*"


def test_the_next_head_on_a_connection_is_its_own() -> None:
    first = request_head(request(b"Host: a", b"Content-Length: 5", line=b"PUT /1 HTTP/1.1"))
    same = request_head(request(b"Host: a", b"Content-Length: 5", line=b"POST /2 HTTP/1.1"), first)
    assert (same.method, same.target, same.length, same.fields) == (b"POST", b"/2", 5, first.fields)
    other = request_head(request(b"Host: a", line=b"GET /3 HTTP/1.1"), same)
    assert (other.length, other.fields) == (0, [(b"host", b"a")])
    old = request_head(request(b"Host: a", line=b"GET /3 HTTP/1.0"), other)
    assert (old.close, other.close) == (True, False)


@given(st.binary(max_size=3), st.integers(0, 60))
def test_only_the_very_same_head_is_the_same(new: bytes, place: int) -> None:
    head = request(b"Host: a", b"X: y", line=b"GET /?x=1 HTTP/1.1")
    first = request_head(head)
    assert request_head(bytes(head), first) is first
    other = head[:place] + new + head[place + len(new) :]
    try:
        alone = request_head(other)
    except BadHead:
        with pytest.raises(BadHead):
            request_head(other, first)
        return
    again = request_head(other, first)
    assert (again is first) == (other == head)
    assert (again.target, again.fields, again.found) == (alone.target, alone.fields, alone.found)


def test_a_response_is_the_same_for_the_same_method_only() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    first = response_head(data, b"GET")
    assert response_head(bytes(data), b"GET", first) is first
    assert response_head(data, b"HEAD", first).length == 0
    assert response_head(data.replace(b"5", b"6"), b"GET", first).length == 6


def test_heads_of_many_strangers_take_no_memory() -> None:
    """What is remembered of a head, so that the next one is quicker, is little whatever they say."""
    tracemalloc.start()
    try:
        for number in range(600):
            words = b",".join(b"%d-%d" % (number, word) for word in range(3000))
            for name in (b"Connection", b"Host", b"Origin", b"Cookie"):
                host = b"" if name == b"Host" else b"Host: a\r\n"
                data = b"GET / HTTP/1.1\r\n%b%b: %b\r\n\r\n" % (host, name, words)
                assert len(data) <= MAX_HEAD
                try:
                    request_head(data)
                except BadHead as error:
                    assert name != b"Cookie"
                    assert error.code == "head_too_large"
        assert tracemalloc.get_traced_memory()[0] < 4_000_000
    finally:
        tracemalloc.stop()
    longest = b"x" * MAX_NAME
    assert request_head(request(b"Host: a", longest + b": y")).found[longest] == b"y"
    with pytest.raises(BadHead):
        request_head(request(b"Host: a", longest + b"x: y"))


def test_sizes() -> None:
    for data, code in (
        (b"GET /" + b"a" * MAX_HEAD, "uri_too_long"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", "uri_too_long"),
        (request(b"Host: a", b"X: " + b"y" * MAX_HEAD), "head_too_large"),
        (request(b"Host: a", b"X: " + b"y" * MAX_HEAD)[:-2], "head_too_large"),
        (request(b"Host: a", *[b"X: y"] * 200), "head_too_large"),
    ):
        with pytest.raises(BadHead) as caught:
            taken(data)
        assert caught.value.code == code


def test_lengths_of_responses() -> None:
    def of(*lines: bytes, method: bytes = b"GET") -> ResponseHead:
        return response_head(b"\r\n".join([*lines, b"", b""]), method)

    assert of(b"HTTP/1.1 200 OK").length is None
    assert of(b"HTTP/1.1 200").close
    assert of(b"HTTP/1.1 200 ", b"Content-Length: 3").length == 3
    assert of(b"HTTP/1.1 200 OK", b"Content-Length: 3", method=b"HEAD").length == 0
    assert of(b"HTTP/1.1 304 Not Modified", b"Content-Length: 3").length == 0
    assert of(b"HTTP/1.1 204 No", b"Transfer-Encoding: chunked").chunked is False
    assert of(b"HTTP/1.1 200 OK", b"Transfer-Encoding: Chunked").chunked


PIECES = [
    *(b"GET", b"POST", b"get", b" ", b"  ", b"\t", b"/", b"/a?b=c", b"http://a/", b"*", b"HTTP/1.1"),
    *(b"HTTP/1.0", b"HTTP/1.", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"Host: a\r\n", b"Host: b\r\n", b":"),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length:5\r\n",
        b"content-length: 0\r\n",
        b"Content-Length: 5,5\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: CHUNKED \r\n", b"X: y\r\n", b"X:y", b" z\r\n"),
    *(b"Connection: close\r\n", b"\0", b"\x0c", b"\x85", b"\xff", b"X\xff: y\r\n", b",", b";", b"=", b'"'),
]
SOUP = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=14).map(b"".join)
STARTED = st.sampled_from([b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\nHost: a\r\n", b"GET / HTTP/1.0\r\n"])


@settings(max_examples=1500, deadline=None)
@given(st.builds(lambda start, rest: start + rest + b"\r\n\r\n", STARTED | st.just(b""), SOUP))
@example(request(b"Host: a"))
def test_what_h11_refuses_is_refused(data: bytes) -> None:
    theirs = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    theirs.receive_data(data)
    try:
        event = theirs.next_event()
    except h11.RemoteProtocolError:
        with pytest.raises(BadHead):
            taken(data)
        return
    try:
        ours = taken(data)
    except BadHead:
        return  # we refuse more
    if event is h11.NEED_DATA:
        assert ours is None
        return
    assert isinstance(event, h11.Request)
    assert ours is not None
    assert (ours.method, ours.minor) == (event.method, int(event.http_version[2:]))
    assert event.target.endswith(ours.target)
    length = [int(value) for name, value in event.headers if name == b"content-length"]
    assert ours.length == (length[0] if length else 0)
    assert ours.chunked == any(name == b"transfer-encoding" for name, _ in event.headers)
    assert [name for name, _ in ours.fields] == [name for name, _ in event.headers]
    assert [value for _, value in ours.fields] == [
        value for name, value in event.headers
    ] or ours.chunked  # h11 writes "chunked" in small letters


@settings(max_examples=1000, deadline=None)
@given(
    st.builds(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest + b"\r\n\r\n", SOUP),
    st.sampled_from([b"GET", b"HEAD"]),
)
def test_responses_that_h11_refuses_are_refused(data: bytes, method: bytes) -> None:
    theirs = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    theirs.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    theirs.send(h11.EndOfMessage())
    theirs.receive_data(data)
    try:
        event = theirs.next_event()
        if isinstance(event, h11.Response):
            theirs.next_event()
    except h11.RemoteProtocolError:
        try:
            head = response_head(data[: end_of_head(data)], method)
        except BadHead:
            return
        assert head.chunked  # a head that is fine for both may be followed by a body that isn't
        return
    try:
        length = end_of_head(data)
        ours = response_head(data[:length], method) if length else None
    except BadHead:
        return
    assert (ours is None) == (event is h11.NEED_DATA)


@settings(max_examples=300, deadline=None)
@given(SOUP, st.integers(0, 40))
def test_it_does_not_matter_in_which_pieces_a_head_comes(rest: bytes, cut: int) -> None:
    data = b"GET / HTTP/1.1\r\n" + rest + b"\r\n\r\n"

    def judged(pieces: list[bytes]) -> object:
        seen, sofar = 0, b""
        for piece in pieces:
            sofar += piece
            try:
                length = end_of_head(sofar, seen)
                if length:
                    head = request_head(sofar[:length])
                    return head.method, head.target, head.fields, sofar[length : length + 1] == b""
            except BadHead:
                return "refused"
            seen = len(sofar)
        return "more"

    whole = judged([data])
    parts = judged([data[:cut], data[cut:]])
    assert (whole == "refused") == (parts == "refused")
