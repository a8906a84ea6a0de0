"""A session: its fields, its states, and which state may follow which. No I/O.

pending → starting → running → stopping → stopped, and failed from any of them but stopped;
stopped and failed can be resumed, and keep id, readable id, workspace and settings. A session that may still
have processes is never failed: it is stopping until its runner says that they are gone.
"""

from __future__ import annotations

import secrets
import uuid
from typing import Literal, get_args

import msgspec

from oqtod.clock import now

Status = Literal["pending", "starting", "running", "stopping", "stopped", "failed"]

TRANSITIONS: dict[Status, frozenset[Status]] = {
    "pending": frozenset({"starting", "stopping", "failed"}),
    "starting": frozenset({"running", "stopping", "failed"}),
    "running": frozenset({"stopping", "failed"}),
    "stopping": frozenset({"stopped", "failed"}),
    "stopped": frozenset({"starting"}),
    "failed": frozenset({"starting"}),
}
"""From each state, the states that may follow."""

LIVE: frozenset[Status] = frozenset({"pending", "starting", "running", "stopping"})
"""States in which a session holds ports and may have processes."""

STATUSES: tuple[Status, ...] = get_args(Status)


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session as the database has it."""

    id: str
    readable_id: str
    user_id: str
    linux_user: str | None = None
    workspace_path: str
    image: str
    environment: dict[str, str]
    status: Status = "pending"
    port_base: int | None = None
    """First port of the block that the session holds while it is live, and had last otherwise."""
    stream_port: int | None = None
    error_message: str | None = None
    created_at: str
    started_at: str | None = None
    stopped_at: str | None = None
    last_activity_at: str
    active_clock: float = 0.0
    """The last activity in seconds of `clock.elapsed`."""

    @property
    def live(self) -> bool:
        """Whether the session holds ports and may have processes."""
        return self.status in LIVE


def new(*, user_id: str, workspace_path: str, image: str, environment: dict[str, str]) -> Session:
    """Return a session that nobody knows of yet."""
    moment = now()
    return Session(
        id=str(uuid.uuid4()),
        readable_id=readable_id(),
        user_id=user_id,
        workspace_path=workspace_path,
        image=image,
        environment=environment,
        created_at=moment,
        last_activity_at=moment,
    )


def readable_id() -> str:
    """Return a name that can be said over the telephone."""
    number = secrets.randbelow(10_000)
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{number:04}"


_ADJECTIVES = [
    "amber",
    "bold",
    "brave",
    "bright",
    "calm",
    "clear",
    "clever",
    "cosy",
    "crisp",
    "eager",
    "early",
    "fair",
    "fine",
    "fresh",
    "gentle",
    "glad",
    "golden",
    "grand",
    "green",
    "happy",
    "keen",
    "kind",
    "light",
    "lively",
    "lucky",
    "merry",
    "mild",
    "neat",
    "noble",
    "proud",
    "quick",
    "quiet",
    "rapid",
    "ready",
    "silver",
    "smart",
    "snug",
    "soft",
    "spry",
    "steady",
    "sunny",
    "swift",
    "tidy",
    "true",
    "vivid",
    "warm",
    "wise",
    "young",
]

_NOUNS = [
    "acorn",
    "alder",
    "anchor",
    "badger",
    "beech",
    "birch",
    "bridge",
    "brook",
    "canyon",
    "cedar",
    "cliff",
    "clover",
    "comet",
    "coral",
    "crane",
    "delta",
    "ember",
    "falcon",
    "fern",
    "finch",
    "fjord",
    "forest",
    "fox",
    "garden",
    "harbor",
    "hazel",
    "heron",
    "island",
    "ivy",
    "juniper",
    "lagoon",
    "lake",
    "lark",
    "maple",
    "meadow",
    "moss",
    "oak",
    "otter",
    "owl",
    "pebble",
    "pine",
    "plover",
    "pond",
    "raven",
    "reef",
    "river",
    "robin",
    "sparrow",
    "spruce",
    "stone",
    "swan",
    "thistle",
    "tulip",
    "valley",
    "willow",
    "wren",
]
