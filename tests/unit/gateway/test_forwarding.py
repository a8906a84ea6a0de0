"""What a browser or a program notices of the way to a service: framing, order, interim answers, upgrades."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from oqtod.errors import Refusal
from oqtod.gateway import limits
from oqtod.gateway.engine import SWEEP
from oqtod.gateway.pool import IDLE
from tests.unit.gateway.parts import OK, asked, everything, house, read_until, request, status


async def test_one_connection_each_carries_many_requests(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request("0"))
        for number in range(1, 20):
            await service.send_all(OK)
            assert status(await read_until(client, b"ok")) == 200
            await client.send_all(request(str(number)))
            assert f"GET /{number} ".encode() in await read_until(service, b"\r\n\r\n")
        await service.send_all(OK)
        await read_until(client, b"ok")
        traffic = here.front.traffic
        assert (traffic.connections_total, traffic.service_connections, traffic.reused_connections) == (
            1,
            1,
            19,
        )
        assert traffic.requests == {("preview", 2): 20}


async def test_requests_that_come_together_are_answered_in_order(autojump_clock: MockClock) -> None:
    async with house() as here:
        put = request("1", "Content-Length: 5", method="PUT") + b"hello"
        last = request("2", "Connection: close")
        client, service, first = await asked(here, request("0") + put + last)
        assert b"/0 " in first
        assert b"/1 " not in first
        await service.send_all(OK)
        second = await read_until(service, b"hello")
        assert b"PUT /1 " in second
        assert b"/2 " not in second
        await service.send_all(OK.replace(b"ok", b"12"))
        assert b"/2 " in await read_until(service, b"\r\n\r\n")
        await service.send_all(OK.replace(b"ok", b"34"))
        answer = await everything(client)
        assert [x[-2:] for x in answer.split(b"HTTP/1.1 200")[1:]] == [b"ok", b"12", b"34"]


async def test_many_requests_together_that_are_refused(autojump_clock: MockClock) -> None:
    """Each is answered, and a thousand of them nest nowhere."""
    async with house() as here:
        client = await here.client()
        count = 1500
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, request("", "X-Nobody: 1") * count)
            seen = b""
            while seen.count(b"HTTP/1.1 401") < count:
                seen += await client.receive_some()


async def test_a_connection_that_was_closed_is_noticed(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request("0"))
        await service.send_all(OK)
        await read_until(client, b"ok")
        assert len(here.front.pool) == 1
        await service.aclose()
        await trio.sleep(0.1)
        assert len(here.front.pool) == 0
        await client.send_all(request("1", "Content-Length: 2", method="POST") + b"hi")
        other = await here.service()
        await read_until(other, b"hi")
        await other.send_all(OK)
        assert status(await read_until(client, b"ok")) == 200


async def test_a_connection_that_closes_just_then_is_tried_once_more(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request("0"))
        await service.send_all(OK)
        await read_until(client, b"ok")
        await client.send_all(request("1"))
        await read_until(service, b"\r\n\r\n")
        await service.aclose()  # without a word
        other = await here.service()
        assert b"GET /1 " in await read_until(other, b"\r\n\r\n")
        await other.aclose()
        assert status(await read_until(client, b"}")) == 502  # it was a fresh one


async def test_what_may_not_be_sent_twice_is_not(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request("0"))
        await service.send_all(OK)
        await read_until(client, b"ok")
        await client.send_all(request("1", method="DELETE"))
        await read_until(service, b"\r\n\r\n")
        await service.aclose()
        assert status(await read_until(client, b"}")) == 502
        assert here.made.statistics().current_buffer_used == 0


async def test_a_body_can_not_be_sent_twice(autojump_clock: MockClock) -> None:
    """What the client says next is not taken for it."""
    async with house() as here:
        client, service, _ = await asked(here, request("0"))
        await service.send_all(OK)
        await read_until(client, b"ok")
        await client.send_all(request("1", "Content-Length: 5") + b"hello" + request("2"))
        await read_until(service, b"hello")
        await service.aclose()
        assert status(await read_until(client, b"}")) == 502
        other = await here.service()
        assert b"GET /2 " in await read_until(other, b"\r\n\r\n")


async def test_idle_connections_to_services_are_closed(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request("0"))
        await service.send_all(OK)
        await read_until(client, b"ok")
        began = trio.current_time()
        assert await everything(service) == b""
        assert trio.current_time() - began <= IDLE + 2 * SWEEP


async def test_a_service_that_wants_no_more_requests(autojump_clock: MockClock) -> None:
    for answer in (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ):
        async with house() as here:
            client, service, _ = await asked(here, request())
            await service.send_all(answer)
            assert b"close" not in (await read_until(client, b"ok")).lower()
            assert len(here.front.pool) == 0
            assert await everything(service) == b""


async def test_a_response_until_the_end_of_the_connection(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request())
        await service.send_all(b"HTTP/1.1 200 OK\r\n\r\nsome")
        await read_until(client, b"some")
        await service.send_all(b" more")
        await service.aclose()
        assert (await everything(client)) == b" more"


async def test_a_big_head_of_a_response_is_not_kept_with_its_connection(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request())
        for size in (100, 20_000, 100):
            more = b"X-Big: " + b"y" * size + b"\r\n"
            await service.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + more + b"\r\nok")
            assert more.lower() in (await read_until(client, b"ok")).lower()
            (end,) = here.front.pool._idle
            assert (end.heard is not None) == (size == 100)
            await client.send_all(request())
            await read_until(service, b"\r\n\r\n")


async def test_a_response_cut_short_is_seen_to_be(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request())
        await service.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf")
        await read_until(client, b"half")
        await service.aclose()
        with pytest.raises(trio.BrokenResourceError):  # reset, not ended
            await client.receive_some()


async def test_a_client_gets_all_that_there_was_of_a_response_with_a_length(
    autojump_clock: MockClock,
) -> None:
    """It has a length, so everybody sees that it isn't whole, and can go on from there."""
    half = bytes(3_000_000)
    async with house() as here:
        client, service, _ = await asked(here, request())
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await service.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + half)
                await service.aclose()

            nursery.start_soon(serve)
            answer = await everything(client)
        assert answer.partition(b"\r\n\r\n")[2] == half


async def test_chunks_and_trailers_both_ways(autojump_clock: MockClock) -> None:
    async with house() as here:
        fields = ("Transfer-Encoding: chunked", "Trailer: X-Sum")
        body = b"5;x=y\r\nhello\r\n0\r\nX-Sum: 1\r\nCookie: no\r\n\r\n"
        client, service, _ = await asked(here, request("", *fields, method="POST"))
        await client.send_all(body)
        assert (await read_until(service, b"0\r\nX-Sum: 1\r\n\r\n")).startswith(b"5\r\nhello\r\n0\r\n")
        await service.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
        for byte in b"3\r\nbye\r\n0\r\nX-Sum: 2\r\nSet-Cookie: no\r\n\r\n":
            await service.send_all(bytes([byte]))
        answer = await read_until(client, b"0\r\nX-Sum: 2\r\n\r\n")
        assert b"transfer-encoding: chunked\r\n" in answer
        assert b"no" not in answer.partition(b"\r\n\r\n")[2]
        await client.send_all(request("again"))
        assert b"GET /again" in await read_until(service, b"\r\n\r\n")


async def test_old_clients_get_plain_bodies(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, head = await asked(here, request(version="1.0"))
        assert b"HTTP/1.1\r\n" in head
        await service.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbye\r\n0\r\n\r\n")
        answer = await everything(client)
        assert b"chunked" not in answer
        assert answer.endswith(b"\r\n\r\nbye")


async def test_head_and_what_has_no_body(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request(method="HEAD"))
        for start in (
            b"200 OK\r\nContent-Length: 5",
            b"200 OK\r\nTransfer-Encoding: chunked",
            b"200 OK\r\nX: y",
        ):
            await service.send_all(b"HTTP/1.1 " + start + b"\r\n\r\n")
            await read_until(client, b"\r\n\r\n")
            await client.send_all(request(method="HEAD"))
            await read_until(service, b"\r\n\r\n")
        await service.send_all(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
        assert b"content-length: 5" in await read_until(client, b"\r\n\r\n")
        await client.send_all(request(method="DELETE"))
        await read_until(service, b"\r\n\r\n")
        await service.send_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
        assert b"content-length" not in await read_until(client, b"\r\n\r\n")
        await client.send_all(request("after"))
        assert b"/after" in await read_until(service, b"\r\n\r\n")
        assert here.front.traffic.service_connections == 1


async def test_an_error_has_no_body_for_head_either(autojump_clock: MockClock) -> None:
    """It would be taken for the next answer."""
    async with house() as here:
        client = await here.client()
        await client.send_all(request("", "X-Nobody: 1", method="HEAD") + request("", "X-Nobody: 1"))
        first, second, body = (await read_until(client, b"}")).split(b"\r\n\r\n")
        assert status(first) == status(second) == 401
        assert b"content-length: %d\r\n" % len(body) in first + second
        service_failed, service, _ = await asked(here, request(method="HEAD") + b"nonsense\n")
        await service.aclose()
        first, second, body = (await everything(service_failed)).split(b"\r\n\r\n")
        assert (status(first), status(second)) == (502, 400)
        assert b"not a request" in body


async def test_a_client_that_waits_is_told_to_go_on(autojump_clock: MockClock) -> None:
    async with house() as here:
        fields = ("Content-Length: 5", "Expect: 100-continue")
        client, service, head = await asked(here, request("", *fields, method="PUT"))
        assert b"expect" not in head.lower()
        assert await read_until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send_all(b"hello")
        await read_until(service, b"hello")
        await service.send_all(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK
        )
        answer = await read_until(client, b"ok")
        assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_an_interim_answer_has_no_length(autojump_clock: MockClock) -> None:
    """Nor what its Connection takes away: RFC 9110 sections 8.6 and 7.6.1."""
    async with house() as here:
        client, service, _ = await asked(here, request())
        fields = b"Content-Length: 100\r\nConnection: X\r\nX: y\r\nLink: z\r\n\r\n"
        await service.send_all(b"HTTP/1.1 103 Early Hints\r\n" + fields + OK)
        answer = await read_until(client, b"ok")
        assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: z\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_a_client_that_waits_and_is_refused_sends_nothing(autojump_clock: MockClock) -> None:
    async with house() as here:
        client = await here.client()
        fields = ("Content-Length: 5", "Expect: 100-continue", "X-Nobody: 1")
        await client.send_all(request("", *fields, method="PUT"))
        assert status(await everything(client)) == 401


async def test_a_client_that_has_said_all_gets_its_answer(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request())
        await client.send_eof()
        await trio.sleep(5)
        await service.send_all(OK)
        assert (await everything(client)).endswith(b"ok")


async def test_a_client_that_left_does_not_hold_a_service_for_long(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request())
        await service.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await read_until(client, b"x")
        await client.aclose()
        began = trio.current_time()
        assert await everything(service) == b""
        assert trio.current_time() - began <= limits.HALF_CLOSED_TIMEOUT + 2 * SWEEP
        assert len(here.front.connections) == 0


async def test_a_service_may_answer_before_the_upload_is_over(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request("", "Content-Length: 1000000", method="PUT"))
        await client.send_all(bytes(1000))
        await service.send_all(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
        answer = await everything(client)
        assert status(answer) == 413
        assert b"connection: close\r\n" in answer
        assert answer.endswith(b"no")


async def test_a_service_may_stop_reading_and_answer(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request("", "Content-Length: 100000000", method="PUT"))
        async with trio.open_nursery() as nursery:

            async def upload() -> None:
                try:
                    while True:
                        await client.send_all(bytes(100_000))
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(upload)
            await service.send_all(b"HTTP/1.1 507 Full\r\nContent-Length: 2\r\n\r\nno")
            await service.aclose()
            assert status(await read_until(client, b"no")) == 507
            nursery.cancel_scope.cancel()


async def test_both_directions_at_once(autojump_clock: MockClock) -> None:
    """A program that answers while it reads, like a shell behind curl -T."""
    async with house() as here:
        client, service, _ = await asked(here, request("", "Transfer-Encoding: chunked", method="POST"))
        await service.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            await client.send_all(b"4\r\nping\r\n")
            await read_until(service, b"ping\r\n")
            await service.send_all(b"4\r\npong\r\n")
            await read_until(client, b"pong\r\n")
        await client.send_all(b"0\r\n\r\n")
        await read_until(service, b"0\r\n\r\n")
        await service.send_all(b"0\r\n\r\n")
        await read_until(client, b"0\r\n\r\n")


async def test_who_must_be_asked_about_is(autojump_clock: MockClock) -> None:
    async with house() as here:
        client, service, _ = await asked(here, request("", "X-Slowly: 1"))
        await service.send_all(OK)
        assert status(await read_until(client, b"ok")) == 200


async def test_a_service_that_can_not_be_reached(autojump_clock: MockClock) -> None:
    async with house() as here:
        here.services.refuses = Refusal("conflict", "the session is stopped")
        client = await here.client()
        await client.send_all(request())
        assert status(await everything(client)) == 409
