"""How a verb hands work to the worker, and follows it to its end."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from provisioner.app.wiring import House
from provisioner.app.worker_process import find_end, find_worker, start_worker
from provisioner.errors import LabctlError, from_data
from provisioner.model.lab import OPEN_WORK, Progress, WorkItem

POLL_S = 0.2
LOOK_S = 1.0
STARTS = 5
"""How many workers in a row may give up before the work has ended."""


def follow(house: House, item: WorkItem, on_row: Callable[[Progress], None]) -> None:
    """Follow a piece of work to its end, and keep a worker running meanwhile.

    To stop following stops nothing else. Raises the error that the work ended with, LabctlError
    when no worker can be kept running.
    """
    rows = house.store.list_progress(item.lab_id)
    seen = max((row.serial for row in rows if row.at < item.asked_at), default=0)
    keeper = _Keeper(house)
    while True:
        now = house.store.get_work(item.serial)
        for row in house.store.list_progress(item.lab_id, after=seen):
            seen = row.serial
            on_row(row)
        if now.status not in OPEN_WORK:
            break
        keeper.look()
        house.stopping.wait(POLL_S)
    if now.error is not None:
        raise from_data(now.error)


class _Keeper:
    """Starts a worker when none runs, and again when it was killed."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._looked_s = float("-inf")
        self._gave_up = 0
        self._started: int | None = None

    def look(self) -> None:
        """See to it that a worker runs. Raises LabctlError when none stays."""
        if monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = monotonic()
        if self._started is not None:
            code = find_end(self._started)
            if code is None:
                return
            self._started = None
            # One that was killed says nothing about the next one.
            self._gave_up = 0 if code < 0 else self._gave_up + 1
        if find_worker(self._house.state):
            return
        if self._gave_up >= STARTS:
            raise LabctlError(
                f"no worker stays running: {STARTS} ended before the work did",
                hint=f"the last lines of {self._house.state / 'worker.log'} say why",
            )
        self._started = start_worker(self._house)
