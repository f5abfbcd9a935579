"""Workers under test, one after the other, and what they did until they died."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from tests.chaos.ground import PROJECT, Ground
from tests.chaos.zygote import Life

LIMIT_S = 60.0


@dataclass(frozen=True)
class Lived:
    """How a worker ended (its exit status, None: it did not end in time), and its calls."""

    status: int | None
    calls: tuple[str, ...]
    log: str


@dataclass
class Nursery:
    """A zygote, and the pipes to it."""

    asking: IO[str]
    telling: IO[str]

    def live(
        self, ground: Ground, point: str = "", moment: str = "", limit_s: float = LIMIT_S
    ) -> Lived:
        """Let one worker live on a lab's place, until its end or its death."""
        folder = ground.state.parent
        number = len(list(folder.glob("calls.*")))
        calls, log = folder / f"calls.{number}", folder / f"log.{number}"
        calls.touch()
        life = Life(
            str(ground.state), str(ground.project), str(calls), str(log), point, moment, limit_s
        )
        self.asking.write(f"{life.to_text()}\n")
        self.asking.flush()
        status = json.loads(self.telling.readline())
        return Lived(status, tuple(calls.read_text().splitlines()), log.read_text())


@contextmanager
def nursery() -> Iterator[Nursery]:
    """Start a zygote; it ends when its standard input does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.zygote"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Nursery(process.stdin, process.stdout)
