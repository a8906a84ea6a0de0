"""The byte path through a real gateway: what goes to and fro beside a head and a body, and slow clients."""

from __future__ import annotations

import pytest

from tests.integration.previews import OK, Preview, Program, Wire, answering, preview, program, session

__all__ = ["preview", "program", "session"]

SLOW = 200


def asked(preview: Preview, program: Program, request: bytes) -> tuple[Wire, Wire, bytes]:
    """A client that has sent this, the service, and the head that came there."""
    client = preview.connect().send(request)
    service = program.accept()
    return client, service, service.head()


def test_interim_answers_come_before_the_answer(preview: Preview, program: Program) -> None:
    client, service, _ = asked(preview, program, preview.request())
    service.send(b"HTTP/1.1 102 Processing\r\n\r\n")
    assert client.head() == b"HTTP/1.1 102 Processing\r\n\r\n"
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n"
    service.send(hints + b"Set-Cookie: a=b\r\nConnection: X\r\nX: y\r\n\r\n")
    assert client.head() == hints.replace(b"Link", b"link") + b"\r\n"
    service.send(OK)
    assert client.head().startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.until(b"ok") == b"ok"


def test_old_clients_get_no_interim_answers(preview: Preview, program: Program) -> None:
    fields = (b"Content-Length: 5", b"Expect: 100-continue")
    request = preview.request(b"/", *fields, method=b"PUT", version=b"1.0")
    client, service, _ = asked(preview, program, request)
    client.send(b"hello")
    service.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
    assert client.rest().startswith(b"HTTP/1.1 200 OK\r\n")


def test_interim_answers_have_no_length(preview: Preview, program: Program) -> None:
    """RFC 9110 section 8.6; a client that believed it would take the answer for a body."""
    client, service, _ = asked(preview, program, preview.request())
    service.send(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 100\r\nLink: x\r\n\r\n" + OK)
    assert client.head() == b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    assert client.head().startswith(b"HTTP/1.1 200 OK\r\n")


def test_trailers_go_both_ways(preview: Preview, program: Program) -> None:
    fields = (b"Transfer-Encoding: chunked", b"Trailer: X-Sum", b"TE: trailers")
    client, service, _ = asked(preview, program, preview.request(b"/", *fields, method=b"PUT"))
    client.send(b"5;name=value\r\nhello\r\n0\r\nX-Sum: 1\r\nAuthorization: mine\r\nHost: evil\r\n\r\n")
    assert service.until(b"\r\n\r\n") == b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
    service.send(b"3;a\r\nbye\r\n0\r\nX-Sum: 2\r\nSet-Cookie: a=b\r\nContent-Length: 9\r\n\r\n")
    head = client.head()
    assert b"\r\ntransfer-encoding: chunked\r\n" in head
    assert client.until(b"\r\n\r\n") == b"3\r\nbye\r\n0\r\nX-Sum: 2\r\n\r\n"
    client.send(preview.request(b"/next"))
    assert service.head().startswith(b"GET /next HTTP/1.1\r\n")


@pytest.mark.parametrize("body", [b"", b"hello"])
def test_a_client_that_sends_no_more_gets_its_answer(preview: Preview, program: Program, body: bytes) -> None:
    """As `nc -N` does: the connection is closed in one direction, the answer comes in the other."""
    fields = [b"Content-Length: 5"] if body else []
    client = preview.connect().send(preview.request(b"/", *fields, method=b"PUT") + body).finish()
    service = program.accept()
    service.head()
    if body:
        assert service.until(body) == body
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    client.until(b"1\r\na\r\n")
    service.send(b"1\r\nb\r\n0\r\n\r\n")
    assert client.rest() == b"1\r\nb\r\n0\r\n\r\n"


def test_a_service_that_says_no_more_still_hears(preview: Preview, program: Program) -> None:
    """Its answer ends with its side of the connection, while it takes the rest of the request."""
    request = preview.request(b"/", b"Content-Length: 10", method=b"PUT")
    client, service, _ = asked(preview, program, request + b"hello")
    assert service.until(b"hello")
    service.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok").finish()
    head = client.head()
    assert b"\r\nconnection: close\r\n" in head
    assert client.rest() == b"ok"


def test_a_client_that_leaves_in_the_middle_is_seen_to(preview: Preview, program: Program) -> None:
    """A service never takes a half of an upload for the whole."""
    for fields, start in (
        (b"Content-Length: 10", b"hello"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
    ):
        request = preview.request(b"/", fields, method=b"PUT")
        client, service, _ = asked(preview, program, request + start)
        assert service.until(start)
        client.finish()
        assert service.rest() == b""


def test_requests_that_come_together_are_answered_in_order(preview: Preview) -> None:
    count = 100
    with answering(preview.port) as (wires, heard):
        requests = [
            preview.request(b"/%d" % number, b"Content-Length: 3", method=b"POST") + b"%03d" % number
            for number in range(count)
        ]
        client = preview.connect().send(b"".join(requests)).finish()
        assert client.rest().count(b"HTTP/1.1 200 OK\r\n") == count
    assert [x.target for x in heard] == [b"/%d" % number for number in range(count)]
    assert [x.body for x in heard] == [b"%03d" % number for number in range(count)]
    assert len(wires) == 1


def test_requests_with_one_head_have_bodies_of_their_own(preview: Preview) -> None:
    """What is known of a head that came before is known of the head only."""
    for field, bodies in (
        (b"Transfer-Encoding: chunked", [b"1\r\na\r\n0\r\n\r\n", b"0\r\n\r\n", b"2\r\nbc\r\n0\r\n\r\n"]),
        (b"Content-Length: 3", [b"abc", b"\r\n\r", b"GET"]),
    ):
        head = preview.request(b"/", field, method=b"PUT")
        with answering(preview.port) as (wires, heard):
            client = preview.connect().send(b"".join(head + body for body in bodies)).finish()
            assert client.rest().count(b"HTTP/1.1 200 OK\r\n") == 3
        assert len(wires) == 1
        expected = [b"a", b"", b"bc"] if b"chunked" in field else bodies
        assert [x.body for x in heard] == expected


def test_slow_clients_keep_nobody_waiting(preview: Preview) -> None:
    """Their heads come a byte at a time, and in the end each is answered, as none was let go."""
    slow = [preview.connect() for _ in range(SLOW)]
    head = preview.request(b"/slow", b"X-Slow: " + b"y" * 20)
    with answering(preview.port) as (_, heard):
        client = preview.connect()
        for wire in slow:
            wire.send(head[:-20])
        for position in range(len(head) - 20, len(head)):
            for wire in slow:
                wire.send(head[position : position + 1])
            if position < len(head) - 1:
                client.send(preview.request(b"/quick"))
                assert b" 200 " in client.head()
                assert client.until(b"ok") == b"ok"
                assert {x.target for x in heard} == {b"/quick"}
        for wire in slow:
            assert b" 200 " in wire.head()
        assert [x.target for x in heard] == [b"/quick"] * 19 + [b"/slow"] * SLOW


def test_slow_bodies_keep_nobody_waiting(preview: Preview) -> None:
    """Uploads of which no end is in sight, each with a connection to the service of its own."""
    heads = preview.request(b"/slow", b"Content-Length: 20", method=b"PUT")
    with answering(preview.port) as (wires, heard):
        slow = [preview.connect().send(heads) for _ in range(SLOW)]
        client = preview.connect()
        for round_ in range(20):
            client.send(preview.request(b"/quick"))
            assert b" 200 " in client.head()
            assert client.until(b"ok") == b"ok"
            assert len(heard) == round_ + 1
            for wire in slow:
                wire.send(b"x")
        for wire in slow:
            assert b" 200 " in wire.head()
        assert len(heard) == 20 + SLOW
        assert len(wires) >= SLOW


def test_a_reader_that_stops_does_not_grow_the_gateway(preview: Preview, program: Program) -> None:
    """What a client doesn't take stays with the service, which is held back."""
    client, service, _ = asked(preview, program, preview.request())
    before = preview.forget_memory()
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    service.sock.setblocking(False)
    other, sent, quiet = preview.connect(), 0, 0
    while quiet < 3:  # no room, though the gateway had time for other things
        try:
            sent += service.sock.send(piece[sent % len(piece) :])
            quiet = 0
        except BlockingIOError:
            other.send(b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b" 200 " in other.head()
            quiet += 1
    assert preview.most_memory() - before < 4 << 20
    assert sent < 64 << 20
    service.sock.setblocking(True)
    client.close()
