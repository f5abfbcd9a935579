"""One thread that waits for everything: a private PropertyCollector and one ListView.

Callers put what they wait for in a queue and sleep on a future until their deadline. Only the
owner thread changes the ListView, between two waits. What vCenter pushes is a hint that something
changed: then, and after every wait in which nothing did, the objects are read again, and that
decides.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyVmomi import vim, vmodl

from provisioner.errors import (
    LabctlError,
    StoppedError,
    TaskFailedError,
    VmGoneError,
    VsphereError,
    VsphereUnavailableError,
)
from provisioner.ports import Clock
from provisioner.vsphere.faults import TROUBLE, translate
from provisioner.vsphere.properties import build_spec, get_moref
from provisioner.vsphere.session import Session
from provisioner.vsphere.watch import Watch

T = TypeVar("T")
YOUNG_S = 20.0
YOUNG_WAIT_S, OLD_WAIT_S = 1, 10
"""How long one wait at vCenter lasts while something young is waited for, and later."""
SILENT_S = OLD_WAIT_S + 5.0
"""After how long without the end of a wait at vCenter it does not answer."""
KEEPALIVE_S = 240.0
RETRY_S = 2.0
UNREADABLE = (KeyError, AttributeError, TypeError)
"""What pyVmomi raises on a fault in `info.error` whose type it does not know."""
LOST = (
    vim.fault.NotAuthenticated,
    vmodl.fault.ManagedObjectNotFound,
    vmodl.query.InvalidCollectorVersion,
)
"""Faults that say that the watch died with its session: a new one is set up at once."""
ENDED = (vim.TaskInfo.State.success, vim.TaskInfo.State.error)


@dataclass(eq=False)
class _Wait:
    """One object, the property that is watched, and who wants to know."""

    ref: Any
    path: str
    decide: Callable[[Any], Any]
    doing: str
    since_s: float
    looked: bool = False
    future: Future[Any] = field(default_factory=Future)

    def settle(self, *, value: Any = None, error: BaseException | None = None) -> None:
        """Tell who waits, unless it has given up meanwhile."""
        with contextlib.suppress(InvalidStateError):
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(value)


class Waiter:
    """Waits for properties of managed objects, for any number of threads at once."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._inbox: queue.SimpleQueue[_Wait | None] = queue.SimpleQueue()
        self._pending: list[_Wait] = []
        self._watch: Watch | None = None
        self._parked = False
        self._closing = threading.Event()
        self._trouble: LabctlError | None = None
        self._heard_at_s = 0.0
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None

    def wait_for(
        self,
        ref: Any,
        path: str,
        decide: Callable[[Any], T | None],
        timeout_s: float,
        doing: str,
        late: type[LabctlError] = VsphereUnavailableError,
    ) -> T:
        """Wait until `decide` makes something of the property's value (None while it is unset).

        Args:
            ref: the managed object.
            path: the leaf property path that is watched.
            decide: called in the owner's thread with each value; None means "not yet".
            timeout_s: the deadline, from now.
            doing: completes "cannot ..." in errors.
            late: what is raised when the deadline passed although vCenter answers.

        Raises:
            VsphereUnavailableError: the deadline passed, and vCenter does not answer.
            VmGoneError: the object is no longer there.
            StoppedError: the session is being closed.
        """
        wait = _Wait(ref, path, decide, doing, self._clock.monotonic_s())
        self._wake(wait)
        try:
            result: T = wait.future.result(timeout_s)
        except TimeoutError:
            wait.future.cancel()
            trouble, silent_s = self._trouble, self._clock.monotonic_s() - self._heard_at_s
            is_silent = trouble is not None or min(silent_s, timeout_s) > SILENT_S
            because = f": {trouble.what}" if trouble is not None else ""
            raise (VsphereUnavailableError if is_silent else late)(
                f"{self._session.title}: cannot {doing}: not within {timeout_s:g} s{because}",
                hint="the outcome is unknown; run the same command again: it looks first",
            ) from trouble
        return result

    def wait_for_task(self, task: Any, timeout_s: float, doing: str) -> Any:
        """Wait for the end of a vim task and return its result.

        Raises:
            VsphereUnavailableError: the deadline passed, or vCenter has forgotten the task: the
                outcome is unknown.
            LabctlError: the fault that the task ended with, through the table of faults.
        """
        try:
            state = self.wait_for(
                task,
                "info.state",
                lambda state: state if state in ENDED else None,
                timeout_s,
                doing,
            )
        except VmGoneError as error:
            raise VsphereUnavailableError(
                f"{self._session.title}: cannot {doing}: vCenter has forgotten the task",
                hint="the outcome is unknown; run the same command again: it looks first",
            ) from error
        outcome = "info.result" if state == vim.TaskInfo.State.success else "info.error"
        try:
            readings = self._session.retrieve(doing, build_spec([task], {vim.Task: [outcome]}))
        except UNREADABLE as error:
            readings = ()
            unreadable = f"vCenter named a fault that pyVmomi does not know: {error}"
        else:
            unreadable = "vCenter gave no reason"
        value = readings[0].values.get(outcome) if readings else None
        if state == vim.TaskInfo.State.success:
            return value
        if isinstance(value, vmodl.MethodFault):
            raise translate(
                value, f"{self._session.title}: cannot {doing}", in_task=True
            ) from value
        raise TaskFailedError(
            f"{self._session.title}: cannot {doing}: {unreadable}",
            hint="the recent tasks in vCenter say more",
        )

    def close(self) -> None:
        """End the owner thread; whoever waits gets a StoppedError."""
        with self._start:
            self._closing.set()
            thread = self._thread
        if thread is not None:
            self._inbox.put(None)
            self._unpark()
            thread.join(self._session.limits.request_s)

    def _wake(self, wait: _Wait) -> None:
        with self._start:
            if self._closing.is_set():
                raise StoppedError(f"{self._session.title}: the session is being closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="waiter", daemon=True)
                self._thread.start()
            self._inbox.put(wait)
        self._unpark()

    def _unpark(self) -> None:
        """End a long wait at vCenter early: the owner then sees what is new."""
        watch = self._watch
        if self._parked and watch is not None:
            with contextlib.suppress(*TROUBLE, LabctlError):
                watch.cancel()

    # -- the owner's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._take_new()
                if self._pending:
                    self._round()
                    self._trouble, self._heard_at_s = None, self._clock.monotonic_s()
            except VsphereUnavailableError as error:
                # Who waits keeps its own deadline, so go on trying.
                self._trouble, self._watch = error, None
                self._closing.wait(RETRY_S)
            except Exception as error:  # noqa: BLE001 - the thread's edge: who waits must hear it
                self._watch = None
                for wait in self._pending:
                    wait.settle(error=error)
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._inbox.get_nowait())
        stopped = StoppedError(f"{self._session.title}: the session is being closed")
        for wait in self._pending:
            wait.settle(error=stopped)

    def _take_new(self) -> None:
        """Take what came in; with nothing to wait for, sleep until something does."""
        self._pending = [wait for wait in self._pending if not wait.future.done()]
        try:
            if not self._pending:
                self._take(self._inbox.get(timeout=KEEPALIVE_S))
            while True:
                self._take(self._inbox.get_nowait())
        except queue.Empty:
            if not self._pending and not self._closing.is_set():
                self._session.keep_alive()

    def _take(self, wait: _Wait | None) -> None:
        if wait is not None:
            self._pending.append(wait)

    def _round(self) -> None:
        """Wait once at vCenter, then decide about what may have changed."""
        content, serial = self._session.open()
        try:
            with self._session.cannot("wait for changes"):
                if self._watch is None or self._watch.serial != serial:
                    self._watch = Watch(content, serial)
                touched = self._follow(self._watch) or self._wait(self._watch)
        except VsphereError as error:
            self._watch = None
            if not isinstance(error.__cause__, LOST):
                raise
            if isinstance(error.__cause__, vim.fault.NotAuthenticated):
                self._session.forget(serial)
            return
        self._decide(
            wait for wait in self._pending if touched is None or get_moref(wait.ref) in touched
        )

    def _follow(self, watch: Watch) -> set[str]:
        """Follow what is waited for; returns the morefs that no update will ever speak of."""
        fresh = [wait for wait in self._pending if not wait.looked]
        silent = {get_moref(wait.ref) for wait in fresh if watch.follows(wait.ref, wait.path)}
        missing = watch.follow((wait.ref, wait.path) for wait in self._pending)
        for wait in fresh:
            wait.looked = True
        return missing | silent

    def _wait(self, watch: Watch) -> set[str] | None:
        """Wait for a hint; returns the morefs that changed, None when all should be looked at."""
        youngest_s = self._clock.monotonic_s() - max(wait.since_s for wait in self._pending)
        long = youngest_s > YOUNG_S
        self._parked = long
        try:
            # What came in before `_parked` was set would otherwise sit out a long wait.
            return watch.wait(OLD_WAIT_S if long and self._inbox.empty() else YOUNG_WAIT_S)
        finally:
            self._parked = False

    def _decide(self, waits: Iterable[_Wait]) -> None:
        """Read the objects and settle the waits for which that is enough."""
        doubtful = tuple(waits)
        if not doubtful:
            return
        paths: dict[type, set[str]] = {}
        for wait in doubtful:
            paths.setdefault(type(wait.ref), set()).add(wait.path)
        refs = {get_moref(wait.ref): wait.ref for wait in doubtful}
        readings = self._session.retrieve("wait for changes", build_spec(refs.values(), paths))
        values = {reading.moref: reading.values for reading in readings}
        for wait in doubtful:
            self._settle(wait, values.get(get_moref(wait.ref)))

    def _settle(self, wait: _Wait, values: Any) -> None:
        if values is None:
            moref = get_moref(wait.ref)
            gone = VmGoneError(
                f"{self._session.title}: cannot {wait.doing}: {moref} is no longer there"
            )
            wait.settle(error=gone)
            return
        try:
            decided = wait.decide(values.get(wait.path))
        except LabctlError as error:
            wait.settle(error=error)
            return
        if decided is not None:
            wait.settle(value=decided)
