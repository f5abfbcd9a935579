"""Time."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time, so that decisions about it can be tested."""

    def now(self) -> datetime:
        """Return the present as aware UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never go back, for durations."""
        ...
