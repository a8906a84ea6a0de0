"""What a hostile program on a preview port answers: nobody takes it for anything else than a bad answer."""

from __future__ import annotations

import http.client
import json
import socket

import pytest

from tests.integration.previews import OK, Preview, Program, Wire, preview, program, session

__all__ = ["preview", "program", "session"]

LINE = b"HTTP/1.1 200 OK\r\n"
EVIL = b"HTTP/1.1 200 Evil\r\nContent-Length: 4\r\n\r\nevil"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def asked(preview: Preview, program: Program, request: bytes) -> tuple[Wire, Wire]:
    """A client that has sent this, and the service that has read it."""
    client = preview.connect().send(request)
    service = program.accept()
    service.head()
    return client, service


def body_of(wire: Wire, head: bytes) -> bytes:
    """Read the body of an answer with a length."""
    (length,) = [
        int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")
    ]
    body = b""
    while len(body) < length:
        body += wire.receive()
    assert len(body) == length, "there is more"
    return body


def is_good_still(client: Wire, preview: Preview, program: Program) -> None:
    """A client's connection goes on, with another one to the service: what else was said there is lost."""
    client.send(preview.request(b"/next"))
    service = program.accept()
    assert service.head().startswith(b"GET /next ")
    service.send(OK.replace(b"200 OK", b"200 Fine"))
    assert client.head().startswith(b"HTTP/1.1 200 Fine\r\n")
    assert client.until(b"ok") == b"ok"


NOT_CLEAR = {
    "both lengths": LINE + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "both lengths, the other way": LINE + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": LINE + b"Content-Length: 4\r\nContent-Length: 0\r\n\r\n",
    "the same length twice": LINE + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "two lengths in one": LINE + b"Content-Length: 0, 0\r\n\r\n",
    "a sign": LINE + b"Content-Length: +0\r\n\r\n",
    "less than nothing": LINE + b"Content-Length: -1\r\n\r\n",
    "hexadecimal": LINE + b"Content-Length: 0x0\r\n\r\n",
    "no length": LINE + b"Content-Length: \r\n\r\n",
    "more than there is": LINE + b"Content-Length: 99999999999999999999\r\n\r\n",
    "gzip in chunks": LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": LINE + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "chunked, as it were": LINE + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": LINE + b"Transfer-Encoding: identity\r\n\r\n",
    "chunks of an old version": b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "blank before the colon": LINE + b"Content-Length : 0\r\n\r\n",
    "folded": LINE + b"X: y\r\n Content-Length: 0\r\n\r\n",
    "folded at once": LINE + b" X: y\r\nContent-Length: 0\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "a bare line feed": LINE + b"X: y\nSet-Cookie: auth_token=z\r\nContent-Length: 0\r\n\r\n",
    "a bare carriage return": LINE + b"X: y\rSet-Cookie: auth_token=z\r\nContent-Length: 0\r\n\r\n",
    "NUL": LINE + b"X: y\0\r\nContent-Length: 0\r\n\r\n",
    "no name": LINE + b": y\r\nContent-Length: 0\r\n\r\n",
    "no colon": LINE + b"X\r\nContent-Length: 0\r\n\r\n",
    "a line break in the reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    "a small status": b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n",
    "a big status": b"HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2": b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n",
    "frames of HTTP/2": b"\0\0\x12\4\0\0\0\0\0" + bytes(18),
    "a mail server": b"220 mail.example.com ESMTP\r\n\r\n",
    "HTTP/0.9": b"<html>just a page</html>\r\n\r\n",
    "an empty line first": b"\r\n" + OK,
    "another protocol": b"HTTP/1.1 101 Y\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "endless preliminaries": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 1000,
    "endless fields": LINE + b"X: y\r\n" * 200 + b"\r\n",
    "an endless field": LINE + b"X: " + b"y" * 40_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("answer", NOT_CLEAR.values(), ids=NOT_CLEAR.keys())
def test_what_is_not_clear_is_a_bad_gateway(preview: Preview, program: Program, answer: bytes) -> None:
    client, service = asked(preview, program, preview.request())
    service.send(answer + EVIL)
    while (head := client.head()).startswith(b"HTTP/1.1 103 "):
        pass
    assert head.startswith(b"HTTP/1.1 502 ")
    assert json.loads(body_of(client, head))["error_code"] == "bad_gateway"
    is_good_still(client, preview, program)
    assert b"vil" not in client.seen
    assert b"auth_token" not in client.seen


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 2", LINE + b"Content-Le", b"HTTP/1.1 103 X\r\n\r\n"])
def test_a_service_that_closes_before_it_answers(preview: Preview, program: Program, start: bytes) -> None:
    client, service = asked(preview, program, preview.request())
    service.send(start).close()
    while (head := client.head()).startswith(b"HTTP/1.1 103 "):
        pass
    assert head.startswith(b"HTTP/1.1 502 ")
    body_of(client, head)
    is_good_still(client, preview, program)


CUT = {
    "of a length": b"Content-Length: 10\r\n\r\nhalf",
    "of a chunk": CHUNKED + b"\r\na\r\nhalf",
    "of the chunks": CHUNKED + b"\r\n4\r\nhalf\r\n",
    "of the end": CHUNKED + b"\r\n4\r\nhalf\r\n0\r\n",
    "of the trailers": CHUNKED + b"\r\n4\r\nhalf\r\n0\r\nX: y",
}
BAD_CHUNKS = {
    "a chunk that is longer than it says": b"4\r\nhalfX\r\n0\r\n\r\n",
    "a size with a sign": b"4\r\nhalf\r\n+1\r\nx\r\n0\r\n\r\n",
    "a hexadecimal prefix": b"4\r\nhalf\r\n0x1\r\nx\r\n0\r\n\r\n",
    "a size that is none": b"4\r\nhalf\r\n\r\n0\r\n\r\n",
    "a blank before a size": b"4\r\nhalf\r\n 1\r\nx\r\n0\r\n\r\n",
    "more than there is": b"4\r\nhalf\r\nffffffffffffffff1\r\nx",
    "bare line feeds": b"4\r\nhalf\r\n1\nx\n0\n\n",
    "a line feed in an extension": b"4\r\nhalf\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
    "an endless extension": b"4\r\nhalf\r\n1;" + b"a" * 5000,
    "a folded trailer": b"4\r\nhalf\r\n0\r\nX: y\r\n z\r\n\r\n",
    "a bare line feed in a trailer": b"4\r\nhalf\r\n0\r\nX: y\nSet-Cookie: z\r\n\r\n",
    "endless trailers": b"4\r\nhalf\r\n0\r\n" + b"X: y\r\n" * 3000 + b"\r\n",
}


@pytest.mark.parametrize(
    "answer",
    [LINE + x for x in CUT.values()] + [LINE + CHUNKED + b"\r\n" + x for x in BAD_CHUNKS.values()],
    ids=[*CUT, *BAD_CHUNKS],
)
def test_an_answer_that_is_not_whole_is_seen_not_to_be(
    preview: Preview, program: Program, answer: bytes
) -> None:
    client, service = asked(preview, program, preview.request())
    begun = answer.index(b"half")
    service.send(answer[:begun])
    response = http.client.HTTPResponse(client.sock)
    response.begin()
    assert response.status == 200
    service.send(answer[begun:]).close()
    with pytest.raises((http.client.HTTPException, ConnectionResetError)):
        response.read()
    response.close()


def test_a_bad_gateway_has_no_body_for_head(preview: Preview, program: Program) -> None:
    client, service = asked(preview, program, preview.request(method=b"HEAD"))
    service.send(b"nonsense\r\n\r\n")
    assert client.head().startswith(b"HTTP/1.1 502 ")
    client.send(preview.request().replace(preview.session.encode(), b"another", 1))
    assert client.head().startswith(b"HTTP/1.1 404 ")
    client.until(b"}")
    client.send(preview.request(method=b"HEAD").replace(preview.session.encode(), b"another", 1))
    assert client.head().startswith(b"HTTP/1.1 404 ")
    is_good_still(client, preview, program)


BODILESS = {
    "204": b"HTTP/1.1 204 No Content\r\nContent-Length: 40\r\n\r\n",
    "204 in chunks": b"HTTP/1.1 204 No Content\r\n" + CHUNKED + b"\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 40\r\n\r\n",
    "304 in chunks": b"HTTP/1.1 304 Not Modified\r\n" + CHUNKED + b"\r\n",
    "HEAD": LINE + b"Content-Length: 40\r\n\r\n",
    "HEAD, in chunks": LINE + CHUNKED + b"\r\n",
    "HEAD, without a length": LINE + b"\r\n",
}


@pytest.mark.parametrize(("name", "answer"), BODILESS.items(), ids=BODILESS.keys())
def test_what_has_no_body_has_none(preview: Preview, program: Program, name: str, answer: bytes) -> None:
    """What a service sends behind it all the same is nobody's, the next request's least of all."""
    method = b"HEAD" if name.startswith("HEAD") else b"GET"
    client, service = asked(preview, program, preview.request(method=method))
    service.send(answer + EVIL)
    assert b"chunked" not in client.head().lower()
    is_good_still(client, preview, program)
    assert b"vil" not in client.seen


def test_a_second_answer_is_nobodys(preview: Preview, program: Program) -> None:
    client, service = asked(preview, program, preview.request())
    service.send(OK + EVIL)
    assert client.head().startswith(LINE)
    assert client.until(b"ok") == b"ok"
    is_good_still(client, preview, program)
    assert b"vil" not in client.seen


def test_a_second_answer_that_comes_later_is_nobodys(preview: Preview, program: Program) -> None:
    """The gateway has closed that connection before it is asked for anything else."""
    client, service = asked(preview, program, preview.request())
    service.send(OK)
    assert client.head().startswith(LINE)
    assert client.until(b"ok") == b"ok"
    service.send(EVIL)
    service.wait_for_end()
    is_good_still(client, preview, program)
    assert b"vil" not in client.seen


def test_fields_of_our_origin_are_not_a_services_to_set(preview: Preview, program: Program) -> None:
    client, service = asked(preview, program, preview.request())
    ours = [b"Set-Cookie", b"SET-COOKIE", b"Clear-Site-Data", b"Strict-Transport-Security", b"Alt-Svc"]
    ours += [b"Service-Worker-Allowed", b"Public-Key-Pins", b"Keep-Alive", b"Proxy-Authenticate"]
    fields = b"".join(name + b": evil\r\n" for name in ours)
    service.send(LINE + fields + b"Content-Security-Policy: default-src *\r\nContent-Length: 2\r\n\r\nok")
    head = client.head()
    assert b"evil" not in head
    assert b"\r\ncontent-security-policy: sandbox allow-scripts" in head


def test_a_service_may_answer_before_it_has_read_all(preview: Preview, program: Program) -> None:
    """The client is told, and told that this was the last answer here."""
    request = preview.request(b"/", b"Content-Length: 1000000", method=b"PUT")
    client, service = asked(preview, program, request + bytes(1000))
    service.send(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
    head = client.head()
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in head
    assert client.rest() == b"no"


@pytest.mark.parametrize("unread", [0, 500_000])
def test_a_service_may_answer_and_close_while_a_client_sends(
    preview: Preview, program: Program, unread: int
) -> None:
    """With something that it has not read, its connection is reset; its answer counts all the same."""
    request = preview.request(b"/", b"Content-Length: 100000000", method=b"PUT")
    client, service = asked(preview, program, request + bytes(unread))
    if unread:
        service.sock.recv(1, socket.MSG_PEEK)
    service.send(b"HTTP/1.1 507 Full\r\nContent-Length: 2\r\n\r\nno").close()
    head = client.head()
    assert head.startswith(b"HTTP/1.1 507 ")
    client.send(bytes(100_000))  # still, as it had not heard yet
    assert client.rest() == b"no"


UPGRADE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: x",
)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 10",
        b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket, h2c\r\n\r\n",
    ],
)
def test_a_service_that_dies_or_lies_during_an_upgrade(
    preview: Preview, program: Program, answer: bytes
) -> None:
    client, service = asked(preview, program, preview.request(b"/ws", *UPGRADE))
    service.send(answer).close()
    head = client.head()
    assert head.startswith(b"HTTP/1.1 502 ")
    body_of(client, head)
    is_good_still(client, preview, program)


def test_an_upgrade_that_a_service_refuses_is_an_answer(preview: Preview, program: Program) -> None:
    for status in (b"200 OK", b"401 Unauthorized", b"403 Forbidden", b"426 Upgrade Required", b"503 Busy"):
        client, service = asked(preview, program, preview.request(b"/ws", *UPGRADE))
        service.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\nX-Why: y\r\n\r\nno")
        head = client.head()
        assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert b"\r\nx-why: y\r\n" in head
        assert body_of(client, head) == b"no"
        client.send(preview.request(b"/next"))
        assert service.head().startswith(b"GET /next ")
        service.close()  # while it is asked: it is asked once more, at a connection that is new
        other = program.accept()
        assert other.head().startswith(b"GET /next ")
        other.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        client.head()
        client.until(b"ok")
