"""Requests and responses made to be understood in two ways: what arrives on the other side is clear."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from oqtod.gateway.heads import MAX_HEAD
from tests.unit.gateway.parts import House, everything, house, is_over, read_until, status
from tests.unit.gateway.test_heads import REFUSED

PATH = b"/api/sessions/s/ports/41823/"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def at_the_service(head: bytes) -> bytes:
    """The same request, for a service."""
    return head.replace(b" / ", b" " + PATH + b" ", 1)


@pytest.mark.parametrize("head", REFUSED.values(), ids=REFUSED.keys())
async def test_nothing_of_it_reaches_a_service(head: bytes, autojump_clock: MockClock) -> None:
    """Neither it, nor what is hidden behind it, though the connection to the service is there."""
    async with house() as here:
        client = await here.client()
        await client.send_all(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % PATH)
        service = await here.service()
        await read_until(service, b"\r\n\r\n")
        await service.send_all(OK)
        await read_until(client, b"ok")
        hidden = b"GET %bhidden HTTP/1.1\r\nHost: a\r\n\r\n" % PATH
        await client.send_all(at_the_service(head) + b"5\r\nhello\r\n0\r\n\r\n" + hidden)
        answer = await everything(client)
        assert status(answer) in (400, 414, 431)
        assert answer.count(b"HTTP/1.1") == 1
        with trio.move_on_after(10):
            assert await service.receive_some() == b""
        assert here.front.traffic.malformed_requests == 1


BODIES = [
    b"5\r\nhelloX\r\n0\r\n\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    b"fffffffffffffffff\r\nhello",
    b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("body", BODIES)
async def test_a_body_that_is_not_clear_ends_both_connections(body: bytes, autojump_clock: MockClock) -> None:
    async with house() as here:
        client = await here.client()
        await client.send_all(b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % PATH)
        service = await here.service()
        await read_until(service, b"\r\n\r\n")
        await client.send_all(body + b"GET %bhidden HTTP/1.1\r\nHost: a\r\n\r\n" % PATH)
        answer = await everything(client)
        assert status(answer) == 400
        assert answer.count(b"HTTP/1.1") == 1
        assert b"hidden" not in await everything(service)


@pytest.mark.parametrize("body", BODIES)
async def test_a_body_that_comes_with_its_head_and_is_not_clear(
    body: bytes, autojump_clock: MockClock
) -> None:
    """What comes behind it is no request, whenever it comes."""
    async with house() as here:
        client = await here.client()
        head = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % PATH
        await client.send_all(head + body)
        answer = await read_until(client, b"}")
        assert status(answer) == 400
        assert b"\r\nconnection: close\r\n" in answer
        await client.send_all(b"GET %bhidden HTTP/1.1\r\nHost: a\r\n\r\n" % PATH)
        assert await everything(client) == b""
        assert await everything(await here.service()) == b""
        assert here.made.statistics().current_buffer_used == 0


RESPONSES = {
    "both lengths": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 0\r\n\r\nok",
    "a sign": b"Content-Length: +2\r\n\r\nok",
    "gzip in chunks": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "blank before the colon": b"Content-Length : 2\r\n\r\nok",
    "folded": b"X: y\r\n Content-Length: 2\r\n\r\nok",
    "bare line feed": b"X: y\nContent-Length: 2\r\n\r\nok",
    "NUL": b"X: y\0\r\nContent-Length: 2\r\n\r\nok",
    "too long": b"X: " + b"y" * 40_000 + b"\r\n\r\n",
    "another protocol": b"",
}


@pytest.mark.parametrize("fields", RESPONSES.values(), ids=RESPONSES.keys())
async def test_responses_that_are_not_clear(fields: bytes, autojump_clock: MockClock) -> None:
    async with house() as here:
        client = await here.client()
        request = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % PATH
        await client.send_all(request)
        service = await here.service()
        await read_until(service, b"\r\n\r\n")
        line = b"HTTP/1.1 200 OK\r\n" if fields else b"HTTP/1.1 101 Y\r\nUpgrade: websocket\r\n\r\n"
        try:
            await service.send_all(line + fields)
        except trio.BrokenResourceError:
            assert len(fields) > MAX_HEAD  # it is not heard out
        answer = await read_until(client, b"}")
        assert status(answer) == 502
        assert b"ok" not in answer.partition(b"\r\n\r\n")[2].partition(b'"error"')[0]
        # The client's connection is good still; the service's isn't used again.
        await client.send_all(request)
        other = await here.service()
        await read_until(other, b"\r\n\r\n")
        await other.send_all(OK)
        assert (await read_until(client, b"ok")).startswith(b"HTTP/1.1 200")


async def test_what_a_service_says_unasked_is_nobodys_answer(autojump_clock: MockClock) -> None:
    """Too much in one response, and a response to no request: the next one gets neither."""
    async with house() as here:
        for extra in ("with it", "later"):
            client = await here.client()
            await client.send_all(b"GET %b1 HTTP/1.1\r\nHost: a\r\n\r\n" % PATH)
            service = await here.service()
            await read_until(service, b"\r\n\r\n")
            await service.send_all(OK + (OK.replace(b"ok", b"no") if extra == "with it" else b""))
            await read_until(client, b"ok")
            if extra == "later":
                await service.send_all(OK.replace(b"ok", b"no"))
                await trio.sleep(1)
            await is_over(service)
            await client.send_all(b"GET %b2 HTTP/1.1\r\nHost: a\r\n\r\n" % PATH)
            other = await here.service()
            await read_until(other, b"\r\n\r\n")
            await other.send_all(OK.replace(b"ok", b"34"))
            assert (await read_until(client, b"34")).endswith(b"34")
            await client.aclose()
            await other.aclose()
            await trio.sleep(1)


async def carried(here: House, head: bytes) -> bytes:
    """The head of a request as it arrives at the service."""
    client = await here.client()
    await client.send_all(head)
    service = await here.service()
    return (await read_until(service, b"\r\n\r\n")).lower()


SECRETS = b"".join(
    name + b": geheim\r\n"
    for name in (
        *(b"Cookie", b"Authorization", b"X-API-Key", b"X_API_Key", b"Forwarded", b"X-Forwarded-For"),
        *(b"X_Forwarded_Host", b"X-Forwarded-Prefix", b"X-Forwarded-User", b"Proxy-Authorization"),
        *(b"Keep-Alive", b"TE", b"X-Real-IP", b"X-Named", b"HTTP2-Settings", b"Content_Length"),
    )
)


async def test_what_a_service_sees(autojump_clock: MockClock) -> None:
    async with house(trusted=("127.0.0.1",)) as here:
        path = PATH + b"a?x=1&token=geheim&%74icket=geheim&TOKEN=2&y"
        connection = b"Connection: close, X-Named, Host, X-Forwarded-For, Content-Length\r\n"
        forwarded = b"X-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Proto: https\r\n"
        head = await carried(
            here,
            b"PUT %b HTTP/1.1\r\nHost: Oqto.example\r\nContent-Length: 2\r\nX-Other: y\r\n%b%b%b\r\nok"
            % (path, connection, SECRETS.replace(b"X-Forwarded-For: geheim\r\n", b""), forwarded),
        )
        assert b"geheim" not in head
        assert head.startswith(b"put /a?x=1&token=2&y http/1.1\r\n")
        lines = head.split(b"\r\n")
        for expected in (
            *(b"host: oqto.example", b"content-length: 2", b"x-other: y", b"x-forwarded-for: 10.1.1.1"),
            *(b"x-forwarded-host: oqto.example", b"x-forwarded-proto: https"),
            b"x-forwarded-prefix: /api/sessions/s/ports/41823",
            b'forwarded: for=10.1.1.1;host="oqto.example";proto=https',
        ):
            assert lines.count(expected) == 1, expected


async def test_nobody_but_a_trusted_proxy_says_where_a_request_comes_from(autojump_clock: MockClock) -> None:
    async with house() as here:
        head = await carried(here, b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (PATH, SECRETS))
        assert b"x-forwarded-for: 127.0.0.1\r\nx-forwarded-host: a\r\nx-forwarded-proto: http\r\n" in head
        assert head.count(b"x-forwarded-for") == 1
        assert head.count(b"\r\nforwarded: ") == 1


async def test_an_address_of_ipv6_is_quoted_where_it_must_be(autojump_clock: MockClock) -> None:
    async with house(trusted=("127.0.0.1",)) as here:
        forwarded = b"X-Forwarded-For: 2001:db8::1\r\n"
        head = await carried(here, b"GET %b HTTP/1.1\r\nHost: a:80\r\n%b\r\n" % (PATH, forwarded))
        assert b"\r\nx-forwarded-for: 2001:db8::1\r\n" in head
        assert b'\r\nforwarded: for="[2001:db8::1]";host="a:80";proto=http\r\n' in head


async def test_what_comes_back(autojump_clock: MockClock) -> None:
    async with house() as here:
        client = await here.client()
        await client.send_all(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % PATH)
        service = await here.service()
        await read_until(service, b"\r\n\r\n")
        never = b"".join(
            name + b": geheim\r\n"
            for name in (
                *(b"Set-Cookie", b"set-cookie", b"Clear-Site-Data", b"Strict-Transport-Security"),
                *(b"Service-Worker-Allowed", b"X-Content-Type-Options", b"X-Named", b"Keep-Alive"),
                *(b"X-Accel-Redirect", b"X-Sendfile", b"X-Accel-Limit-Rate"),
            )
        )
        await service.send_all(
            b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: X-Named, Content-Security-Policy\r\n"
            b"Content-Security-Policy: default-src 'none'\r\nX-Mine: y\r\n%b\r\nok" % never
        )
        answer = (await read_until(client, b"ok")).lower()
        assert b"geheim" not in answer
        assert answer.startswith(b"http/1.1 200 fine\r\n")
        assert b"x-mine: y\r\n" in answer
        assert b"\r\ncontent-security-policy: sandbox allow-scripts" in answer
        assert b"\r\nx-content-type-options: nosniff\r\n" in answer
