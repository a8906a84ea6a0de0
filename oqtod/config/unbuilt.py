"""The keys whose feature isn't built yet. The list must shrink to nothing.

A key in it may stand at its default, so that the reference's full example loads; anything else would be a
promise that oqtod doesn't keep, and stops the start.
"""

from typing import Final

from .keys import Key

UNBUILT: Final[dict[str, str]] = {
    "profile": "profiles",
    "container.*": "sessions in containers",
    "runner.pi_sessions_dir": "the agent",
    "runner.memories_dir": "the agent",
    "eavs.*": "EAVS",
    "templates.*": "project templates",
    "onboarding_templates.*": "onboarding templates",
    "feedback.*": "feedback",
    "scaffold.*": "scaffolding",
}
"""A key, or all keys of a section, and the feature that it waits for."""

ALSO_ACCEPTED: Final[dict[str, object]] = {
    "eavs.enabled": False,  # what isn't there can be switched off
    "eavs.container_url": "http://host.containers.internal:41800",
}
"""Values besides the default: those of the reference's full example, and those that mean the default."""


def feature_missing(path: str) -> str | None:
    """Return the feature that the key at `path` waits for, or None when the key works."""
    return UNBUILT.get(path) or UNBUILT.get(path.rpartition(".")[0] + ".*")


def refuses(key: Key, written: object) -> bool:
    """Whether the value, as it was written before expansion, asks for something that isn't built."""
    if feature_missing(key.path) is None:
        return False
    return not (written == key.default or (key.path in ALSO_ACCEPTED and written == ALSO_ACCEPTED[key.path]))
