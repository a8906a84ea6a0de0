"""One request to a session's service and its response: which bytes go where, and what becomes of both ends.

Everything here is called by the engine and never waits; only a connection that isn't there yet is waited
for, in a task that ends when there is one.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from oqtod.errors import Refusal
from oqtod.gateway import headers, limits
from oqtod.gateway.bodies import BadBody, framing_of
from oqtod.gateway.engine import End
from oqtod.gateway.flows import NOTHING, Flow, SinkFailed, SourceFailed
from oqtod.gateway.heads import BadHead, RequestHead, ResponseHead
from oqtod.gateway.relay import Relay
from oqtod.gateway.responses import Responses
from oqtod.gateway.visit import Visit

if TYPE_CHECKING:
    from oqtod.gateway.connection import Connection

log = logging.getLogger(__name__)

_READ = 16 * 1024
_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods whose request, without a body, may be sent again at another connection: RFC 9110 section 9.2.2."""


class Exchange:
    """One request and its response."""

    __slots__ = (
        "_begun",
        "_close",
        "_connection",
        "_download",
        "_end",
        "_front",
        "_head",
        "_over",
        "_response",
        "_responses",
        "_reused",
        "_upload",
        "_uploaded",
        "_visit",
    )

    _responses: Responses

    def __init__(self, connection: Connection, head: RequestHead, visit: Visit) -> None:
        self._connection = connection
        self._front = connection.front
        self._head = head
        self._visit = visit
        self._end: End | None = None
        self._reused = False
        self._upload: Flow | None = None
        self._uploaded = True
        """Whether the whole request went to the service, as far as it wanted it."""
        self._download: Flow | None = None
        self._response: ResponseHead | None = None
        self._begun = False
        """Whether the client got a part of the response."""
        self._close = False
        """Whether the client's connection ends with the response."""
        self._over = False

    # Beginning

    def begin(self) -> None:
        """Send the request, over a connection that is there if it can be. The visit has been let in."""
        front = self._front
        if not front.users.take(self._visit.principal.user.id):
            raise Refusal("too_many_requests", "too many requests of yours are in progress", retry_after=5)
        front.hold(self, self._visit.principal)
        end = None
        if self._head.upgrade is None and (key := self._visit.key) is not None:
            certain = self._head.has_body or self._head.method not in _REPEATABLE
            end = front.pool.take(key, certain=certain)
        if end is None:
            self._connection.wait_for(self._connect)
            return
        self._visit.note()
        self._send(end, reused=True)

    async def _connect(self) -> None:
        sock = await self._front.way.connect(self._visit)
        if self._over:
            sock.close()
            return
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = End(sock, self)
        self._front.engine.add(end)
        self._front.traffic.service_connections += 1
        self._send(end, reused=False)

    def _send(self, end: End, *, reused: bool) -> None:
        """Send the head of the request, and what is there of its body."""
        connection, head = self._connection, self._head
        end.handler = self
        self._end, self._reused = end, reused
        if reused:
            self._front.traffic.reused_connections += 1
        self._be_patient()
        self._responses = Responses(head.method, end.heard)
        request = head.sent = head.sent or headers.request_for(
            head, self._visit.target, client=connection.client, scheme=connection.scheme
        )
        sent = 0
        try:
            if not head.has_body:
                sent = end.write(request)
                if sent == len(request):
                    return
            elif not connection.data and head.waits:
                connection.say(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._uploaded = False
            framing = framing_of(length=head.length, chunked=head.chunked)
            self._upload = Flow(connection.end, end, framing, self._front.pipes)
            self._upload.pending = request[sent:]
            if head.has_body and connection.data:
                data, connection.data = connection.data, b""
                self._upload.feed(data)
        except BadBody as error:
            self._bad_request(error)
        except OSError:
            self._service_failed()
        else:
            self._pump_upload()

    # What the engine tells

    def ready(self, end: End) -> None:
        """The service has something to say, or room for more."""
        if self._upload is not None and self._upload.sink is end:
            self._pump_upload()
        if self._over:
            return
        if self._download is not None:
            self._pump_download()
        elif end.readable:
            self._read_head(end)

    def client_ready(self) -> None:
        """The client has something to say, or room for more."""
        end = self._connection.end
        if end.broken:
            self.cancel()
            return
        if self._upload is not None:
            self._pump_upload()
        elif end.hung:
            self._hasten()
        if self._download is not None and not self._over:
            self._pump_download()

    def failed(self) -> None:
        """Let go of everything."""
        self.cancel()

    def cancel(self) -> None:
        """End both connections: what comes now is nothing to anybody."""
        self.let_go()
        self._connection.reset()

    def overdue(self) -> None:
        """One side took too long."""
        if self._begun:
            self.cancel()
        elif self._upload is not None and self._end is not None and not self._upload.pending:
            self._refuse(Refusal("request_timeout", "the body did not go on coming"))
        else:
            message = f"the service did not go on answering for {limits.RESPONSE_TIMEOUT:g} seconds"
            self._refuse(Refusal("bad_gateway", message, "try again"))

    # The request

    def _pump_upload(self) -> None:
        upload = self._upload
        assert upload is not None
        before = upload.moved
        try:
            needs = upload.pump()
        except BadBody as error:
            self._bad_request(error)
            return
        except SourceFailed:
            self.cancel()
            return
        except SinkFailed:
            # The service has seen enough, or is gone: its answer, if there is one, says so.
            self._drop_upload()
            self._front.engine.again(upload.sink)
            return
        finally:
            if moved := upload.moved - before:
                self._front.traffic.bytes_from_clients += moved
                self._visit.note()
                self._be_patient()
        if needs is NOTHING:
            if self._head.has_body:
                self._connection.data = upload.excess
            self._drop_upload()
            self._uploaded = True
        elif not upload.waits(needs, self._front.engine):
            self.cancel()  # the client left in the middle of its request

    def _drop_upload(self) -> None:
        assert self._upload is not None
        self._upload.close()
        self._upload = None

    def _bad_request(self, error: BadBody) -> None:
        if self._begun:
            self.cancel()
        else:
            self._refuse(Refusal("bad_request", f"not a request: {error}"))

    # The response

    def _read_head(self, end: End) -> None:
        try:
            data = end.read(_READ)
        except OSError:
            self._service_failed()
            return
        if not data:
            if data is not None:
                self._service_failed()
            return
        try:
            for head, rest in self._responses.take(data):
                if head.status >= 200:
                    self._answer(head, rest)
                elif head.status == 101:
                    self._switch(head, rest)
                elif head.status != 100 and self._head.minor == 1:
                    self._connection.say(headers.interim_for(head))
                if self._begun or self._over:
                    return
        except BadHead as error:
            self._refuse(Refusal("bad_gateway", f"the service's answer is no HTTP: {error}"))
            return
        if end.readable:
            self._front.engine.again(end)

    def _answer(self, head: ResponseHead, rest: bytes) -> None:
        """Send the response on, with what is there of its body."""
        connection, request = self._connection, self._head
        assert self._end is not None
        self._response = self._end.heard = head
        plain = head.chunked and request.minor == 0
        endless = head.length is None and not head.chunked
        self._close = request.close or not self._uploaded or plain or endless or self._front.draining
        start = headers.response_for(
            head,
            service=self._visit.target.service is not None,
            chunked=head.chunked and not plain,
            close=self._close,
        )
        self._begun = True
        self._front.traffic.answered(self._visit.target.kind, head.status)
        whole = head.length is not None and len(rest) == head.length
        if whole:  # as it mostly is
            data = start + rest
            try:
                sent = connection.end.write(data)
            except OSError:
                self.cancel()
                return
            self._front.traffic.bytes_to_clients += len(rest)
            if sent == len(data):
                self._complete(excess=False)
                return
            start, rest = data[sent:], b""
        framing = framing_of(length=0 if whole else head.length, chunked=head.chunked, plain=plain)
        self._download = Flow(self._end, connection.end, framing, self._front.pipes)
        self._download.pending = start
        try:
            self._download.feed(rest)
        except BadBody:
            self.cancel()
            return
        self._be_patient()
        self._pump_download()

    def _pump_download(self) -> None:
        download = self._download
        assert download is not None
        before = download.moved
        try:
            needs = download.pump()
        except SinkFailed:
            self.cancel()
            return
        except (BadBody, SourceFailed):
            self._cut()
            return
        finally:
            if moved := download.moved - before:
                self._front.traffic.bytes_to_clients += moved
                self._be_patient()
        if needs is NOTHING:
            download.close()
            self._complete(excess=bool(download.excess))
        elif not download.waits(needs, self._front.engine):
            self._cut()  # the service left in the middle of its response

    def _cut(self) -> None:
        """End a response that isn't whole so that it is seen: its length tells, else a reset does.

        That takes what is on its way along with it, and a client may want to go on from there.
        """
        assert self._response is not None
        if self._response.length is not None:
            self.let_go()
            self._connection.linger()
        else:
            self.cancel()

    # Another protocol

    def _switch(self, head: ResponseHead, rest: bytes) -> None:
        protocol = self._head.upgrade
        if protocol is None or head.found.get(b"upgrade", b"").lower() != protocol.lower():
            raise BadHead("it speaks another protocol, which nobody asked for")
        assert self._end is not None
        end, self._end = self._end, None
        self.let_go(share=False)
        Relay(self._connection, end, self._visit).begin(headers.switch_for(head, protocol) + rest)

    # Endings

    def _complete(self, *, excess: bool) -> None:
        """The response is with the client."""
        response, end = self._response, self._end
        assert response is not None and end is not None
        reusable = not (excess or response.close or self._upload is not None or not self._uploaded)
        close = self._close or self._upload is not None
        if reusable and end.readable:
            reusable = end.is_quiet()
        self.let_go(reusable=reusable and not end.hung)
        if close:
            self._connection.linger()
        else:
            self._connection.next()

    def _service_failed(self) -> None:
        """The service's connection ended before its response began."""
        repeatable = self._head.method in _REPEATABLE and self._uploaded and not self._head.has_body
        if self._reused and repeatable and not self._responses.heard:
            assert self._end is not None
            self._front.engine.close(self._end)
            self._end, self._reused = None, False
            self._connection.wait_for(self._connect)
            return
        self._refuse(Refusal("bad_gateway", "the service closed before it answered", "try again"))

    def _refuse(self, refusal: Refusal) -> None:
        close = not self._uploaded or self._head.close
        self.let_go()
        self._connection.refuse(refusal, close=close)

    def let_go(self, *, reusable: bool = False, share: bool = True) -> None:
        """Let go of the service's connection, and of the user's `share`; twice is once."""
        if self._over:
            return
        self._over = True
        self._front.drop(self)
        if share:
            self._front.users.give(self._visit.principal.user.id)
        for flow in (self._upload, self._download):
            if flow is not None:
                flow.close()
        self._connection.exchange = None
        end, self._end = self._end, None
        if end is None:
            return
        key = self._visit.key if reusable else None
        if key is not None:
            self._front.pool.give(key, end)
        else:
            self._front.engine.close(end)

    def _be_patient(self) -> None:
        seconds = limits.STREAM_TIMEOUT if self._begun else limits.RESPONSE_TIMEOUT
        self._connection.deadline = self._front.engine.now + seconds

    def _hasten(self) -> None:
        """The client sends no more: mostly it is gone, and an answer will show it."""
        deadline = self._front.engine.now + limits.HALF_CLOSED_TIMEOUT
        self._connection.deadline = min(self._connection.deadline, deadline)
