"""vSphere tasks: work in a thread of its own, followed through the Task object.

Two tasks on one object do not go together, unless both only read it as clones do their source: the
later one ends in TaskInProgress.
"""

from __future__ import annotations

import logging
import threading
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.fault_rules import build_fault
from provisioner.simulator.guests import GuestError
from provisioner.simulator.world import DERIVED, Call, Record, World, answers

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger("provisioner.simulator")
KEPT_TASKS = 2000
RECENT = timedelta(minutes=10)
_State = vim.TaskInfo.State


class TaskRun(Record):
    """One task: its Task object, and what its body may ask while it works."""

    def __init__(self, call: Call, *, cancelable: bool, exclusive: bool) -> None:
        world, method, ref = call.world, call.method, call.record.ref
        entity = ref if isinstance(ref, vim.ManagedEntity) else None
        key, verb = world.new_id("task"), method.name
        info = vim.TaskInfo(
            key=key,
            task=vim.Task(key),
            name=getattr(method.type, method.wsdlName),
            descriptionId=f"{method.type.__name__.rpartition('.')[2]}.{verb[:1].lower()}{verb[1:]}",
            entity=entity,
            entityName=world.name_of(entity) if entity else None,
            state=_State.queued,
            cancelable=cancelable,
            reason=vim.TaskReasonUser(userName=world.caller),
            queueTime=world.now(),
        )
        super().__init__(vim.Task(key), info=info)
        self.info = info
        self.world, self.target, self.args = world, call.record, call.args
        self.rule, self.exclusive = call.rule, exclusive
        self.delay_s = world.settings.method_delays_s.get(method.wsdlName, 0.0)
        self.cancelled = threading.Event()

    def update(self, **changes: Any) -> None:
        """Change the TaskInfo and tell whoever follows it."""
        with self.world.changed:
            for name, value in changes.items():
                setattr(self.info, name, value)
            collectors = self.world.of_type(vim.TaskHistoryCollector)
            self.world.touch(self, self.world.records["TaskManager"], self.target, *collectors)

    def check_cancelled(self) -> None:
        """Raise RequestCanceled when somebody cancelled the task, or the simulator stops."""
        if self.cancelled.is_set() or self.world.closing.is_set():
            raise vmodl.fault.RequestCanceled(msg="The task was canceled by a user.")

    def _fail_by_rule(self, when: str) -> None:
        if self.rule is not None and (self.rule.what, self.rule.when) == ("task-error", when):
            raise build_fault(self.rule.fault)

    def run(self, body: Callable[[TaskRun], Any]) -> None:
        """Do the work and record how it ended."""
        try:
            with self.target.busy if self.exclusive else nullcontext():
                result = self._work(body)
        except Exception as error:  # noqa: BLE001 - the edge: a thread has nobody to raise to
            self.end(error=as_fault(error), state=_State.error)
        else:
            self.end(result=result, state=_State.success, progress=100)

    def end(self, **ending: Any) -> None:
        """Record how the task ended."""
        with self.world.changed:
            if self in self.target.works:
                self.target.works.remove(self)
            self.update(completeTime=self.world.now(), cancelable=False, **ending)

    def _work(self, body: Callable[[TaskRun], Any]) -> Any:
        self.check_cancelled()
        self.update(state=_State.running, startTime=self.world.now(), progress=0)
        self.cancelled.wait(self.delay_s)
        self.check_cancelled()
        self.world.get(self.target.ref)
        self._fail_by_rule("before")
        result = body(self)
        self._fail_by_rule("after")
        return result


def require_idle(record: Record, *, exclusive: bool) -> None:
    """Raise TaskInProgress when a task is under way that another one does not go with."""
    for other in record.works:
        if exclusive or other.exclusive:
            text = "Another task is already in progress."
            raise vim.fault.TaskInProgress(task=other.ref, msg=text)


def as_fault(error: Exception) -> Any:
    """Return the vim fault that stands for an error."""
    if isinstance(error, vmodl.MethodFault):
        return error
    if isinstance(error, GuestError):
        return vim.fault.GenericVmConfigFault(reason=str(error), msg=str(error))
    LOG.error("a request failed inside the simulator", exc_info=error)
    return vmodl.fault.SystemError(reason=repr(error), msg=f"A general system error: {error!r}")


def task(
    kind: Any,
    name: str,
    *,
    cancelable: bool = False,
    exclusive: bool = True,
    claims: Callable[[Any], bool] = lambda _: True,
) -> Callable[[Callable[[TaskRun], Any]], Callable[[TaskRun], Any]]:
    """Register the body of a ``..._Task`` method; it runs in a thread and may take its time.

    ``claims`` tells from the arguments whether it keeps others from its object while it works.
    """

    def register(body: Callable[[TaskRun], Any]) -> Callable[[TaskRun], Any]:
        @answers(kind, name)
        def start(call: Call) -> Any:
            world, run = call.world, TaskRun(call, cancelable=cancelable, exclusive=exclusive)
            world.tasks.append(world.add(run))
            if len(world.tasks) > KEPT_TASKS:
                world.remove(world.tasks.popleft())
            run.update()
            try:
                require_idle(run.target, exclusive=exclusive)
            except vim.fault.TaskInProgress as fault:
                run.end(error=fault, state=_State.error)
            else:
                if claims(call.args):
                    run.target.works.append(run)
                world.start_thread(lambda: run.run(body))
            return run.ref

        return body

    return register


@answers(vim.Task, "CancelTask")
def _cancel_task(call: Call) -> None:
    """Ask a task to stop; it ends with RequestCanceled and its work is undone."""
    run: TaskRun = call.record
    if run.info.completeTime is not None:
        raise vim.fault.InvalidState(msg="the task is complete")
    if not run.info.cancelable:
        raise vmodl.fault.NotSupported(msg="the task cannot be canceled")
    rules = [one.what for one in (run.rule, call.rule) if one is not None]
    if "cancel-ignored" not in rules:
        run.cancelled.set()
    run.update(cancelled=True)


def _recent(world: World, entity: Any = None) -> list[Any]:
    oldest = world.now() - RECENT
    return [
        run.ref
        for run in world.tasks
        if run.moid in world.records
        if entity is None or run.info.entity == entity
        if run.info.completeTime is None or run.info.completeTime > oldest
    ]


DERIVED[vim.TaskManager, "recentTask"] = lambda world, _: _recent(world)
DERIVED[vim.ManagedEntity, "recentTask"] = lambda world, record: _recent(world, record.ref)
