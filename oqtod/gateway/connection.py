"""One client's connection: the requests on it one after another, each handed to the API or to a service."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

import trio

from oqtod.accounts.principal import Principal
from oqtod.errors import Refusal
from oqtod.gateway import admin_socket, answers, limits
from oqtod.gateway.conversation import Conversation, Gone
from oqtod.gateway.engine import End
from oqtod.gateway.exchange import Exchange
from oqtod.gateway.farewell import Farewell, reset
from oqtod.gateway.heads import KEPT, BadHead, RequestHead, end_of_head, request_head
from oqtod.gateway.targets import Target
from oqtod.gateway.visit import Visit
from oqtod.store.database import StorageError
from oqtod.telemetry.traffic import RouteKind

if TYPE_CHECKING:
    from oqtod.gateway.front import Front

log = logging.getLogger(__name__)

_READ = 16 * 1024


class State(Enum):
    """What a connection is at."""

    HEAD = "the head of a request is awaited, or a part of it is there"
    AWAY = "a task answers the request"
    SERVICE = "an exchange with a service goes on"
    CLOSED = "it is closed, or somebody else's"


# A member of an enumeration by its name is a call in Python 3.11.
_HEAD, _AWAY, _SERVICE, _CLOSED = State


class Connection:
    """One client's connection."""

    __slots__ = (
        "_conversation",
        "_last",
        "_reading",
        "_refuses",
        "_seen",
        "_state",
        "_target",
        "_task",
        "_used",
        "client",
        "data",
        "deadline",
        "end",
        "exchange",
        "front",
        "household",
        "kind",
        "peer",
        "principal",
        "request_id",
        "scheme",
    )

    def __init__(
        self,
        front: Front,
        sock: socket.socket,
        peer: tuple[str, int],
        household: str | None = None,
        principal: Principal | None = None,
        *,
        closed_to_others: bool = False,
    ) -> None:
        """With `closed_to_others`, only who comes with a `principal` is served."""
        self.front = front
        self.end = End(sock, self)
        self.peer = peer
        self.household = household
        """Whose share of connections this one is of."""
        self.principal = principal
        self._refuses = closed_to_others and principal is None
        self.data = b""
        """What was read and belongs to no request yet."""
        self.deadline = trio.current_time() + limits.IDLE_TIMEOUT
        self.exchange: Exchange | None = None
        self.client = peer[0]
        """The address that the present request comes from, behind the proxies that we trust."""
        self.scheme: str | None = None
        self.request_id = ""
        self.kind: RouteKind = "page"
        """What the present request is for."""
        self._state = _HEAD
        self._seen = 0
        self._reading = False
        self._conversation: Conversation | None = None
        self._used = False
        """Whether there was a request."""
        self._last: RequestHead | None = None
        """The head of the request that is answered, or was before."""
        self._target: Target | None = None
        """Where the last request went."""
        self._task: trio.CancelScope | None = None

    # What the engine tells

    def ready(self, end: End) -> None:
        """There is something to read, or room to write."""
        state = self._state
        if state is _HEAD:
            self._read()
        elif state is _SERVICE:
            assert self.exchange is not None
            self.exchange.client_ready()

    def failed(self) -> None:
        """Let go of everything."""
        self.reset()

    def overdue(self) -> None:
        """The deadline is over."""
        if self._state is _SERVICE:
            assert self.exchange is not None
            self.exchange.overdue()
        elif self._state is _HEAD and self.data:
            message = f"the head did not come within {limits.IDLE_TIMEOUT:g} seconds"
            self._last = None
            self.refuse(Refusal("request_timeout", message), close=True)
        else:
            self.close()

    # Reading requests

    def next(self) -> None:
        """The request is answered; take another one."""
        if self._state is _CLOSED:
            return
        if self.front.draining:
            self.linger()
            return
        if self._last is not None and len(self._last.block) > KEPT:
            self._last = None  # thousands may wait here
        self._state = _HEAD
        self.exchange = None
        self._seen = 0
        self.deadline = self.front.engine.now + limits.IDLE_TIMEOUT
        self._read()

    def _read(self) -> None:
        if self._reading:
            return  # the loop below goes on: requests that came together don't nest
        self._reading = True
        try:
            while self._state is _HEAD and self._step():
                pass
        except BadHead as error:
            self.front.traffic.malformed_requests += 1
            self._last = None
            self.refuse(Refusal(error.code, str(error)), close=True)
        finally:
            self._reading = False

    def _step(self) -> bool:
        """Take a request that is here, or read more; say whether that may help. Raises BadHead."""
        data, end = self.data, self.end
        if data:
            length = end_of_head(data, self._seen)
            if length:
                head = request_head(data[:length], self._last)
                self.data = data[length:]
                if head is not self._last:
                    self._last, self._target = head, self.front.way.target(head)
                self._dispatch(head)
                return True
            self._seen = len(data)
        if not end.readable:
            return False
        try:
            more = end.read(_READ)
        except OSError:
            self.close()
            return False
        if more is None:
            return False
        if not more:
            if data:
                raise BadHead("not a request: it ends in the middle of its head")
            self.close()
            return False
        self.data = data + more if data else more
        return True

    def _dispatch(self, head: RequestHead) -> None:
        front = self.front
        self._seen, self._used = 0, True
        self.request_id = front.next_request_id()
        if front.trusted.any:
            self.client = front.trusted.client(self.peer[0], head.fields)
            self.scheme = front.trusted.scheme(self.peer[0], head.fields)
        try:
            if self._refuses:
                raise Refusal("forbidden", *admin_socket.NOT_AN_ADMINISTRATOR)
            target = self._target
            if target is None:
                self.kind = "api" if head.target.startswith(b"/api/") else "page"
                self._state = _AWAY
                self.deadline = math.inf
                front.start(self._talk, head)
            else:
                self.kind = target.kind
                self._visit(head, target)
        except Refusal as refusal:
            self.refuse(refusal, close=head.close or head.has_body)
        except StorageError as error:
            self.refuse(Refusal("unavailable", str(error)), close=head.close or head.has_body)

    def _visit(self, head: RequestHead, target: Target) -> None:
        """Take a request to a service to it. Raises Refusal."""
        front = self.front
        if head.upgrade is not None and head.has_body:
            raise Refusal("bad_request", "an upgrade has no body")
        visit = front.way.visit(self.request_id, self.client, head, target)
        if visit.admit_at_once(head, self.principal):
            self._enter(head, visit)
        else:
            self._state = _AWAY
            self.wait_for(partial(self._admit, head, visit))

    async def _admit(self, head: RequestHead, visit: Visit) -> None:
        await visit.admit(head)
        if self._state is _AWAY:
            self._enter(head, visit)

    def _enter(self, head: RequestHead, visit: Visit) -> None:
        """Begin the exchange with the service. Raises Refusal."""
        self.front.way.check(visit)
        self.exchange = exchange = Exchange(self, head, visit)
        self._state = _SERVICE
        exchange.begin()

    # Tasks

    def wait_for(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do what must be waited for, in a task; what it refuses is the answer."""
        self.deadline = math.inf
        self.front.start(self._work, work)

    async def _work(self, work: Callable[[], Awaitable[None]]) -> None:
        with trio.CancelScope() as self._task:
            refusal = await _refusal_of(work, self.request_id)
            if refusal is not None:
                self._answer_instead(refusal)
        self._task = None

    async def _talk(self, head: RequestHead) -> None:
        """Have the API answer."""
        conversation = Conversation(self, head)
        with trio.CancelScope() as scope:
            self._task = scope
            self._conversation = conversation
            try:
                refusal = await _refusal_of(
                    partial(conversation.hold, self.front.application), self.request_id
                )
            except Gone as error:
                log.debug("a connection of %s ended: %s", self.client, error)
                self.reset()  # what it didn't take so far isn't kept for it
            else:
                self._after(conversation, refusal)
        if scope.cancelled_caught and self._state is _AWAY:
            # The gateway stops: an event stream ends in order, so that the page looks for it again.
            self.end.readable = True
            self.linger(conversation.last_words())
        self._task = self._conversation = None

    def _after(self, conversation: Conversation, refusal: Refusal | None) -> None:
        if self._state is not _AWAY:
            return
        self.end.readable = True  # nobody knows what came meanwhile
        if refusal is None and conversation.reusable:
            self.next()
        elif refusal is None:
            self.linger()
        elif conversation.begun:
            self.reset()  # so that it can be seen that the answer is not whole
        else:
            self.refuse(refusal, close=not conversation.complete)

    def _answer_instead(self, refusal: Refusal) -> None:
        if self.exchange is not None:
            self.exchange.let_go()
        if self._state in (_AWAY, _SERVICE):
            head = self._last
            assert head is not None
            self.refuse(refusal, close=head.close or head.has_body)

    def drain(self) -> None:
        """The gateway stops: answer what was asked for, and end what has no end of its own.

        A client whose connection was never used can't know that its first request was not heard: it may
        still make it. One that was used may be closed between two requests, RFC 9112 section 9.3.1.
        """
        if self._state is _HEAD and not self._used:
            self.deadline = min(self.deadline, trio.current_time() + limits.DRAIN_GRACE)
        elif self._state is _HEAD and not self.data:
            self.close()
        elif self._state is _AWAY and self._conversation is not None and self._conversation.lasting:
            assert self._task is not None
            self._task.cancel()

    # Answers of our own

    def refuse(self, refusal: Refusal, *, close: bool) -> None:
        """Answer with an error, where no answer has begun."""
        if self._state is _CLOSED:
            return
        if not self.request_id:
            self.request_id = self.front.next_request_id()
        self.front.traffic.answered(self.kind, refusal.status)
        bodiless = self._last is not None and self._last.method == b"HEAD"
        answer = answers.refused(refusal, self.request_id, close=close, bodiless=bodiless)
        if close:
            self.linger(answer)
        elif self.say(answer):
            self.next()

    def say(self, data: bytes) -> bool:
        """Send a few bytes, for which there must be room; say whether there was, else it is over."""
        try:
            if self.end.write(data) == len(data):
                return True
        except OSError as error:
            log.debug("a connection of %s ended: %s", self.client, error)
        self.reset()
        return False

    # Endings

    def linger(self, last: bytes = b"") -> None:
        """Say this and no more, and close when the client has had a moment to read it."""
        if self._state is not _CLOSED:
            farewell = Farewell(self.front, self.end, self.household, last)
            farewell.begin()
            self.leave()

    def leave(self) -> None:
        """Somebody else has the ends now."""
        self._state = _CLOSED
        self.front.forget(self)

    def close(self) -> None:
        """Close it; whatever goes on ends."""
        if self._state is _CLOSED:
            return
        self._state = _CLOSED
        if self.exchange is not None:
            self.exchange.let_go()
        if self._task is not None:
            self._task.cancel()
            trio.lowlevel.notify_closing(self.end.sock)
        self.front.engine.close(self.end)
        self.front.forget(self)
        self.front.left(self.household)

    def reset(self) -> None:
        """Close it so that the other side sees that it did not get all: an RST, SO_LINGER in socket(7)."""
        if self._state is not _CLOSED:
            reset(self.end.sock)
            self.close()


async def _refusal_of(work: Callable[[], Awaitable[None]], request_id: str) -> Refusal | None:
    """Do some work; return what the client is told where it fails. Raises Gone."""
    try:
        await work()
    except Refusal as refusal:
        return refusal
    except StorageError as error:
        return Refusal("unavailable", str(error))
    except Gone:
        raise
    except Exception:
        log.exception("a request failed", extra={"REQUEST_ID": request_id})
        return Refusal("internal", "something went wrong", "the journal says what")
    return None
