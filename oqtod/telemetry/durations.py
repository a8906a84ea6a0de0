"""How long something took, time after time: counted in buckets, as a Prometheus histogram wants them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Durations:
    """Durations in seconds. `bounds` are the upper ends of the buckets, rising; one without end follows."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.sum = 0.0
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return for each upper end how many took that long at most; the last is +Inf."""
        ends = [*map(str, self._bounds), "+Inf"]
        return list(zip(ends, accumulate(self._counts), strict=True))
