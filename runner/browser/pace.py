"""How good the pictures are: as good as the line of the quickest viewer takes them in time. No I/O.

What counts is how much longer than at best a viewer takes for a picture: a long way to it can't be helped
by smaller ones, a narrow one can. Whoever is slower than the quickest misses pictures.
"""

from __future__ import annotations

from typing import Final

LEVELS: Final = ((80, 1.0), (60, 1.0), (50, 0.75), (40, 0.5))
"""Quality of the JPEGs, of 100, and their size, of what was asked for; the best first."""

SLOW: Final = 0.2
"""Seconds that a picture takes longer than at best, from which on they get worse."""

QUICK: Final = 0.05
"""Seconds below which they get better again."""

_FALL_SECONDS: Final = 1.0
_RISE_SECONDS: Final = 4.0
_MOST_RISE_SECONDS: Final = 60.0
_NEW: Final = 0.3
"""How much the newest picture counts beside those before it."""


class Pace:
    """Follows the viewers. `level` is the place in LEVELS; `now` is in seconds, of any clock."""

    def __init__(self, now: float) -> None:
        self.level = 0
        self._taken: dict[object, float] = {}
        self._changed_at = now
        self._rise_seconds = _RISE_SECONDS
        self._rose = False

    def note(self, viewer: object, seconds: float, now: float) -> bool:
        """A viewer took so much longer than at best for a picture; say whether the level is another now."""
        before = self._taken.get(viewer, seconds)
        self._taken[viewer] = before + _NEW * (seconds - before)
        best, since = min(self._taken.values()), now - self._changed_at
        if best > SLOW and self.level < len(LEVELS) - 1 and since >= _FALL_SECONDS:
            if self._rose:  # too soon: the next time it is tried later
                self._rise_seconds = min(2 * self._rise_seconds, _MOST_RISE_SECONDS)
            self._change(self.level + 1, now)
            return True
        if best < QUICK and self.level > 0 and since >= self._rise_seconds:
            self._change(self.level - 1, now)
            return True
        return False

    def left(self, viewer: object) -> None:
        """A viewer is gone."""
        self._taken.pop(viewer, None)

    def _change(self, level: int, now: float) -> None:
        self._rose = level < self.level
        self.level, self._changed_at = level, now
        self._taken.clear()  # that was of other pictures
