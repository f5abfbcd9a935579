"""Workers by the hundred: a process that has imported everything, and forks one for each case.

It has one thread, so that a fork is a whole process. A line on standard input says how a worker
lives, a line on standard output how it ended: its exit status, negative for a signal, or null when
it did not end in time and was killed.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import provisioner.converge  # what a worker needs is imported once, before any fork
import provisioner.engine.durable
import provisioner.shell
import provisioner.vsphere  # noqa: F401 - the same
from provisioner.app.worker import Worker
from provisioner.app.worker_process import holding_the_lock
from tests.chaos.doom import Doom, Watched
from tests.chaos.wiring import ChaosHouse


@dataclass(frozen=True)
class Life:
    """How one worker lives: where, where it dies if anywhere, and for how long at most.

    `calls` is the file that lists its calls, `log` what it says.
    """

    state: str
    project: str
    calls: str
    log: str
    point: str = ""
    moment: str = ""
    limit_s: float = 60.0

    def to_text(self) -> str:
        return json.dumps(asdict(self))


def work(life: Life) -> None:
    """Be the worker until there is nothing to do. The engine is left as a kill leaves it."""
    log = os.open(life.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(threadName)s %(message)s")
    doom = Doom(Path(life.calls), life.point, life.moment)
    house = ChaosHouse(
        ask_password=lambda who: who,
        state=Path(life.state),
        project=Path(life.project),
        watch=lambda adapter, port: Watched(adapter, port, doom),
    )
    with holding_the_lock(house.state):
        Worker(house, house.open_engine(), idle_s=0).run()
        house.close()


def _live(life: Life) -> None:
    try:
        work(life)
    except BaseException:  # noqa: BLE001 - the edge: whatever it is, it is in the log
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _wait(pid: int, limit_s: float) -> int | None:
    """Wait for the end of a worker; kill it when its time is over."""
    end_s = time.monotonic() + limit_s
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if (left_s := end_s - time.monotonic()) <= 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        signal.sigtimedwait({signal.SIGCHLD}, left_s)


def main() -> None:
    assert threading.active_count() == 1
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        life = Life(**json.loads(line))
        pid = os.fork()
        if not pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            _live(life)
        sys.stdout.write(f"{json.dumps(_wait(pid, life.limit_s))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
