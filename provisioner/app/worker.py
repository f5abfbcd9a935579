"""The worker: takes the work that was asked for, hands it to the engine, and keeps the leases."""

from __future__ import annotations

import logging
import threading

from provisioner.app.leases import Leases
from provisioner.app.wiring import House
from provisioner.errors import LabctlError, to_data
from provisioner.model.lab import AuditEntry, LabState, WorkItem, WorkStatus
from provisioner.ports import Engine

LOG = logging.getLogger("labctl.worker")
POLL_S = 0.2
LEASES_S = 15.0
WIDTH = 64
"""How many labs are worked on at once."""
UNDER_WAY = {
    "provision": (LabState.PROVISIONING, LabState.FAILED),
    "teardown": (LabState.TEARING_DOWN, LabState.RESIDUE),
}
"""By workflow: what a lab is while it is under way, and what it is when that failed."""


class Worker:
    """One worker over one engine. Whoever makes it holds the worker's lock.

    Args:
        house: its store, and `stopping`, which ends the work after the steps under way.
        engine: what runs workflows; work that an earlier worker left is continued.
        idle_s: how long to stay without work; None means until stopped.
    """

    def __init__(self, house: House, engine: Engine, idle_s: float | None) -> None:
        self._house = house
        self._engine = engine
        self._idle_s = idle_s
        self._leases = Leases(house)
        self._ending = threading.Event()
        self._running: dict[int, WorkItem] = {}

    def run(self) -> None:
        """Work until stopped, or until idle for long enough."""
        # A thread of its own: a vCenter that is slow to tell its time must not hold up the work.
        leases = threading.Thread(target=self._keep_leases, name="leases", daemon=True)
        leases.start()
        try:
            self._work()
        finally:
            self._ending.set()
            leases.join(LEASES_S)

    def _keep_leases(self) -> None:
        while not self._ending.is_set() and not self._house.stopping.is_set():
            try:
                self._leases.tick()
            except Exception:
                LOG.exception("leases were not looked at; they are again in %g s", LEASES_S)
            self._ending.wait(LEASES_S)

    def _work(self) -> None:
        busy_at_s = self._house.clock.monotonic_s()
        while not self._house.stopping.is_set():
            now_s = self._house.clock.monotonic_s()
            if self._take():
                busy_at_s = now_s
            self._collect()
            if self._idle_s is not None and now_s - busy_at_s > self._idle_s:
                LOG.info("idle: the worker ends; the next verb that needs one starts it")
                return
            self._house.stopping.wait(POLL_S)

    def _take(self) -> bool:
        """Hand open work to the engine, oldest first, one piece for each lab at a time.

        Returns whether there is any.
        """
        busy = {item.lab_id for item in self._running.values()}
        open_work = self._house.store.list_open_work()
        for item in open_work:
            if item.serial in self._running or item.lab_id in busy or len(self._running) >= WIDTH:
                continue
            busy.add(item.lab_id)
            self._house.store.set_work(item.serial, WorkStatus.RUNNING, self._house.clock.now())
            try:
                self._engine.submit(*_key(item))
            except LabctlError as error:  # of this piece alone: the others go on
                self._record_end(item, error)
                continue
            self._running[item.serial] = item
            LOG.info("%s of lab %s, run %d: begun", item.workflow, item.lab_id, item.run)
        return bool(open_work)

    def _collect(self) -> None:
        """Record how work ended."""
        for item in list(self._running.values()):
            error: LabctlError | None = None
            try:
                if not self._engine.wait(*_key(item), timeout_s=0):
                    continue
            except LabctlError as ended_with:
                error = ended_with
            del self._running[item.serial]
            self._record_end(item, error)

    def _record_end(self, item: WorkItem, error: LabctlError | None) -> None:
        store, now = self._house.store, self._house.clock.now()
        status = WorkStatus.FAILED if error else WorkStatus.DONE
        store.set_work(item.serial, status, now, to_data(error) if error else None)
        what = error.what if error else ""
        if error:
            self._leave_no_lab_between(item, what)
        entry = AuditEntry(now, "worker", item.workflow, item.lab_id, status.value, what)
        store.record(entry)
        LOG.info("%s of lab %s, run %d: %s %s", item.workflow, item.lab_id, item.run, status, what)

    def _leave_no_lab_between(self, item: WorkItem, what: str) -> None:
        """A workflow that ended before it could say so must not leave its lab under way."""
        store, under_way = self._house.store, UNDER_WAY.get(item.workflow)
        lab = store.find_lab(item.lab_id)
        if lab and under_way and (lab.generation, lab.state) == (item.generation, under_way[0]):
            now = self._house.clock.now()
            store.set_state(item.lab_id, item.generation, under_way[1], now, note=what)


def _key(item: WorkItem) -> tuple[str, str, int, int]:
    return item.workflow, item.lab_id, item.generation, item.run
