"""Until when something may take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic


class Deadline:
    """A moment `timeout_s` from now."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._ends_s = monotonic() + timeout_s

    def is_over(self) -> bool:
        """Tell whether the time has run out."""
        return monotonic() >= self._ends_s

    def left_s(self, cap_s: float = float("inf")) -> float:
        """Return what is left, at most `cap_s`. Raises TimeoutError when nothing is."""
        left_s = self._ends_s - monotonic()
        if left_s <= 0:
            raise TimeoutError
        return min(left_s, cap_s)

    @contextmanager
    def watching(self, on_end: Callable[[], None]) -> Iterator[None]:
        """Call `on_end` from another thread when the time runs out inside the block.

        paramiko waits without a limit for the answer to some of its requests, and for a peer that
        takes no data; closing its transport ends such a wait.
        """
        timer = threading.Timer(self.left_s(), on_end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
