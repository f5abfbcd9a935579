"""One thread that waits for everything: a private PropertyCollector and one ListView.

Callers put what they wait for in a queue and sleep on a future until their deadline. Only the owner
thread changes the ListView, between two waits. What vCenter pushes is a hint that something changed:
then, and after every wait in which nothing did, the objects are read again, and that decides.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyVmomi import vim, vmodl

from provisioner.errors import (
    LabctlError,
    StoppedError,
    VmGoneError,
    VsphereError,
    VsphereUnavailableError,
)
from provisioner.ports import Clock
from provisioner.vsphere.faults import TROUBLE, translate
from provisioner.vsphere.properties import Query, build_spec, get_moref
from provisioner.vsphere.session import Session

T = TypeVar("T")
YOUNG_S = 20.0
YOUNG_WAIT_S, OLD_WAIT_S = 1, 10
"""How long one wait at vCenter lasts while something young is waited for, and later."""
KEEPALIVE_S = 240.0
RETRY_S = 2.0
UNREADABLE = (KeyError, AttributeError, TypeError)
"""What pyVmomi raises on a fault in `info.error` whose type it does not know."""
ENDED = (vim.TaskInfo.State.success, vim.TaskInfo.State.error)


@dataclass(eq=False)
class _Wait:
    """One object, the property that is watched, and who wants to know."""

    ref: Any
    path: str
    decide: Callable[[Any], Any]
    doing: str
    since_s: float
    future: Future[Any] = field(default_factory=Future)

    def settle(self, *, value: Any = None, error: BaseException | None = None) -> None:
        """Tell who waits, unless it has given up meanwhile."""
        with contextlib.suppress(InvalidStateError):
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(value)


@dataclass
class _Rig:
    """What the owner keeps at vCenter under one login."""

    serial: int
    collector: Any
    view: Any
    watched: dict[type, set[str]] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)
    version: str = ""


class Waiter:
    """Waits for properties of managed objects, for any number of threads at once."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._inbox: queue.SimpleQueue[_Wait | None] = queue.SimpleQueue()
        self._pending: list[_Wait] = []
        self._rig: _Rig | None = None
        self._parked = False
        self._closing = threading.Event()
        self._trouble: LabctlError | None = None
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None

    def wait_for(
        self, ref: Any, path: str, decide: Callable[[Any], T | None], timeout_s: float, doing: str
    ) -> T:
        """Wait until `decide` makes something of the property's value (None while it is unset).

        Args:
            ref: the managed object.
            path: the leaf property path that is watched.
            decide: called in the owner's thread with each value; None means "not yet".
            timeout_s: the deadline, from now.
            doing: completes "cannot ..." in errors.

        Raises:
            VsphereUnavailableError: the deadline passed; the outcome is unknown.
            VmGoneError: the object is no longer there.
            StoppedError: the session is being closed.
        """
        wait = _Wait(ref, path, decide, doing, self._clock.monotonic_s())
        self._wake(wait)
        try:
            result: T = wait.future.result(timeout_s)
        except FutureTimeoutError:
            wait.future.cancel()
            because = f": {self._trouble.what}" if self._trouble else ""
            raise VsphereUnavailableError(
                f"{self._session.title}: cannot {doing}: not within {timeout_s:g} s{because}",
                hint="the outcome is unknown; run the same command again: it looks first",
            ) from self._trouble
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
                task, "info.state", lambda state: state if state in ENDED else None, timeout_s, doing
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
            raise translate(value, f"{self._session.title}: cannot {doing}", in_task=True)
        raise translate(
            vmodl.fault.SystemError(msg=unreadable),
            f"{self._session.title}: cannot {doing}",
            in_task=True,
        )

    def close(self) -> None:
        """End the owner thread; whoever waits gets a StoppedError."""
        self._closing.set()
        with self._start:
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
        rig = self._rig
        if self._parked and rig is not None:
            with contextlib.suppress(*TROUBLE):
                rig.collector.CancelWaitForUpdates()

    # -- the owner's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._take_new()
                if self._pending:
                    self._round()
                    self._trouble = None
            except LabctlError as error:
                # Not reached: who waits keeps its own deadline, so go on trying.
                self._trouble, self._rig = error, None
                self._closing.wait(RETRY_S)
            except Exception as error:  # noqa: BLE001 - the thread's edge: who waits must hear of it
                self._rig = None
                for wait in self._pending:
                    wait.settle(error=error)
        error = StoppedError(f"{self._session.title}: the session is being closed")
        for wait in self._pending:
            wait.settle(error=error)

    def _take_new(self) -> None:
        """Take what came in; with nothing to wait for, sleep until something does."""
        self._pending = [wait for wait in self._pending if not wait.future.done()]
        try:
            first = self._inbox.get(timeout=None if self._pending else KEEPALIVE_S)
        except queue.Empty:
            self._session.keep_alive()
            return
        self._pending += [first] if first else []
        with contextlib.suppress(queue.Empty):
            while True:
                more = self._inbox.get_nowait()
                self._pending += [more] if more else []
