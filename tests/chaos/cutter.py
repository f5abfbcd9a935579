"""A wire between labctl and vCenter that somebody cuts, seeded, below TLS."""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

CHUNK_BYTES = 2048
LATENCY_S, SLOW_CLOSE_S, LOOK_S = 0.05, 1.0, 0.05
AFTER_BYTES = (2.0, 4.5)
"""When it happens: after 10 to the power of something between these."""
CUTS = ("latency", "reset", "half-open", "slow close")
SPARED = ""
NO_LINGER = struct.pack("ii", 1, 0)


class Cutter:
    """A proxy on loopback in front of a port of this machine.

    To a connection, once so many bytes have passed, one thing happens: every further chunk is
    late; both ends see a reset; nothing passes any more, and nobody is told; or the end of one side
    reaches the other one late.

    Args:
        target: what it stands in front of.
        seed: decides what happens to which connection, and when.
        most: how often something happens; then all is well. `done` tells what did.
        cuts: what may happen, one as likely as the other.
    """

    def __init__(
        self,
        target: tuple[str, int],
        seed: int,
        most: int,
        cuts: Sequence[str] = (SPARED, *CUTS),
    ) -> None:
        self.done: list[str] = []
        self.closing = threading.Event()
        self._target, self._most, self._cuts = target, most, cuts
        self._chance = random.Random(seed)  # noqa: S311 - to be repeated
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End every connection, and return when nothing runs."""
        self.closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def happens(self, cut: str) -> bool:
        """Take note that something happens; False when enough has."""
        with self._lock:
            if len(self.done) >= self._most or self.closing.is_set():
                return False
            self.done.append(cut)
            return True

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client, _ = self._listener.accept()
                cut = self._chance.choice(self._cuts)
                after = int(10 ** self._chance.uniform(*AFTER_BYTES))
                wire = _Wire(self, client, socket.create_connection(self._target), cut, after)
                thread = threading.Thread(target=wire.run)
                self._threads.append(thread)
                thread.start()


class _Wire:
    """One connection, and what happens to it."""

    def __init__(
        self, cutter: Cutter, client: socket.socket, server: socket.socket, cut: str, after: int
    ) -> None:
        self._cutter = cutter
        self._others = {client: server, server: client}
        self._cut, self._after = cut, after
        self._is_late = self._is_silent = False

    def run(self) -> None:
        """Pass bytes on until one side ends, or something happens."""
        client, server = self._others
        with client, server, suppress(OSError):
            while not self._cutter.closing.is_set():
                ready, _, _ = select.select(list(self._others), [], [], LOOK_S)
                if not all(self._pass_on(one) for one in ready):
                    return

    def _pass_on(self, one: socket.socket) -> bool:
        """Pass one chunk on; False when the connection is over."""
        chunk = one.recv(CHUNK_BYTES)
        if not chunk:
            if self._cut == "slow close" and self._cutter.happens(self._cut):
                self._cutter.closing.wait(SLOW_CLOSE_S)
            return False
        self._after -= len(chunk)
        if self._after <= 0 and self._cut != "slow close":
            self._meet()
        if self._is_late:
            self._cutter.closing.wait(LATENCY_S)
        if not self._is_silent:
            self._others[one].sendall(chunk)
        return True

    def _meet(self) -> None:
        """Let happen what is to happen, once."""
        cut, self._cut = self._cut, ""
        if cut == SPARED or not self._cutter.happens(cut):
            return
        self._is_late, self._is_silent = cut == "latency", cut == "half-open"
        if cut == "reset":
            for end in self._others:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            raise ConnectionResetError
