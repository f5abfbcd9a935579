"""Where a process dies: every call through a port has a name and a number.

Three moments of each call, and what is true then:

- `before`: the call has had no effect;
- `after`: it has, and whoever made it does not know yet;
- `recorded`: what it brought was used: the process dies right before its next call through any
  port. When the call was the last one of a step, the engine has written that step's outcome down.

The worker keeps the leases beside the work, on a thread of its own: the calls of that strand are
counted apart. It asks for work again and again: only the first of these polls is a call of its own,
for the others come at times that no run repeats. Closing an adapter is no call either, but the one
before it is recorded by then.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

MOMENTS = ("before", "after", "recorded")
POLL = "store.list_open_work"
LEASES = "leases"


@dataclass(frozen=True, order=True)
class Point:
    """One call: its port and method, and how many of that name there were before it, plus one."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name}#{self.number}"


@dataclass
class Doom:
    """Counts the calls of this process, keeps their names in a log, and ends it at one of them.

    Args:
        log: gets a line for each call as it begins, whatever happens later.
        point: where to die, as `str(Point)`; empty means never.
        moment: one of MOMENTS.
    """

    log: Path
    point: str = ""
    moment: str = ""
    _counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _dies_next: str = ""

    def begin(self, name: str) -> str:
        """Take note of a call that begins; return its point, empty when it does not count."""
        strand = get_strand()
        if strand == LEASES:
            name = f"{LEASES}: {name}"
        with self._lock:
            if self._dies_next == LEASES:  # it makes few calls, and the last one has no next
                die()
            if name == POLL and self._counts[name]:
                return ""
            if self._dies_next == strand:
                die()
            if name.endswith(".close"):
                return ""
            self._counts[name] += 1
            point = str(Point(name, self._counts[name]))
            with self.log.open("a") as log:
                log.write(f"{point}\n")
            self._die_at(point, "before")
            return point

    def end(self, point: str) -> None:
        """Take note of a call that had its effect."""
        with self._lock:
            self._die_at(point, "after")
            if (point, "recorded") == (self.point, self.moment):
                self._dies_next = get_strand()

    def _die_at(self, point: str, moment: str) -> None:
        if (point, moment) == (self.point, self.moment):
            die()


def get_strand() -> str:
    """Tell whether this thread keeps the leases or does work."""
    return LEASES if threading.current_thread().name == LEASES else "work"


def die() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # until it arrives


class Watched:
    """An adapter whose calls are counted."""

    def __init__(self, adapter: Any, port: str, doom: Doom) -> None:
        self._adapter, self._port, self._doom = adapter, port, doom

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._adapter, name)
        return partial(self._call, name, found) if callable(found) else found

    def _call(self, name: str, act: Any, *args: Any, **kwargs: Any) -> Any:
        point = self._doom.begin(f"{self._port}.{name}")
        try:
            return act(*args, **kwargs)
        finally:
            self._doom.end(point)
